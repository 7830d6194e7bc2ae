package limiter

import (
	"encoding/binary"
	"math/bits"
)

// rowCache keeps the rows of recently used counters. It holds exactly what the rows hold, so that
// dropping one never changes an answer.
//
// It is a ring of bytes and a hash table of offsets in it. What is new is written at the head, over what is
// oldest; who finds something in the older half puts it anew. So memory is bounded in bytes whatever
// counters hold, one costs some 30 bytes besides its row, and the garbage collector sees two objects.
//
// An entry is [size u32][hash u32][bytes of the key u16][bytes of the row u16][key][row], filled up to
// eight bytes; a size of 0 says that the rest of the ring is empty. One that no place leads to is dead.
type rowCache struct {
	capacity int // of the ring, in bytes; a power of two
	ring     []byte
	// Entries lie in [tail, head), which count bytes since the ring was empty.
	head, tail int
	// places are offsets in the ring, in eight bytes and from 1, by linear probing.
	places []uint32 // a power of two, at most three quarters used
	n      int
}

const (
	// cacheCounterBytes is what a counter takes of the ring at most if it is a bucket with short names, of
	// which something is lent to two holders.
	cacheCounterBytes = 128
	cacheHeader       = 12
	cacheAlign        = 8
	cacheRingMin      = 16 << 10
	cachePlacesMin    = 8
)

// newRowCache makes a cache for about so many counters.
func newRowCache(counters int) *rowCache {
	return &rowCache{capacity: 1 << bits.Len(uint(counters*cacheCounterBytes-1))}
}

// get finds the row of a counter, which is valid until the next put. One that is old will be dropped soon.
func (c *rowCache) get(hash uint64, key []byte) (row []byte, old, ok bool) {
	i, ok := c.find(hash, key)
	if !ok {
		return nil, false, false
	}
	at := c.offset(i)
	return c.row(at), c.old(at), true
}

// put stores the row of a counter; neither may be memory of the cache.
func (c *rowCache) put(hash uint64, key, row []byte) {
	i, ok := c.find(hash, key)
	if ok {
		at := c.offset(i)
		if len(row) <= c.size(at)-cacheHeader-len(key) && !c.old(at) {
			binary.LittleEndian.PutUint16(c.ring[at+10:], uint16(len(row)))
			copy(c.row(at), row)
			return
		}
		c.removeAt(i)
	}
	size := (cacheHeader + len(key) + len(row) + cacheAlign - 1) / cacheAlign * cacheAlign
	if 2*size > c.capacity || len(row) > 1<<16-1 {
		return
	}
	at := c.room(size)
	binary.LittleEndian.PutUint32(c.ring[at:], uint32(size))
	binary.LittleEndian.PutUint32(c.ring[at+4:], uint32(hash))
	binary.LittleEndian.PutUint16(c.ring[at+8:], uint16(len(key)))
	binary.LittleEndian.PutUint16(c.ring[at+10:], uint16(len(row)))
	copy(c.ring[at+cacheHeader:], key)
	copy(c.row(at), row)
	c.place(at)
}

func (c *rowCache) remove(hash uint64, key []byte) {
	if i, ok := c.find(hash, key); ok {
		c.removeAt(i)
	}
}

// room makes room for an entry at the head.
func (c *rowCache) room(size int) (at int) {
	for c.head+size > len(c.ring) && len(c.ring) < c.capacity {
		grown := make([]byte, min(c.capacity, max(cacheRingMin, 2*len(c.ring))))
		copy(grown, c.ring)
		c.ring = grown
	}
	if rest := len(c.ring) - c.at(c.head); rest < size {
		c.evict(c.head + rest)
		binary.LittleEndian.PutUint32(c.ring[c.at(c.head):], 0)
		c.head += rest
	}
	c.evict(c.head + size)
	at = c.at(c.head)
	c.head += size
	return at
}

// evict drops what is in the way of a head.
func (c *rowCache) evict(head int) {
	for head-c.tail > len(c.ring) {
		at := c.at(c.tail)
		if c.size(at) == 0 {
			c.tail += len(c.ring) - at
			continue
		}
		for i := c.home(at); c.places[i] != 0; i = c.after(i) {
			if c.offset(i) == at {
				c.removeAt(i)
				break
			}
		}
		c.tail += c.size(at)
	}
}

func (c *rowCache) find(hash uint64, key []byte) (place int, ok bool) {
	if len(c.places) == 0 {
		return 0, false
	}
	for i := int(uint32(hash)) & (len(c.places) - 1); c.places[i] != 0; i = c.after(i) {
		if at := c.offset(i); c.hash(at) == uint32(hash) && string(c.key(at)) == string(key) {
			return i, true
		}
	}
	return 0, false
}

// place adds the entry at an offset.
func (c *rowCache) place(at int) {
	if 4*(c.n+1) > 3*len(c.places) {
		old := c.places
		c.places, c.n = make([]uint32, max(cachePlacesMin, 2*len(old))), 0
		for _, p := range old {
			if p != 0 {
				c.place(int(p-1) * cacheAlign)
			}
		}
	}
	i := c.home(at)
	for c.places[i] != 0 {
		i = c.after(i)
	}
	c.places[i] = uint32(at/cacheAlign) + 1
	c.n++
}

// removeAt takes out what is at a place. Those behind it move up, so that no gap ends their search.
func (c *rowCache) removeAt(i int) {
	mask := len(c.places) - 1
	for j := c.after(i); c.places[j] != 0; j = c.after(j) {
		if home := c.home(c.offset(j)); (j-home)&mask >= (j-i)&mask {
			c.places[i] = c.places[j]
			i = j
		}
	}
	c.places[i] = 0
	c.n--
}

// old tells whether an entry lies in the older half of a full ring.
func (c *rowCache) old(at int) bool {
	return len(c.ring) == c.capacity && c.at(c.head-1-at) >= c.capacity/2
}

func (c *rowCache) at(position int) int { return position & (len(c.ring) - 1) }
func (c *rowCache) offset(i int) int    { return int(c.places[i]-1) * cacheAlign }
func (c *rowCache) home(at int) int     { return int(c.hash(at)) & (len(c.places) - 1) }
func (c *rowCache) after(i int) int     { return (i + 1) & (len(c.places) - 1) }

func (c *rowCache) size(at int) int    { return int(binary.LittleEndian.Uint32(c.ring[at:])) }
func (c *rowCache) hash(at int) uint32 { return binary.LittleEndian.Uint32(c.ring[at+4:]) }

func (c *rowCache) key(at int) []byte {
	return c.ring[at+cacheHeader:][:binary.LittleEndian.Uint16(c.ring[at+8:])]
}

func (c *rowCache) row(at int) []byte {
	from := at + cacheHeader + int(binary.LittleEndian.Uint16(c.ring[at+8:]))
	return c.ring[from:][:binary.LittleEndian.Uint16(c.ring[at+10:])]
}
