package limiter

import (
	"bytes"
	"fmt"
	"hash/maphash"
	"testing"

	"pgregory.net/rapid"
)

// Whatever is stored, the cache answers with what was stored last or not at all, within its memory; and
// what was stored last of all is there.
func TestCacheAnswersWithTheLatest(t *testing.T) {
	seed := maphash.MakeSeed()
	rapid.Check(t, func(rt *rapid.T) {
		c := newRowCache(rapid.SampledFrom([]int{1, 8, 300}).Draw(rt, "counters"))
		latest := map[string][]byte{}
		names := rapid.IntRange(1, 400).Draw(rt, "names")
		// Few of the hashes are different, so that entries are in each other's way.
		few := rapid.Bool().Draw(rt, "few hashes")
		hash := func(key []byte) uint64 {
			if few {
				return uint64(key[len(key)-1] % 4)
			}
			return maphash.Bytes(seed, key)
		}
		step := func(key []byte, length int, fill byte) {
			if length == 0 {
				c.remove(hash(key), key)
				delete(latest, string(key))
			} else {
				row := bytes.Repeat([]byte{fill}, length)
				c.put(hash(key), key, row)
				latest[string(key)] = row
				got, old, ok := c.get(hash(key), key)
				if fits := 2*(cacheHeader+len(key)+length+cacheAlign) <= c.capacity; fits && !ok || ok && (!bytes.Equal(got, row) || old) {
					rt.Fatalf("%s has %q, old %v, there %v; want %q", key, got, old, ok, row)
				}
			}
		}
		for range rapid.IntRange(0, 100).Draw(rt, "steps") {
			n, length, fill := rapid.IntRange(0, names-1).Draw(rt, "name"), rapid.IntRange(0, 60).Draw(rt, "bytes"), rapid.Byte().Draw(rt, "fill")
			for i := range rapid.SampledFrom([]int{1, 1, 1, 100}).Draw(rt, "times") {
				step(fmt.Append(nil, "key-", (n+i)%names), length, fill)
			}
			if len(c.ring) > c.capacity || c.n > len(latest) {
				rt.Fatalf("%d counters in %d bytes, want at most %d in %d", c.n, len(c.ring), len(latest), c.capacity)
			}
		}
		there := 0
		for key, row := range latest {
			got, _, ok := c.get(hash([]byte(key)), []byte(key))
			if ok && !bytes.Equal(got, row) {
				rt.Fatalf("%s has %q, want %q", key, got, row)
			}
			if ok {
				there++
			}
		}
		if there != c.n {
			rt.Fatalf("%d of %d counters are found", there, c.n)
		}
	})
}

// What is put anew whenever it is found old stays, however many others come and go.
func TestCacheKeepsWhatIsUsed(t *testing.T) {
	c := newRowCache(100)
	row := make([]byte, 50)
	used := []byte("used")
	c.put(7, used, row)
	for i := range 10_000 {
		c.put(uint64(i), fmt.Append(nil, "other-", i), row)
		_, old, ok := c.get(7, used)
		if !ok {
			t.Fatalf("dropped after %d others", i)
		}
		if old {
			c.put(7, used, row)
		}
	}
}
