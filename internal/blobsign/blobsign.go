// Package blobsign reads and writes signatures of a file by an ECDSA P-256 key as cosign sign-blob makes them: base64, and
// as a sigstore bundle. Both stand beside the file and are checked by cosign verify-blob.
package blobsign

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
)

// BundleType is the media type of the bundles that are written and read.
const BundleType = "application/vnd.dev.sigstore.bundle.v0.3+json"

// MaxSize bounds a signature and a bundle, in bytes.
const MaxSize = 16 << 10

// Signature is a signature of a file.
type Signature struct {
	// KeyID is the SHA-256 of the key's SubjectPublicKeyInfo.
	KeyID [sha256.Size]byte
	// R and S are its numbers; S is the lower one of both that hold.
	R, S *big.Int
}

var (
	// ErrSignature means bytes that are no signature of ECDSA by P-256, and ErrOtherFile a bundle that is for another file.
	ErrSignature = errors.New("malformed signature")
	ErrOtherFile = errors.New("the bundle is for another file")
)

type numbers struct{ R, S *big.Int }

// Parse reads the DER of a signature (RFC 3279), in either of its two forms, s and n-s, which everybody can make of each other.
func Parse(der []byte, keyID [sha256.Size]byte) (Signature, error) {
	var v numbers
	rest, err := asn1.Unmarshal(der, &v)
	if err != nil || len(rest) > 0 {
		return Signature{}, fmt.Errorf("%w: it is not one of ECDSA in DER", ErrSignature)
	}
	n := elliptic.P256().Params().N
	for _, x := range []*big.Int{v.R, v.S} {
		if x.Sign() <= 0 || x.Cmp(n) >= 0 {
			return Signature{}, fmt.Errorf("%w: its numbers are not those of P-256", ErrSignature)
		}
	}
	if half := new(big.Int).Rsh(n, 1); v.S.Cmp(half) > 0 {
		v.S.Sub(n, v.S)
	}
	return Signature{keyID, v.R, v.S}, nil
}

// DER is the signature in the form with the lower s.
func (s Signature) DER() []byte {
	der, err := asn1.Marshal(numbers{s.R, s.S})
	if err != nil {
		panic("blobsign: two numbers do not marshal: " + err.Error())
	}
	return der
}

// Raw is r and s in 32 bytes each, as JSON web signatures have it (RFC 7518, 3.4).
func (s Signature) Raw() []byte {
	out := make([]byte, 64)
	s.R.FillBytes(out[:32])
	s.S.FillBytes(out[32:])
	return out
}

// Holds says whether key signed the file.
func (s Signature) Holds(key *ecdsa.PublicKey, file []byte) bool {
	digest := sha256.Sum256(file)
	return key.Curve == elliptic.P256() && ecdsa.Verify(key, digest[:], s.R, s.S)
}

// Text is the signature as cosign prints it.
func (s Signature) Text() []byte { return []byte(base64.StdEncoding.EncodeToString(s.DER())) }

// ParseText reads what cosign sign-blob prints.
func ParseText(text []byte, keyID [sha256.Size]byte) (Signature, error) {
	text = bytes.TrimSpace(text)
	der, err := base64.StdEncoding.Strict().DecodeString(string(text))
	if err != nil || len(text) == 0 || len(text) > MaxSize || bytes.ContainsAny(text, "\r\n") {
		return Signature{}, fmt.Errorf("%w: it is not one line of base64", ErrSignature)
	}
	return Parse(der, keyID)
}

// bundle is what of a sigstore bundle (protobuf-specs, sigstore_bundle.proto) a signature by a plain key needs. Anything
// else, such as certificates, entries of a log or DSSE envelopes, is refused: what is not checked must not be there.
type bundle struct {
	MediaType string `json:"mediaType"`
	Material  struct {
		PublicKey struct {
			Hint string `json:"hint"`
		} `json:"publicKey"`
	} `json:"verificationMaterial"`
	Message struct {
		Digest struct {
			Algorithm string `json:"algorithm"`
			Digest    []byte `json:"digest"`
		} `json:"messageDigest"`
		Signature []byte `json:"signature"`
	} `json:"messageSignature"`
}

// Bundle is the sigstore bundle of the signature of file.
func (s Signature) Bundle(file []byte) []byte { return WriteBundle(s.DER(), s.KeyID, file) }

// WriteBundle is the sigstore bundle of a signature, in DER, of file.
func WriteBundle(der []byte, keyID [sha256.Size]byte, file []byte) []byte {
	var b bundle
	digest := sha256.Sum256(file)
	b.MediaType = BundleType
	b.Material.PublicKey.Hint = base64.StdEncoding.EncodeToString(keyID[:])
	b.Message.Digest.Algorithm = "SHA2_256"
	b.Message.Digest.Digest = digest[:]
	b.Message.Signature = der
	out, err := json.Marshal(b)
	if err != nil {
		panic("blobsign: a bundle of strings and bytes does not marshal: " + err.Error())
	}
	return out
}

// ParseBundle reads a bundle of file.
func ParseBundle(data, file []byte) (Signature, error) {
	if len(data) > MaxSize {
		return Signature{}, fmt.Errorf("the bundle has %d bytes; at most %d are read", len(data), MaxSize)
	}
	var b bundle
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&b); err != nil {
		return Signature{}, fmt.Errorf("the bundle is not one of a plain key: %w", err)
	}
	if _, err := dec.Token(); err != io.EOF {
		return Signature{}, errors.New("more follows the bundle")
	}
	if b.MediaType != BundleType {
		return Signature{}, fmt.Errorf("the bundle has another media type than %s", BundleType)
	}
	id, err := base64.StdEncoding.Strict().DecodeString(b.Material.PublicKey.Hint)
	if err != nil || len(id) != sha256.Size {
		return Signature{}, errors.New("the bundle does not name its key by the SHA-256 of it")
	}
	digest := sha256.Sum256(file)
	if d := b.Message.Digest; d.Algorithm != "SHA2_256" {
		return Signature{}, errors.New("the bundle has another digest than SHA2_256")
	} else if !bytes.Equal(d.Digest, digest[:]) {
		return Signature{}, ErrOtherFile
	}
	return Parse(b.Message.Signature, [sha256.Size]byte(id))
}
