package segment

import (
	"container/list"
	"sync"
	"sync/atomic"

	"github.com/klauspost/compress/zstd"
)

// Cache keeps blocks of segments that were read, up to a number of bytes: the oldest goes first, unless it was asked for
// since it came or was last spared. To find a block changes nothing but a mark on it, since a page asks for hundreds. It is safe
// for concurrent use; several segments share one.
type Cache struct {
	most int
	zstd *zstd.Decoder

	mu     sync.RWMutex
	opened uint64 // segments so far: each has keys of its own, whatever documents it holds
	size   int
	blocks map[cacheKey]*list.Element
	order  *list.List // of *cached, the oldest first
}

// cacheKey is a segment's block.
type cacheKey struct {
	segment uint64
	block   uint64 // its kind<<32, and number
}

func (s *Segment) cacheKey(kind byte, n uint32) cacheKey {
	return cacheKey{segment: s.key, block: uint64(kind)<<32 | uint64(n)}
}

type cached struct {
	key   cacheKey
	value any // a block as it is read, not as it is stored
	size  int
	asked atomic.Bool
}

// cachedOverhead is what an entry costs beside its value.
const cachedOverhead = 200

// NewCache holds at most the given number of bytes.
func NewCache(bytes int) *Cache {
	return &Cache{most: bytes, zstd: newDecoder(), blocks: map[cacheKey]*list.Element{}, order: list.New()}
}

// segment returns the name of a segment in the keys.
func (c *Cache) segment() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.opened++
	return c.opened
}

func (c *Cache) get(key cacheKey) (any, bool) {
	c.mu.RLock()
	e, ok := c.blocks[key]
	c.mu.RUnlock()
	if !ok {
		return nil, false
	}
	b := e.Value.(*cached)
	if !b.asked.Load() { // a store would take the line from other cores
		b.asked.Store(true)
	}
	return b.value, true
}

// put keeps a value of so many bytes, which must not change afterwards.
func (c *Cache) put(key cacheKey, value any, size int) {
	size += cachedOverhead
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.blocks[key]; ok {
		return
	}
	c.blocks[key] = c.order.PushBack(&cached{key: key, value: value, size: size})
	c.size += size
	for c.size > c.most && c.order.Len() > 1 {
		e := c.order.Front()
		if old := e.Value.(*cached); old.asked.Swap(false) {
			c.order.MoveToBack(e)
		} else {
			c.drop(e)
		}
	}
}

func (c *Cache) drop(e *list.Element) {
	old := c.order.Remove(e).(*cached)
	delete(c.blocks, old.key)
	c.size -= old.size
}

// forget drops the blocks of a segment that is read no more.
func (c *Cache) forget(segment uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for e := c.order.Front(); e != nil; {
		next := e.Next()
		if e.Value.(*cached).key.segment == segment {
			c.drop(e)
		}
		e = next
	}
}
