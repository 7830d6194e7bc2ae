package policies

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"math/big"
	"strings"
	"time"
)

// Algorithm is how a key signs (RFC 7518, RFC 8037). It is the key's, and never what a signature says.
type Algorithm string

// Algorithms that sign packs.
const (
	ES256 Algorithm = "ES256"
	EdDSA Algorithm = "EdDSA"
	RS256 Algorithm = "RS256"
)

// RevocationKind says what a revocation means for what the key has signed.
type RevocationKind string

// Kinds of revocation.
const (
	// Superseded: the key was replaced. What was recorded before the revocation stays valid.
	Superseded RevocationKind = "superseded"
	// Compromised: the key is in wrong hands. Nothing that it signed is valid, whenever it was recorded.
	Compromised RevocationKind = "compromised"
)

// Key is a public key that signs packs.
type Key struct {
	// ID names the key in signatures: the SHA-256 of its SubjectPublicKeyInfo in hexadecimal, or a name for
	// a key of others.
	ID        string
	Algorithm Algorithm
	Public    crypto.PublicKey
	// Fingerprint is the SHA-256 of the SubjectPublicKeyInfo.
	Fingerprint [sha256.Size]byte
	// Scopes are what the key may sign: TENANT/PACK, or TENANT/* for every pack of a tenant. * as a tenant is the platform.
	Scopes []string
	// NotBefore and NotAfter bound when the key signs: from the first, up to the second and not at it. Zero means no bound.
	NotBefore, NotAfter time.Time
	// Revoked is empty for a key that was not revoked, at RevokedAt.
	Revoked   RevocationKind
	RevokedAt time.Time
}

// minRSA is the least size of an RSA key, in bits.
const minRSA = 2048

// maxKeyFile bounds a file with a key, in bytes.
const maxKeyFile = 16 << 10

// NewKey is the key of a public key file, PEM of a SubjectPublicKeyInfo, that may sign packs of these scopes.
func NewKey(pemPublic []byte, scopes ...string) (Key, error) {
	b, rest := pem.Decode(pemPublic)
	if len(pemPublic) > maxKeyFile || b == nil || b.Type != "PUBLIC KEY" || len(strings.TrimSpace(string(rest))) > 0 {
		return Key{}, refuse(CodeKey, "", "the file is not one public key in PEM").hint("maestro pkg keygen and openssl pkey -pubout write such files")
	}
	public, err := x509.ParsePKIXPublicKey(b.Bytes)
	if err != nil {
		return Key{}, refuse(CodeKey, "", "the public key cannot be read: %v", err)
	}
	k := Key{Public: public, Scopes: scopes}
	switch p := public.(type) {
	case *ecdsa.PublicKey:
		if p.Curve == elliptic.P256() {
			k.Algorithm = ES256
		}
	case ed25519.PublicKey:
		k.Algorithm = EdDSA
	case *rsa.PublicKey:
		if p.N.BitLen() >= minRSA {
			k.Algorithm = RS256
		}
	}
	if k.Algorithm == "" {
		return Key{}, refuse(CodeKey, "", "the key is not one of ECDSA on P-256, Ed25519 or RSA with at least %d bits", minRSA)
	}
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return Key{}, refuse(CodeKey, "", "the public key cannot be written: %v", err)
	}
	k.Fingerprint = sha256.Sum256(der)
	k.ID = hex.EncodeToString(k.Fingerprint[:])
	return k, nil
}

// maySign says whether the key may sign packs of scope.
func (k *Key) maySign(scope string) bool {
	tenant, _, _ := strings.Cut(scope, "/")
	for _, s := range k.Scopes {
		if s == scope || s == tenant+"/*" {
			return true
		}
	}
	return false
}

// usable refuses a key that was not good for what was recorded at a moment.
func (k *Key) usable(recorded time.Time) error {
	switch {
	case k.Revoked != "" && k.Revoked != Superseded:
		return refuse(CodeKeyCompromised, k.ID, "the key was revoked as compromised at %s; nothing that it signed counts", stamp(k.RevokedAt)).
			hint("sign the pack with another key, as a higher revision")
	case k.Revoked != "" && !recorded.Before(k.RevokedAt):
		return refuse(CodeKeySuperseded, k.ID, "the key was replaced at %s; what it signed later does not count", stamp(k.RevokedAt)).
			hint("sign the pack with the key that replaced it")
	case recorded.Before(k.NotBefore):
		return refuse(CodeKeyNotYet, k.ID, "the key is valid from %s on", stamp(k.NotBefore))
	case !k.NotAfter.IsZero() && !recorded.Before(k.NotAfter):
		return refuse(CodeKeyExpired, k.ID, "the key was valid until %s", stamp(k.NotAfter)).hint("sign the pack with a newer key")
	}
	return nil
}

// verify says whether the key made a signature of a token.
func (k *Key) verify(signed, signature []byte) bool {
	digest := sha256.Sum256(signed)
	switch p := k.Public.(type) {
	case *ecdsa.PublicKey:
		return len(signature) == 64 && ecdsa.Verify(p, digest[:], new(big.Int).SetBytes(signature[:32]), new(big.Int).SetBytes(signature[32:]))
	case ed25519.PublicKey:
		return ed25519.Verify(p, signed, signature)
	case *rsa.PublicKey:
		return rsa.VerifyPKCS1v15(p, crypto.SHA256, digest[:], signature) == nil
	}
	return false
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }
