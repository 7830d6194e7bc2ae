package mwpkg

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"io"
)

// BundleType is the media type of the sigstore bundles that are written and read.
const BundleType = "application/vnd.dev.sigstore.bundle.v0.3+json"

// bundle is what of a sigstore bundle (protobuf-specs, sigstore_bundle.proto) a signature by a plain key
// needs. Bundles with anything else, such as certificates, entries of a log or DSSE envelopes, are
// refused: what is not checked must not be there.
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

// writeBundle is the one bundle of a signature of sums.
func writeBundle(sums []byte, s Signature) []byte {
	var b bundle
	digest := digestOf(sums)
	b.MediaType = BundleType
	b.Material.PublicKey.Hint = hint(s.KeyID)
	b.Message.Digest.Algorithm = "SHA2_256"
	b.Message.Digest.Digest = digest[:]
	b.Message.Signature = s.Value
	out, err := json.Marshal(b)
	if err != nil {
		panic("mwpkg: a bundle of strings and bytes does not marshal: " + err.Error())
	}
	return out
}

// ParseBundle reads a sigstore bundle of sums, as cosign sign-blob --bundle writes it for a key.
func ParseBundle(data, sums []byte) (Signature, error) {
	if len(data) > MaxBundle {
		return Signature{}, refuse(CodeBundle, "", "the bundle has %d bytes; at most %d are read", len(data), MaxBundle)
	}
	var b bundle
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&b); err != nil {
		return Signature{}, refuse(CodeBundle, "", "the bundle is not one of a plain key: %v", err).
			hint("cosign sign-blob --key K --bundle B --use-signing-config=false --tlog-upload=false makes one")
	}
	if _, err := dec.Token(); err != io.EOF {
		return Signature{}, refuse(CodeBundle, "", "more follows the bundle")
	}
	if b.MediaType != BundleType {
		return Signature{}, refuse(CodeBundle, "", "the media type is %s; %s is read", quoted(b.MediaType), BundleType)
	}
	id, err := parseHint(b.Material.PublicKey.Hint)
	if err != nil {
		return Signature{}, err
	}
	digest := digestOf(sums)
	if d := b.Message.Digest; d.Algorithm != "SHA2_256" {
		return Signature{}, refuse(CodeBundle, "", "the digest is by %s; SHA2_256 is read", quoted(d.Algorithm))
	} else if !bytes.Equal(d.Digest, digest[:]) {
		return Signature{}, refuse(CodeBundleMismatch, "", "the bundle is for something else than this %s", SumsPath)
	}
	lower, _, err := parseValue(b.Message.Signature)
	return Signature{id, lower}, err
}

// readBundle reads a bundle of a package, which is written in one way only.
func readBundle(f File, sums []byte) (Signature, error) {
	s, err := ParseBundle(f.Data, sums)
	if err != nil {
		if e, ok := err.(*Error); ok && e.Subject == "" {
			e.Subject = f.Path
		}
		return Signature{}, err
	}
	if f.Path != BundlePath && f.Path != signaturesFolder+s.KeyID.String()+bundleSuffix {
		return Signature{}, refuse(CodeBundleMismatch, f.Path, "the bundle is by key %s", s.KeyID)
	}
	if bytes.Equal(f.Data, writeBundle(sums, s)) {
		return s, nil
	}
	var b bundle
	if json.Unmarshal(f.Data, &b) == nil && !bytes.Equal(b.Message.Signature, s.Value) {
		return Signature{}, refuse(CodeSignatureForm, f.Path, "the signature is not in DER with the lower s")
	}
	return Signature{}, refuse(CodeSignatureForm, f.Path, "the bundle is not written as a package has it").
		hint("maestro pkg sign --bundle takes bundles of others and rewrites them")
}

// hint is how bundles name a key: cosign has the same.
func hint(id Digest) string { return base64.StdEncoding.EncodeToString(id[:]) }

func parseHint(text string) (Digest, error) {
	id, err := base64.StdEncoding.Strict().DecodeString(text)
	if err != nil || len(id) != len(Digest{}) {
		return Digest{}, refuse(CodeBundle, "", "the bundle does not name its key by the SHA-256 of it")
	}
	return Digest(id), nil
}
