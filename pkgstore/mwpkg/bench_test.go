package mwpkg

import (
	"encoding/hex"
	"math/rand/v2"
	"testing"
)

// BenchmarkVerify1MiB opens a signed package of 1 MiB, half of it text that shrinks and half noise, and verifies it.
func BenchmarkVerify1MiB(b *testing.B) {
	files := goodFiles()
	raw := make([]byte, 512<<10)
	if _, err := rand.NewChaCha8([32]byte{}).Read(raw); err != nil {
		b.Fatal(err)
	}
	files["noise.bin"] = string(raw)
	files["text.txt"] = hex.EncodeToString(raw[:512<<10])
	by := newTester(b)
	data := archive(b, sign(b, build(b, files), by))
	trust := &Trust{[]Key{by.key}}
	b.ReportAllocs()
	for b.Loop() {
		p, err := Open(data)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := p.Verify(trust, today); err != nil {
			b.Fatal(err)
		}
	}
}
