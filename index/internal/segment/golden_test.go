package segment

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// goldenCorpus is documents of which every kind of block and form of chunk comes, but for the rest, whose
// bytes are those of a library's version.
func goldenCorpus() corpus {
	c := corpus{base: 65_536}
	random := func(what string, n int) []byte {
		sum := sha256.Sum256(fmt.Appendf(nil, "%s %d", what, n))
		return sum[:]
	}
	for n := range 700 {
		var d sample
		d.Time = 1_700_000_000_000_000_000 + int64(n/3)*1_000_000
		d.ID, d.Tenant = fmt.Sprintf("%x", random("id", n)[:8]), fmt.Sprintf("tenant-%d", n%3)
		d.texts[0], d.texts[1], d.texts[2] = d.ID, d.Tenant, "receipt"
		d.texts[4] = fmt.Sprintf("run-%x", random("execution", n/4)[:6])
		if n%2 == 0 {
			d.texts[5] = fmt.Sprintf("task %d", n)
		}
		for k := range n % 3 {
			d.digests = append(d.digests, Digest{Value: fmt.Sprintf("%x:sha256", random("digest", n/2+k)), Direction: (n + k) % Directions})
		}
		d.attributes = []string{fmt.Sprintf("trace\x00%x", random("trace", n)[:16])}
		d.words = []string{"wall"}
		if d.HasCost = n%4 > 0; d.HasCost {
			d.Cost = int64(n % 50)
		}
		d.Stamped, d.Duration = n%11 == 0, uint32(n*7)
		c.docs = append(c.docs, d)
	}
	return c
}

// Segments of every version that was ever written are read, and written as they were.
func TestGoldenSegments(t *testing.T) {
	c := goldenCorpus()
	for version := byte(VersionTables); version <= Version; version++ {
		c.version = version
		path := filepath.Join("testdata", fmt.Sprintf("version-%d.segment", version))
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		s := open(t, want)
		check(t, s, c)
		if s.Version() != version || len(s.apart) > 0 != (version > VersionTables) {
			t.Errorf("%s is of version %d, and has %d groups of random texts", path, s.Version(), len(s.apart))
		}
		if got := build(t, c); !bytes.Equal(got, want) {
			t.Errorf("%s: other bytes are written now", path)
		}
	}
}
