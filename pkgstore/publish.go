package pkgstore

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"strings"
	"unicode/utf8"

	"github.com/maestro-conductor/maestro/pkgstore/mwpkg"
	"github.com/maestro-conductor/maestro/raftfsm"
)

// Publish takes a package as one archive: it is verified, stored chunk by chunk, and appears with the last
// command. Repeated after a failure it goes on where it was.
func (s *Service) Publish(ctx context.Context, namespace, by string, archive []byte) (Package, Published, error) {
	u := Upload{Namespace: namespace, Archive: sha256.Sum256(archive), Size: uint64(len(archive))}
	p, err := s.admit(ctx, u, by, archive)
	if err != nil {
		return Package{}, 0, err
	}
	return s.storeArchive(ctx, u, p, archive)
}

// storeArchive stores an archive that was verified, and publishes the package. What is there of it may be
// somebody else's, who only said that it has this SHA-256: it is compared, and what differs is put right. That
// goes for a published archive that is damaged, too.
func (s *Service) storeArchive(ctx context.Context, u Upload, p Package, archive []byte) (Package, Published, error) {
	at, err := s.BeginUpload(ctx, u)
	if err != nil {
		return Package{}, 0, err
	}
	wrong, err := s.wrongChunks(ctx, u, at, archive)
	if err != nil {
		return Package{}, 0, err
	}
	if err := s.send(ctx, u, at, archive, wrong); err != nil {
		return Package{}, 0, err
	}
	return s.finish(ctx, u, at, p)
}

// wrongChunks are the chunks that are missing, or are not those of the archive, in order.
func (s *Service) wrongChunks(ctx context.Context, u Upload, at Progress, archive []byte) (wrong []uint32, err error) {
	for i := range u.Chunks() {
		if i < at.Next {
			stored, err := s.store.UploadedChunk(ctx, u, i)
			if err != nil {
				return nil, err
			}
			if bytes.Equal(stored, chunkOf(archive, i)) {
				continue
			}
		}
		wrong = append(wrong, i)
	}
	return wrong, nil
}

func chunkOf(archive []byte, i uint32) []byte {
	rest := archive[int(i)*ChunkBytes:]
	return rest[:min(len(rest), ChunkBytes)]
}

// send stores chunks in the place of what is there, at the pace of ingest. Nobody can put others in their place
// within this generation of the upload, and only this one is published.
func (s *Service) send(ctx context.Context, u Upload, at Progress, archive []byte, chunks []uint32) error {
	left := 0
	for _, i := range chunks {
		left += len(chunkOf(archive, i))
	}
	if left == 0 {
		return nil
	}
	if err := s.enter(left); err != nil {
		return err
	}
	defer func() { s.pacer.Leave(left) }()
	for _, i := range chunks {
		chunk := chunkOf(archive, i)
		if err := s.pacer.Wait(ctx, len(chunk)); err != nil {
			return err
		}
		left -= len(chunk)
		if _, err := s.store.MendChunk(ctx, u, at.Generation, i, chunk); err != nil {
			return err
		}
	}
	return nil
}

// enter asks the pacer for room.
func (s *Service) enter(bytes int) error {
	if err := s.pacer.Enter(bytes); err != nil {
		return &raftfsm.Error{Op: "upload", Group: "meta", Outcome: raftfsm.OutcomeDefinite, Err: errors.Join(raftfsm.ErrOverloaded, err)}
	}
	return nil
}

// finish publishes an archive that is there. One that is not taken is forgotten, so that it takes no room
// until it expires.
func (s *Service) finish(ctx context.Context, u Upload, at Progress, p Package) (Package, Published, error) {
	stored, what, err := s.store.Publish(ctx, p, at.Generation)
	if err != nil && refused(err) || err == nil && stored.Archive != u.Archive {
		s.forget(ctx, u, at)
	}
	s.metrics.published(what, err)
	return stored, what, err
}

// forget drops an upload. One that cannot be dropped expires.
func (s *Service) forget(ctx context.Context, u Upload, at Progress) {
	_ = s.store.DropUpload(ctx, u, at.Generation)
}

// BeginUpload begins to store an archive chunk by chunk, or finds how far it has come.
func (s *Service) BeginUpload(ctx context.Context, u Upload) (Progress, error) {
	if u.Size == 0 || u.Size > ArchiveBytesMax {
		return Progress{}, refuse(ErrField, "an archive has 1 to %d bytes, not %d", ArchiveBytesMax, u.Size)
	}
	return s.store.BeginUpload(ctx, u, s.bytesMax)
}

// PutChunk stores the next chunk of an upload, at the pace of ingest.
func (s *Service) PutChunk(ctx context.Context, u Upload, generation uint64, chunk uint32, data []byte) (Progress, error) {
	if err := s.enter(len(data)); err != nil {
		return Progress{}, err
	}
	if err := s.pacer.Wait(ctx, len(data)); err != nil {
		s.pacer.Leave(len(data))
		return Progress{}, err
	}
	return s.store.PutChunk(ctx, u, generation, chunk, data)
}

// PublishUpload publishes what was uploaded. What is no package, or is not signed as it must be, is refused and
// forgotten.
func (s *Service) PublishUpload(ctx context.Context, u Upload, by string) (Package, Published, error) {
	at, err := s.BeginUpload(ctx, u)
	if err != nil {
		return Package{}, 0, err
	}
	if at.Next != u.Chunks() {
		return Package{}, 0, refuse(ErrUpload, "%d of %d chunks have arrived; send the others first", at.Next, u.Chunks())
	}
	archive, release, err := s.archive(ctx, u, s.store.UploadedChunk)
	if err != nil {
		return Package{}, 0, err
	}
	defer release()
	if sha256.Sum256(archive) != u.Archive {
		s.forget(ctx, u, at)
		return Package{}, 0, refuse(ErrUpload, "the bytes that arrived have another SHA-256 than was announced; upload them again")
	}
	p, err := s.admit(ctx, u, by, archive)
	if err != nil {
		if refused(err) {
			s.forget(ctx, u, at)
		}
		return Package{}, 0, err
	}
	return s.finish(ctx, u, at, p)
}

// admit verifies bytes that somebody wants to publish, leaves a receipt, and returns the package that they
// are, with the signatures that count now.
func (s *Service) admit(ctx context.Context, u Upload, by string, archive []byte) (Package, error) {
	began := s.clock()
	p := Package{Namespace: u.Namespace, Archive: u.Archive, Size: u.Size, Publisher: by}
	err := s.admitted(ctx, &p, archive)
	s.note(StagePublish, began)
	if err != nil && !refused(err) {
		return Package{}, err
	}
	r := Receipt{Stage: StagePublish, Tenant: u.Namespace, Digest: p.Digest, Archive: u.Archive, By: by}
	if p.Name != "" {
		r.Package = p.ID()
	}
	if len(p.Signatures) > 0 {
		r.Key = p.Signatures[0].Key
	}
	s.record(r, err)
	if err != nil {
		s.metrics.published(0, err)
	}
	return p, err
}

func (s *Service) admitted(ctx context.Context, p *Package, archive []byte) error {
	opened, err := mwpkg.Open(archive)
	if err != nil {
		return err
	}
	m := opened.Manifest.Metadata
	p.Name, p.Version, p.Digest = m.Name, m.Version, opened.Digest
	p.Title, p.Description = cut(m.Title), cut(m.Description)
	p.Capabilities = CapabilitiesOf(opened.Manifest)
	p.Capabilities = p.Capabilities[:min(len(p.Capabilities), CapabilitiesMax)]
	keys, err := s.store.Keys(ctx, namespacesOf(p.Namespace))
	if err != nil {
		return err
	}
	var last error = &mwpkg.Error{Code: mwpkg.CodeSignatureMissing, Subject: p.ID(), Detail: "nobody has signed it", Hint: "sign it with: maestro pkg sign"}
	for _, sig := range opened.Signatures {
		if last = s.counts(keys, p, opened.Sums(), sig); last == nil {
			p.Signatures = append(p.Signatures, Signature{Key: sig.KeyID, Bytes: sig.Value})
		}
	}
	if len(p.Signatures) > 0 {
		return nil
	}
	return last
}

// counts says whether a signature counts if it is seen now.
func (s *Service) counts(keys Keys, p *Package, sums []byte, sig mwpkg.Signature) error {
	now := s.clock().UnixNano()
	key, err := keys.Judge(p.Namespace, p.Name, sig.KeyID, now)
	if err != nil {
		return err
	}
	return key.check(p.Name, sums, sig, now)
}

// Sign adds a signature to a package: content and digest stay, the archive gets it too.
func (s *Service) Sign(ctx context.Context, namespaces []string, id ID, sig mwpkg.Signature) (Package, Published, error) {
	p, _, err := s.store.Resolve(ctx, namespaces, id)
	if err != nil {
		return Package{}, 0, err
	}
	keys, err := s.store.Keys(ctx, namespacesOf(p.Namespace))
	if err != nil {
		return Package{}, 0, err
	}
	opened, err := s.open(ctx, &p)
	if err != nil {
		return Package{}, 0, err
	}
	if err := s.counts(keys, &p, opened.Sums(), sig); err != nil {
		return Package{}, 0, err
	}
	signed, err := opened.WithSignature(sig)
	if err != nil {
		return Package{}, 0, err
	}
	archive, err := signed.Bytes()
	if err != nil {
		return Package{}, 0, err
	}
	next := p
	next.Archive, next.Size = sha256.Sum256(archive), uint64(len(archive))
	next.Signatures = []Signature{{Key: sig.KeyID, Bytes: sig.Value}}
	return s.storeArchive(ctx, next.upload(), next, archive)
}

// Sums are the bytes that signatures of a package sign.
func (s *Service) Sums(ctx context.Context, p *Package) ([]byte, error) {
	opened, err := s.open(ctx, p)
	if err != nil {
		return nil, err
	}
	return opened.Sums(), nil
}

// CapabilitiesOf are what a manifest declares, as words: network:HOST:PORT, secrets:NAME, commands:NAME.
func CapabilitiesOf(m *mwpkg.Manifest) []string {
	var out []string
	add := func(kind string, names []string) {
		for _, n := range names {
			if w := kind + ":" + n; len(w) <= CapabilityBytesMax {
				out = append(out, w)
			} else {
				out = append(out, w[:CapabilityBytesMax])
			}
		}
	}
	used := m.Used()
	add("network", used.Network.Egress)
	add("secrets", used.Secrets)
	add("commands", used.Commands)
	return out
}

// cut shortens a text to what is kept, at a character.
func cut(s string) string {
	if len(s) <= TextBytesMax {
		return s
	}
	end := TextBytesMax
	for end > 0 && !utf8.RuneStart(s[end]) {
		end--
	}
	return strings.TrimSpace(s[:end])
}
