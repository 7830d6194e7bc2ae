package mwpkg

import (
	"crypto/ecdsa"
	"time"
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
