package index

import (
	"bytes"
	"testing"

	"pgregory.net/rapid"
)

// Rows are there as they were added, in copies of the arena too, whatever is added later.
func TestRowArenaHoldsRows(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		var a rowArena
		var want [][]byte
		var copies []rowArena
		for n := range rapid.IntRange(1, 40).Draw(rt, "rows") {
			size := rapid.SampledFrom([]int{0, 1, 200, arenaBytes / 3, arenaBytes, 2 * arenaBytes}).Draw(rt, "size")
			want = append(want, bytes.Repeat([]byte{byte(n)}, size))
			a.add(want[n])
			copies = append(copies, a)
		}
		for c := range copies {
			for n := range c + 1 {
				if got := copies[c].row(uint32(n)); !bytes.Equal(got, want[n]) {
					rt.Fatalf("row %d of %d has %d bytes, want %d", n, c+1, len(got), len(want[n]))
				}
			}
		}
	})
}
