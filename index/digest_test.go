package index

import (
	"bufio"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"os"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// testdata/digests.txt lists spellings and what they are read as.
func TestParseDigestSpellings(t *testing.T) {
	file, err := os.Open("testdata/digests.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	cases := 0
	for line := 1; lines.Scan(); line++ {
		text := lines.Text()
		if text == "" || strings.HasPrefix(text, "#") {
			continue
		}
		cases++
		in, want, _ := strings.Cut(text, " => ")
		algorithm, value, err := ParseDigest(in)
		got := FormatDigest(algorithm, value)
		if err != nil {
			got = "error: " + err.Error()
			var refused *DocumentError
			if !errors.As(err, &refused) || refused.Reason != ReasonDigestMalformed {
				t.Errorf("digests.txt:%d: error %#v is no digest_malformed", line, err)
			}
		}
		if got != want {
			t.Errorf("digests.txt:%d: %s\n got %s\nwant %s", line, in, got, want)
		}
	}
	if cases < 30 {
		t.Errorf("read only %d cases", cases)
	}
}

// Every spelling of the same bytes is the same digest.
func TestParseDigestSpellingsAreEqual(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		known := rapid.SampledFrom(digestAlgorithms).Draw(t, "algorithm")
		size := rapid.SampledFrom(known.sizes).Draw(t, "size")
		raw := rapid.SliceOfN(rapid.Byte(), size, size).Draw(t, "bytes")
		want := FormatDigest(known.name, hex.EncodeToString(raw))
		for _, spelling := range []string{
			want,
			strings.ToUpper(want),
			known.name + ":" + base64.StdEncoding.EncodeToString(raw),
			known.name + ":" + base64.RawStdEncoding.EncodeToString(raw),
			known.name + ":" + base64.URLEncoding.EncodeToString(raw),
			known.name + ":" + base64.RawURLEncoding.EncodeToString(raw),
			strings.ReplaceAll(known.name, "-", "_") + ":" + hex.EncodeToString(raw),
		} {
			algorithm, value, err := ParseDigest(spelling)
			if err != nil || FormatDigest(algorithm, value) != want {
				t.Fatalf("%s is read as %s:%s, %v; want %s", spelling, algorithm, value, err, want)
			}
		}
	})
}

func FuzzParseDigest(f *testing.F) {
	data, err := os.ReadFile("testdata/digests.txt")
	if err != nil {
		f.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		in, _, _ := strings.Cut(line, " => ")
		f.Add(in)
	}
	f.Fuzz(func(t *testing.T, s string) {
		algorithm, value, err := ParseDigest(s)
		if err != nil {
			return
		}
		if algorithm != strings.ToLower(algorithm) || !isLowerHex(value) {
			t.Fatalf("%q is read as %s:%s, which is not canonical", s, algorithm, value)
		}
		again, same, err := ParseDigest(FormatDigest(algorithm, value))
		if err != nil || again != algorithm || same != value {
			t.Fatalf("%s:%s is read back as %s:%s, %v", algorithm, value, again, same, err)
		}
	})
}
