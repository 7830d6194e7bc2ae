package meta

import (
	"bytes"
	"crypto/sha256"
	"testing"

	"github.com/maestro-conductor/maestro/internal/pkgtest"
	"github.com/maestro-conductor/maestro/pkgstore"
	"github.com/maestro-conductor/maestro/pkgstore/mwpkg"
)

// poison uploads other bytes under the SHA-256 of an archive: its first chunks, as many as are said.
func (s *shop) poison(namespace string, archive []byte, chunks uint32) {
	s.t.Helper()
	u := pkgstore.Upload{Namespace: namespace, Archive: sha256.Sum256(archive), Size: uint64(len(archive))}
	at, err := s.BeginUpload(s.t.Context(), u)
	check(s.t, err)
	for i := range chunks {
		size := min(pkgstore.ChunkBytes, len(archive)-int(i)*pkgstore.ChunkBytes)
		_, err = s.PutChunk(s.t.Context(), u, at.Generation, i, bytes.Repeat([]byte{0xEE}, size))
		check(s.t, err)
	}
}

func (s *shop) wantContent(p *pkgstore.Package, archive []byte) {
	s.t.Helper()
	got, err := s.Content(s.t.Context(), p, 0, len(archive))
	if err != nil || !bytes.Equal(got, archive) {
		s.t.Errorf("the catalog has %d other bytes of %s, %v", len(got), p.ID(), err)
	}
}

// What somebody uploaded under the SHA-256 of another's archive, whole or in part, never becomes a package.
func TestForeignChunksAreNotPublished(t *testing.T) {
	for name, chunks := range map[string]uint32{"all": 3, "some": 1} {
		t.Run(name, func(t *testing.T) {
			s := newShop(t)
			archive := pkgtest.Archive(t, pkgtest.Options{Bytes: 600 << 10}, s.acme)
			s.poison("acme", archive, chunks)
			p, what, err := s.Publish(t.Context(), "acme", "victim", archive)
			if err != nil || what != pkgstore.PublishedNew {
				t.Fatalf("publish: %v, %v", what, err)
			}
			s.wantContent(&p, archive)
			s.mustInstall("acme", named("acme/flow@0.1.0"))
		})
	}
}

// Nor does a signature put such bytes in the place of the good ones.
func TestForeignChunksAreNotSigned(t *testing.T) {
	s := newShop(t)
	second := pkgtest.NewKey(t)
	s.trust("acme", second, "*")
	good := pkgtest.New(t, pkgtest.Options{}, s.acme)
	plain, err := good.Bytes()
	check(t, err)
	_, _, err = s.Publish(t.Context(), "acme", "token-1", plain)
	check(t, err)
	s.mustInstall("acme", named("acme/flow@0.1.0"))
	sig, err := mwpkg.SignSums(good.Sums(), second.Signer)
	check(t, err)
	signed, err := good.WithSignature(sig)
	check(t, err)
	archive, err := signed.Bytes()
	check(t, err)
	s.poison("acme", archive, 1)
	p, what, err := s.Sign(t.Context(), []string{"acme"}, named("acme/flow@0.1.0"), sig)
	if err != nil || what != pkgstore.PublishedSignature {
		t.Fatalf("sign: %v, %v", what, err)
	}
	s.wantContent(&p, archive)
	check(t, s.load("acme", "acme/flow"))
}

// Who publishes a version again whose archive is damaged puts it right.
func TestPublishingAgainRepairs(t *testing.T) {
	s := newShop(t)
	archive := pkgtest.Archive(t, pkgtest.Options{Bytes: 600 << 10}, s.acme)
	p, _, err := s.Publish(t.Context(), "acme", "token-1", archive)
	check(t, err)
	s.mustInstall("acme", named("acme/flow@0.1.0"))
	s.region.meta.Overwrite(chunkKey(blobIDOf("acme", p.Archive), 1), make([]byte, pkgstore.ChunkBytes))
	wantError(t, "load", s.load("acme", "acme/flow"), pkgstore.ErrContent)
	_, what, err := s.Publish(t.Context(), "acme", "token-1", archive)
	if err != nil || what != pkgstore.PublishedBefore {
		t.Fatalf("publish again: %v, %v", what, err)
	}
	s.wantContent(&p, archive)
	check(t, s.load("acme", "acme/flow"))
}
