package pkgstore

import (
	"encoding/binary"
	"errors"
	"math"

	"github.com/maestro-conductor/maestro/internal/wire"
)

// The values of the catalog's records; docs/FORMAT.md has them in words. What a record itself carries
// (namespace, name, stamp) is in its key and its header.

const valueVersion = 1

var errValue = errors.New("pkgstore: malformed value of a record")

// Bounds of single fields, beside those of the catalog.
const (
	tenantBytesMax    = 63
	spkiBytesMax      = 128
	signatureBytesMax = 80
	principalBytesMax = 256
	wordBytesMax      = CapabilityBytesMax
)

// AppendValue is the package as the value of a record.
func (p *Package) AppendValue(b []byte) []byte {
	b = append(append(append(b, valueVersion), p.Digest[:]...), p.Archive[:]...)
	b = binary.AppendUvarint(b, p.Size)
	b = wire.AppendString(wire.AppendString(b, p.Title), p.Description)
	b = appendWords(b, p.Capabilities)
	b = binary.AppendUvarint(wire.AppendString(b, p.Publisher), uint64(p.Published))
	b = binary.AppendUvarint(b, uint64(len(p.Signatures)))
	for _, s := range p.Signatures {
		b = append(wire.AppendString(b, s.Namespace), s.Key[:]...)
		b = binary.AppendUvarint(wire.AppendString(b, s.Bytes), uint64(s.At))
	}
	b = append(b, byte(p.Yank.Kind))
	return binary.AppendUvarint(wire.AppendString(b, p.Yank.Reason), uint64(p.Yank.At))
}

// DecodeValue is the inverse of AppendValue.
func (p *Package) DecodeValue(b []byte) error {
	r := wire.NewReader(b)
	v := r.Byte(valueVersion)
	p.Digest, p.Archive = readDigest(r), readDigest(r)
	p.Size = r.Uvarint(ArchiveBytesMax)
	p.Title, p.Description = r.String(TextBytesMax), r.String(TextBytesMax)
	p.Capabilities = readWords(r, CapabilitiesMax, wordBytesMax)
	p.Publisher, p.Published = r.String(principalBytesMax), readTime(r)
	p.Signatures = nil
	for n := r.Count(SignaturesMax); n > 0 && !r.Failed(); n-- {
		p.Signatures = append(p.Signatures, Signature{
			Namespace: r.String(tenantBytesMax), Key: readDigest(r), Bytes: []byte(r.String(signatureBytesMax)), At: readTime(r),
		})
	}
	p.Yank = Yank{Kind: YankKind(r.Byte(byte(Blocked))), Reason: r.String(TextBytesMax), At: readTime(r)}
	return done(r, v)
}

// AppendValue is the install as the value of a record.
func (i *Install) AppendValue(b []byte) []byte {
	b = appendRef(append(b, valueVersion), i.Ref)
	b = binary.AppendUvarint(wire.AppendString(b, i.By), uint64(i.At))
	b = binary.AppendUvarint(b, uint64(len(i.History)))
	for _, h := range i.History {
		b = appendRef(b, h)
	}
	return b
}

// DecodeValue is the inverse of AppendValue.
func (i *Install) DecodeValue(b []byte) error {
	r := wire.NewReader(b)
	v := r.Byte(valueVersion)
	i.Ref = readRef(r)
	i.By, i.At = r.String(principalBytesMax), readTime(r)
	i.History = nil
	for n := r.Count(HistoryMax); n > 0 && !r.Failed(); n-- {
		i.History = append(i.History, readRef(r))
	}
	return done(r, v)
}

// AppendValue is the key as the value of a record.
func (k *Key) AppendValue(b []byte) []byte {
	b = wire.AppendString(append(b, valueVersion), k.SPKI)
	b = wire.AppendString(b, k.Publisher)
	for _, at := range [...]int64{k.NotBefore, k.NotAfter, k.Added} {
		b = binary.AppendUvarint(b, uint64(at))
	}
	b = append(wire.AppendString(b, k.Comment), byte(k.Revoked))
	return wire.AppendString(binary.AppendUvarint(b, uint64(k.RevokedAt)), k.Reason)
}

// DecodeValue is the inverse of AppendValue.
func (k *Key) DecodeValue(b []byte) error {
	r := wire.NewReader(b)
	v := r.Byte(valueVersion)
	k.SPKI = []byte(r.String(spkiBytesMax))
	k.Publisher = r.String(NameBytesMax)
	k.NotBefore, k.NotAfter, k.Added = readTime(r), readTime(r), readTime(r)
	k.Comment, k.Revoked = r.String(TextBytesMax), Revocation(r.Byte(byte(Compromised)))
	k.RevokedAt, k.Reason = readTime(r), r.String(TextBytesMax)
	return done(r, v)
}

func appendRef(b []byte, ref Ref) []byte {
	b = wire.AppendString(wire.AppendString(b, ref.Version), ref.Namespace)
	return append(b, ref.Digest[:]...)
}

func readRef(r *wire.Reader) Ref {
	return Ref{Version: r.String(VersionBytesMax), Namespace: r.String(tenantBytesMax), Digest: readDigest(r)}
}

func appendWords(b []byte, words []string) []byte {
	b = binary.AppendUvarint(b, uint64(len(words)))
	for _, w := range words {
		b = wire.AppendString(b, w)
	}
	return b
}

func readWords(r *wire.Reader, most, bytesMax int) (words []string) {
	for n := r.Count(most); n > 0 && !r.Failed(); n-- {
		words = append(words, r.String(bytesMax))
	}
	return words
}

func readDigest(r *wire.Reader) Digest { return Digest(r.Fixed(len(Digest{}))) }

func readTime(r *wire.Reader) int64 { return int64(r.Uvarint(math.MaxInt64)) }

func done(r *wire.Reader, version byte) error {
	if err := r.Done(); err != nil || version != valueVersion {
		return errValue
	}
	return nil
}
