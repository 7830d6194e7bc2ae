package limiter

// refTable is a hash table of pointers with linear probing: eight bytes a place, where a map of Go
// needs six times as much. What is in it tells its hash; who looks something up compares.
type refTable[T any] struct {
	hash  func(*T) uint64
	slots []*T // a power of two, at most three quarters used
	n     int
}

const refTableMin = 8

// insert adds what is not there.
func (t *refTable[T]) insert(x *T) {
	if 4*(t.n+1) > 3*len(t.slots) {
		t.resize(max(refTableMin, 2*len(t.slots)))
	}
	t.n++
	t.place(x)
}

func (t *refTable[T]) place(x *T) {
	i := t.home(x)
	for t.slots[i] != nil {
		i = t.after(i)
	}
	t.slots[i] = x
}

func (t *refTable[T]) home(x *T) int     { return int(uint32(t.hash(x))) & (len(t.slots) - 1) }
func (t *refTable[T]) after(i int) int   { return (i + 1) & (len(t.slots) - 1) }
func (t *refTable[T]) from(a, b int) int { return (b - a) & (len(t.slots) - 1) }

func (t *refTable[T]) resize(size int) {
	old := t.slots
	t.slots = make([]*T, size)
	for _, x := range old {
		if x != nil {
			t.place(x)
		}
	}
}

// remove takes out what is there. Those behind it move up, so that no gap ends their search.
func (t *refTable[T]) remove(x *T) {
	i := t.home(x)
	for t.slots[i] != x {
		i = t.after(i)
	}
	for j := t.after(i); t.slots[j] != nil; j = t.after(j) {
		if home := t.home(t.slots[j]); t.from(home, j) >= t.from(i, j) {
			t.slots[i] = t.slots[j]
			i = j
		}
	}
	t.slots[i] = nil
	t.n--
}

// shrink gives memory back when little of it is used. Not called by remove, so that a walk over
// slots may remove.
func (t *refTable[T]) shrink() {
	switch {
	case t.n == 0:
		t.slots = nil
	case len(t.slots) > refTableMin && 8*t.n < len(t.slots):
		t.resize(len(t.slots) / 4)
	}
}
