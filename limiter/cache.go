package limiter

// counterCache keeps recently used counters by row key. It holds exactly what the rows hold,
// so that dropping an entry never changes an answer. Eviction is CLOCK: a hand goes round
// the slots and takes the first one not used since it last came by.
type counterCache struct {
	capacity int
	at       map[string]int
	slots    []cacheSlot
	hand     int
}

type cacheSlot struct {
	key     string // empty when the slot is free
	counter counter
	used    bool
}

func newCounterCache(capacity int) *counterCache {
	return &counterCache{capacity: capacity, at: map[string]int{}}
}

func (c *counterCache) get(key []byte) (counter, bool) {
	i, ok := c.at[string(key)]
	if !ok {
		return counter{}, false
	}
	c.slots[i].used = true
	return c.slots[i].counter, true
}

func (c *counterCache) put(key []byte, v counter) {
	if i, ok := c.at[string(key)]; ok {
		c.slots[i].counter, c.slots[i].used = v, true
		return
	}
	i := c.free()
	k := string(key)
	c.slots[i] = cacheSlot{key: k, counter: v}
	c.at[k] = i
}

func (c *counterCache) remove(key []byte) {
	if i, ok := c.at[string(key)]; ok {
		delete(c.at, c.slots[i].key)
		c.slots[i] = cacheSlot{}
	}
}

// free makes room and returns the slot.
func (c *counterCache) free() int {
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
