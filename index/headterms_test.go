package index

import (
	"bytes"
	"fmt"
	"hash/maphash"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// A group of terms does what a map and a sort do, whatever the values: empty, equal in their first
// bytes, one the beginning of another, with zeros, and more of them than a piece holds.
func TestTermGroupIsAMap(t *testing.T) {
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 1))
		g := &termGroup{}
		want := map[string]uint32{}
		for range 1 + r.IntN(4000) {
			v := strings.Repeat("shared", r.IntN(3)) + strings.Repeat("\x00", r.IntN(3)) + fmt.Sprint(r.IntN(1+int(seed)*500)) + strings.Repeat("z", r.IntN(2)*r.IntN(200))
			if r.IntN(100) == 0 {
				v = ""
			}
			addTerm(g, []byte(v), uint32(len(want)))
			if _, ok := want[v]; !ok {
				want[v] = uint32(len(want))
			}
		}
		for v, posting := range want {
			if n, ok := g.find([]byte(v)); !ok || n != posting {
				t.Fatalf("seed %d: %q is %d, %v, want %d", seed, v, n, ok, posting)
			}
		}
		if _, ok := g.find([]byte("missing")); ok {
			t.Fatalf("seed %d: a value that was not added is found", seed)
		}
		got := g.sorted()
		if len(got) != len(want) {
			t.Fatalf("seed %d: %d values, want %d", seed, len(got), len(want))
		}
		for i := range got {
			v := g.value(&got[i])
			if want[string(v)] != got[i].posting || i > 0 && bytes.Compare(g.value(&got[i-1]), v) >= 0 {
				t.Fatalf("seed %d: value %d is %q, out of order or of another posting", seed, i, v)
			}
		}
		for _, prefix := range []string{"", "s", "sharedsh", "sharedshared1", "\x00", "7"} {
			var found, all []string
			g.prefixed(prefix, func(v string) bool { found = append(found, v); return true })
			for v := range want {
				if strings.HasPrefix(v, prefix) {
					all = append(all, v)
				}
			}
			slices.Sort(found)
			slices.Sort(all)
			if !slices.Equal(found, all) {
				t.Fatalf("seed %d: prefix %q finds %d values, want %d", seed, prefix, len(found), len(all))
			}
		}
	}
}

// addTerm adds a value unless it is there.
func addTerm(g *termGroup, value []byte, posting uint32) {
	hash := maphash.Bytes(headSeed, value)
	if n, slot := g.probe(value, hash); n == 0 {
		g.insert(value, hash, slot, posting)
	}
}

// Lists grow beside each other, move, and are used again without mixing.
func TestListsKeepTheirDocuments(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var l lists
	type list struct {
		ref  uint32
		want []uint16
	}
	var all []list
	for n := range 60_000 {
		local := uint16(n)
		if len(all) == 0 || r.IntN(20) == 0 {
			all = append(all, list{l.begin(local, local+1), []uint16{local, local + 1}})
			continue
		}
		i := r.IntN(len(all))
		x := &all[i]
		if len(x.want) == listMax {
			l.drop(x.ref, len(x.want))
			all[i] = all[len(all)-1]
			all = all[:len(all)-1]
			continue
		}
		x.ref = l.add(x.ref, len(x.want), local)
		x.want = append(x.want, local)
	}
	for _, x := range all {
		if got := l.of(x.ref, len(x.want)); !slices.Equal(got, x.want) {
			t.Fatalf("a list is %v, want %v", got, x.want)
		}
	}
}
