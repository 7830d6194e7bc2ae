package segment

import (
	"container/list"
	"sync"
)

// Cache keeps the parts of segments that were read last, up to a number of bytes. It is safe
// for concurrent use; several segments share one.
type Cache struct {
	most int

	mu    sync.Mutex
	size  int
	parts map[cacheKey]*list.Element
	order *list.List // of *cached, the latest first
}

type cacheKey struct {
	base uint64
	kind byte
	n    uint32
}

type cached struct {
	key   cacheKey
	value []byte
}

// cachedOverhead is what an entry costs beside its value.
const cachedOverhead = 160

// NewCache holds at most the given number of bytes.
func NewCache(bytes int) *Cache {
	return &Cache{most: bytes, parts: map[cacheKey]*list.Element{}, order: list.New()}
}

func (c *Cache) get(key cacheKey) ([]byte, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.parts[key]
	if !ok {
		return nil, false
	}
	c.order.MoveToFront(e)
	return e.Value.(*cached).value, true
}

// put keeps a value, which must not change afterwards.
func (c *Cache) put(key cacheKey, value []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.parts[key]; ok {
		return
	}
	c.parts[key] = c.order.PushFront(&cached{key: key, value: value})
	c.size += len(value) + cachedOverhead
	for c.size > c.most && c.order.Len() > 1 {
		oldest := c.order.Back()
		old := c.order.Remove(oldest).(*cached)
		delete(c.parts, old.key)
		c.size -= len(old.value) + cachedOverhead
	}
}
