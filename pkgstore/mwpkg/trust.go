package mwpkg

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"time"

	"github.com/sigstore/sigstore/pkg/signature"
)

// AnyPublisher as a key's publisher lets it sign every package.
const AnyPublisher = "*"

// RevocationKind says what a revocation means for what the key has signed.
type RevocationKind string

// Kinds of revocation.
const (
	// Superseded: the key was replaced. Signatures that were there before the revocation stay valid.
	Superseded RevocationKind = "superseded"
	// Compromised: the key is in wrong hands. No signature of it is valid, whenever it was made.
	Compromised RevocationKind = "compromised"
)

// Revocation ends the trust in a key. It is final.
type Revocation struct {
	Kind RevocationKind
	// At is when the server that keeps the keys took the revocation.
	At time.Time
}

// Key is a public key that signs packages.
type Key struct {
	// ID is the SHA-256 of the key's SubjectPublicKeyInfo (DER).
	ID     Digest
	Public *ecdsa.PublicKey
	// Publisher is whose packages the key may sign: a publisher, "" for names without one, or AnyPublisher.
	Publisher string
	// NotBefore and NotAfter bound when the key signs: from the first, up to the second and not at
	// it. Zero means no bound.
	NotBefore, NotAfter time.Time
	Revocation          *Revocation
}

// Trust is the set of keys that are believed, each once.
type Trust struct {
	Keys []Key
}

// Signature is one signature of a package's SHA256SUMS.
type Signature struct {
	// KeyID names the key that is said to have made it.
	KeyID Digest
	// Value is the ECDSA P-256 signature over the SHA-256 of SHA256SUMS in DER, with the lower of both s.
	Value []byte
}

// Verdict is what a verification found.
type Verdict struct {
	// Key is the trusted key whose signature holds, the first of those in the order of the package.
	Key Key
	// At is the moment that the verification is for.
	At time.Time
	// Signatures says of each signature of the package what became of it, in the package's order.
	Signatures []SignatureVerdict
}

// SignatureVerdict is what a verification found for one signature.
type SignatureVerdict struct {
	KeyID Digest
	// Err is nil for a valid signature, and an *Error otherwise.
	Err error
}

// Verify says whether a key of trust has signed the package, for the moment at: when the
// signatures were there by a clock that is trusted. Offline that is now; a catalog has recorded it.
// One valid signature is enough. Without one the error is the *Error of the first
// signature by a key of trust, or else of the first.
func (p *Package) Verify(trust *Trust, at time.Time) (Verdict, error) {
	v := Verdict{At: at}
	var refused error
	found := false
	for _, s := range p.Signatures {
		key, err := trust.Check(p.Manifest.Metadata.Name, p.sums, s, at)
		v.Signatures = append(v.Signatures, SignatureVerdict{s.KeyID, err})
		switch {
		case err == nil && !found:
			v.Key, found = key, true
		case err != nil && (refused == nil || isCode(refused, CodeKeyUnknown)):
			refused = err
		}
	}
	switch {
	case found:
		return v, nil
	case refused != nil:
		return v, refused
	}
	return v, refuse(CodeSignatureMissing, p.Manifest.Ref().String(), "nobody has signed the package").hint("maestro pkg sign signs it")
}

// Check judges one signature by itself: whether it is of sums, for the package called name, by a
// key of trust that was good at that moment. A catalog that knows since when it has each signature
// asks for each with its own moment.
func (t *Trust) Check(name string, sums []byte, s Signature, at time.Time) (Key, error) {
	for _, k := range t.Keys {
		if k.ID == s.KeyID {
			return k, k.check(name, sums, s, at)
		}
	}
	return Key{}, refuse(CodeKeyUnknown, s.KeyID.String(), "the key has signed and is not trusted")
}

func (k *Key) check(name string, sums []byte, s Signature, at time.Time) error {
	id := k.ID.String()
	switch r := k.Revocation; {
	case r != nil && r.Kind != Superseded:
		return refuse(CodeKeyCompromised, id, "the key was revoked as compromised at %s; nothing that it signed counts", stamp(r.At)).
			hint("have the package signed by another key")
	case r != nil && !at.Before(r.At):
		return refuse(CodeKeySuperseded, id, "the key was replaced at %s; what it signed later does not count", stamp(r.At)).
			hint("have the package signed by the key that replaced it")
	case at.Before(k.NotBefore):
		return refuse(CodeKeyNotYet, id, "the key is valid from %s on", stamp(k.NotBefore))
	case !k.NotAfter.IsZero() && !at.Before(k.NotAfter):
		return refuse(CodeKeyExpired, id, "the key was valid until %s", stamp(k.NotAfter)).hint("have the package signed by a newer key")
	case k.Publisher != AnyPublisher && k.Publisher != Publisher(name):
		return refuse(CodeKeyScope, id, "the key signs packages of %s and not %s", publisherText(k.Publisher), quoted(name))
	}
	return k.verify(sums, s)
}

// verify says whether k signed sums, whatever else is known of k.
func (k *Key) verify(sums []byte, s Signature) error {
	id := k.ID.String()
	if _, canonical, err := parseValue(s.Value); err != nil {
		return err
	} else if !canonical {
		return refuse(CodeSignatureForm, id, "the signature is not in DER with the lower s")
	}
	verifier, err := signature.LoadVerifier(k.Public, crypto.SHA256)
	if err != nil {
		return refuse(CodeKey, id, "the key cannot be used: %v", err)
	}
	if err := verifier.VerifySignature(bytes.NewReader(s.Value), bytes.NewReader(sums)); err != nil {
		return refuse(CodeSignatureInvalid, id, "the key did not sign this content")
	}
	return nil
}

func publisherText(publisher string) string {
	if publisher == "" {
		return "no publisher"
	}
	return "the publisher " + publisher
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }
