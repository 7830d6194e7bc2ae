package limiter

// bucketCache keeps recently used buckets by row key. It holds exactly what the rows hold,
// so that dropping an entry never changes an answer. Eviction is CLOCK: a hand goes round
// the slots and takes the first one not used since it last came by.
type bucketCache struct {
	capacity int
	at       map[string]int
	slots    []cacheSlot
	hand     int
}

type cacheSlot struct {
	key    string // empty when the slot is free
	bucket bucket
	used   bool
}

func newBucketCache(capacity int) *bucketCache {
	return &bucketCache{capacity: capacity, at: map[string]int{}}
}

func (c *bucketCache) get(key []byte) (bucket, bool) {
	i, ok := c.at[string(key)]
	if !ok {
		return bucket{}, false
	}
	c.slots[i].used = true
	return c.slots[i].bucket, true
}

func (c *bucketCache) put(key []byte, b bucket) {
	if i, ok := c.at[string(key)]; ok {
		c.slots[i].bucket, c.slots[i].used = b, true
		return
	}
	i := c.free()
	k := string(key)
	c.slots[i] = cacheSlot{key: k, bucket: b}
	c.at[k] = i
}

func (c *bucketCache) remove(key []byte) {
	if i, ok := c.at[string(key)]; ok {
		delete(c.at, c.slots[i].key)
		c.slots[i] = cacheSlot{}
	}
}

// free makes room and returns the slot.
func (c *bucketCache) free() int {
	if len(c.slots) < c.capacity {
		c.slots = append(c.slots, cacheSlot{})
		return len(c.slots) - 1
	}
	for {
		i := c.hand
		c.hand = (c.hand + 1) % len(c.slots)
		if c.slots[i].used {
			c.slots[i].used = false
			continue
		}
		delete(c.at, c.slots[i].key)
		return i
	}
}
