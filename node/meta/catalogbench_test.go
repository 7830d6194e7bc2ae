package meta

import (
	"fmt"
	"testing"

	"github.com/maestro-conductor/maestro/internal/pkgtest"
	"github.com/maestro-conductor/maestro/pkgstore"
	"github.com/maestro-conductor/maestro/pkgstore/mwpkg"
)

// BenchmarkListPackages lists pages of 50 among 10,000 packages, without Raft and network: every page in turn,
// and pages that search for words which every hundredth, or no, package has.
func BenchmarkListPackages(b *testing.B) {
	s := benchShop(b, 10_000)
	for _, c := range []struct{ name, text string }{{"pages", ""}, {"words", "rare"}, {"none", "nothing"}} {
		b.Run(c.name, func(b *testing.B) {
			after := ""
			b.ReportAllocs()
			for b.Loop() {
				_, next, err := s.List(b.Context(), pkgstore.Namespaces("acme"), pkgstore.Filter{Text: c.text}, after, 50)
				if err != nil {
					b.Fatal(err)
				}
				after = next
			}
		})
	}
}

// benchShop has so many packages, all of one archive.
func benchShop(b *testing.B, packages int) *shop {
	s := newShop(b)
	archive := pkgtest.Archive(b, pkgtest.Options{}, s.acme)
	opened, err := mwpkg.Open(archive)
	check(b, err)
	svc := s.region.service()
	sig := pkgstore.Signature{Key: s.acme.ID, Bytes: opened.Signatures[0].Value}
	for i := range packages {
		p := pkgstore.Package{
			Namespace: "acme", Name: fmt.Sprintf("acme/flow-%c%c%c%c", 'a'+i/1000%10, 'a'+i/100%10, 'a'+i/10%10, 'a'+i%10), Version: "1.0.0", Title: "A flow that does something",
			Description: "It restores a backup into a scratch database, compares checksums and drops it again.", Capabilities: []string{"commands:sh"},
			Digest: pkgstore.Digest{byte(i), byte(i >> 8), 1}, Signatures: []pkgstore.Signature{sig}, Archive: pkgstore.Digest{byte(i), byte(i >> 8), 2}, Size: 100,
		}
		if i%100 == 0 {
			p.Title = "A rare flow"
		}
		u := pkgstore.Upload{Namespace: "acme", Archive: p.Archive, Size: p.Size}
		at, err := svc.BeginUpload(b.Context(), u, 1<<40)
		check(b, err)
		_, err = svc.PutChunk(b.Context(), u, at.Generation, 0, make([]byte, 100))
		check(b, err)
		_, _, err = svc.Publish(b.Context(), p, at.Generation)
		check(b, err)
	}
	return s
}
