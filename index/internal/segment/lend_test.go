package segment

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// lender lends bytes that are others afterwards.
type lender struct {
	*bytes.Reader
	b []byte
}

func (l lender) Checks() bool { return true }

func (l lender) Lend(at int64, n int, use func([]byte) error) error {
	b := slices.Clone(l.b[at : at+int64(n)])
	defer func() {
		for i := range b {
			b[i] ^= 0xFF
		}
	}()
	return use(b)
}

// What is read again, without a copy and a second check, is what was read first.
func TestSegmentIsReadAgain(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		c := genCorpus(rt, 1, rapid.SampledFrom([]int{20, 300, 2100}).Draw(rt, "most"))
		b := build(rt, c)
		s, err := Open(lender{bytes.NewReader(b), b}, int64(len(b)), NewCache(1))
		if err != nil {
			rt.Fatal(err)
		}
		for range 2 {
			check(rt, s, c)
			checkRanges(rt, s, c)
		}
		for kind, blocks := range s.file.blocks {
			for n := range blocks {
				if strings.ContainsRune("nort", rune(kind)) && s.file.known(kind, uint32(n)) == nil {
					rt.Fatalf("block %c%d was not read", kind, n)
				}
			}
		}
	})
}
