package segment

import (
	"container/list"
	"sync"

	"github.com/klauspost/compress/zstd"
)

// Cache keeps the blocks of segments that were read last, up to a number of bytes. It is safe
// for concurrent use; several segments share one.
type Cache struct {
	most int
	zstd *zstd.Decoder

	mu     sync.Mutex
	opened uint64 // segments so far: each has keys of its own, whatever documents it holds
	size   int
	blocks map[cacheKey]*list.Element
	order  *list.List // of *cached, the latest first
}

type cacheKey struct {
	segment uint64
	kind    byte
	n       uint32
}

type cached struct {
	key   cacheKey
	value any // a block as it is read, not as it is stored
	size  int
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
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.blocks[key]
	if !ok {
		return nil, false
	}
	c.order.MoveToFront(e)
	return e.Value.(*cached).value, true
}

// put keeps a value of so many bytes, which must not change afterwards.
func (c *Cache) put(key cacheKey, value any, size int) {
	size += cachedOverhead
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.blocks[key]; ok {
		return
	}
	c.blocks[key] = c.order.PushFront(&cached{key: key, value: value, size: size})
	c.size += size
	for c.size > c.most && c.order.Len() > 1 {
		old := c.order.Remove(c.order.Back()).(*cached)
		delete(c.blocks, old.key)
		c.size -= old.size
	}
}

// forget drops the blocks of a segment that is read no more.
func (c *Cache) forget(segment uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for e := c.order.Front(); e != nil; {
		next := e.Next()
		if old := e.Value.(*cached); old.key.segment == segment {
			c.order.Remove(e)
			delete(c.blocks, old.key)
			c.size -= old.size
		}
		e = next
	}
}
