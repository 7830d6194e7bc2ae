package node

import "testing"

// A small heap has room to grow, a large one grows as Go's does, and no size leads to a heap without bound.
func TestHeapRoom(t *testing.T) {
	for live, want := range map[uint64]int{
		0: 1600, 1 << 20: 1600, heapGrowth / 4: 400, heapGrowth: 100, 8 * heapGrowth: 100,
	} {
		if got := collectAt(live); got != want {
			t.Errorf("%d bytes alive: %d %%, want %d", live, got, want)
		}
	}
}
