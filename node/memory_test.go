package node

import (
	"strings"
	"testing"
)

// Whatever the budget, its parts are together not more than it, and each is of use.
func TestMemoryIsCutFromOneBudget(t *testing.T) {
	for _, budget := range []uint64{memoryLeast, 768 << 20, 64 << 30} {
		s := MemoryConfig{BudgetBytes: budget}.shares()
		if sum := s.blocks + 2*int64(s.memtable) + s.heap; sum > int64(budget) || s.heap < int64(budget)/2 || s.segments > s.heap/2 {
			t.Errorf("of %d bytes: %+v", budget, s)
		}
		if s.blocks < 16<<20 || s.memtable < 4<<20 || s.segments < 32<<20 {
			t.Errorf("of %d bytes parts are too small to be of use: %+v", budget, s)
		}
	}
}

// The budget has a default, and a least that is named.
func TestMemorySetting(t *testing.T) {
	if c, problems := parseConfig([]byte(goodConfig), "/", Overrides{}); len(problems) > 0 || c.Memory.BudgetBytes != 768<<20 {
		t.Errorf("default %+v, problems %q", c.Memory, problems)
	}
	if _, problems := parseConfig([]byte(goodConfig+"memory: {budget_bytes: 1000}\n"), "/", Overrides{}); len(problems) != 1 || !strings.Contains(problems[0], "256 MiB") {
		t.Errorf("a thousand bytes: %q", problems)
	}
}

// A small heap has room to grow, a large one grows as Go's does, and no size leads to a heap without bound.
func TestHeapRoom(t *testing.T) {
	for live, want := range map[int64]int{
		0: 1600, 1 << 20: 1600, heapGrowth / 4: 400, heapGrowth: 100, 8 * heapGrowth: 100,
	} {
		if got := collectAt(live); got != want {
			t.Errorf("%d bytes alive: %d %%, want %d", live, got, want)
		}
	}
}
