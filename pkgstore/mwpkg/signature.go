package mwpkg

import (
	"bytes"
	"encoding/base64"
	"slices"
	"strings"

	"github.com/maestro-conductor/maestro/internal/blobsign"
)

const (
	signaturesFolder = "signatures/"
	bundleSuffix     = ".sigstore.json"
)

// parseValue reads a signature by P-256 in DER. It returns the form with the lower s, and whether value is already
// that, byte for byte.
func parseValue(value []byte) (lower []byte, canonical bool, err error) {
	v, err := blobsign.Parse(value, Digest{})
	if err != nil {
		return nil, false, refuse(CodeSignatureMalformed, "", "%v", err)
	}
	lower = v.DER()
	return lower, bytes.Equal(lower, value), nil
}

// parseBase64 reads a whole blob signature as cosign writes it.
func parseBase64(text []byte) ([]byte, error) {
	value, err := base64.StdEncoding.Strict().DecodeString(string(text))
	if err != nil || len(value) == 0 || bytes.ContainsAny(text, "\r\n") {
		return nil, refuse(CodeSignatureMalformed, SignaturePath, "the file is not one line of base64 without an end")
	}
	return value, nil
}

// ParseBlobSignature reads what cosign sign-blob prints, base64 of a signature, which the key called
// id made.
func ParseBlobSignature(text []byte, id Digest) (Signature, error) {
	if len(text) > MaxBundle {
		return Signature{}, refuse(CodeSignatureMalformed, "", "the signature has %d bytes; at most %d are read", len(text), MaxBundle)
	}
	value, err := parseBase64(bytes.TrimSpace(text))
	if err != nil {
		return Signature{}, err
	}
	lower, _, err := parseValue(value)
	return Signature{id, lower}, err
}

// signatureFiles are the files that hold signatures of sums, the first as the primary one.
func signatureFiles(sums []byte, signatures []Signature) []File {
	var files []File
	for i, s := range signatures {
		path := signaturesFolder + s.KeyID.String() + bundleSuffix
		if i == 0 {
			path = BundlePath
			files = append(files, File{SignaturePath, []byte(base64.StdEncoding.EncodeToString(s.Value))})
		}
		files = append(files, File{path, writeBundle(sums, s)})
	}
	return files
}

// readSignatures is the opposite of signatureFiles: it refuses files that it would not write so.
func readSignatures(sums []byte, files []File) ([]Signature, error) {
	var signatures []Signature
	var blob *File
	for i, f := range files {
		switch {
		case f.Path == SignaturePath:
			blob = &files[i]
		case f.Path == BundlePath || isKeyBundle(f.Path):
			s, err := readBundle(f, sums)
			if err != nil {
				return nil, err
			}
			signatures = append(signatures, s)
			if f.Path == BundlePath {
				// The primary one stands first; the others follow by key id.
				last := len(signatures) - 1
				copy(signatures[1:], signatures[:last])
				signatures[0] = s
			}
		default:
			return nil, refuse(CodeSignatureFile, quoted(f.Path), "only signatures stand in the folder signatures")
		}
	}
	if err := checkParts(files, blob, signatures); err != nil {
		return nil, err
	}
	return signatures, checkSet(signatures)
}

// checkParts refuses a primary signature that is not there twice, as blob signature and as bundle.
func checkParts(files []File, blob *File, signatures []Signature) error {
	primary := slices.ContainsFunc(files, func(f File) bool { return f.Path == BundlePath })
	switch {
	case blob == nil && len(signatures) == 0:
		return nil
	case blob == nil:
		return refuse(CodeSignatureMalformed, SignaturePath, "the file is missing; every bundle stands beside it")
	case len(blob.Data) > MaxBundle:
		return refuse(CodeSignatureMalformed, SignaturePath, "the file has %d bytes; at most %d are read", len(blob.Data), MaxBundle)
	}
	value, err := parseBase64(blob.Data)
	if err != nil {
		return err
	}
	_, canonical, err := parseValue(value)
	switch {
	case err != nil:
		return err
	case !primary:
		return refuse(CodeSignatureMalformed, BundlePath, "the file is missing; it stands beside %s", SignaturePath)
	case !bytes.Equal(value, signatures[0].Value):
		return refuse(CodeBundleMismatch, BundlePath, "%s holds another signature", SignaturePath)
	case !canonical:
		return refuse(CodeSignatureForm, SignaturePath, "the signature is not in DER with the lower s")
	}
	return nil
}

// checkSet bounds a package's signatures: a few, each key once.
func checkSet(signatures []Signature) error {
	if len(signatures) > MaxSignatures {
		return refuse(CodeTooManyFiles, signaturesFolder, "a package has at most %d signatures", MaxSignatures)
	}
	for i, s := range signatures {
		for _, other := range signatures[:i] {
			if s.KeyID == other.KeyID {
				return refuse(CodeSignatureFile, s.KeyID.String(), "the key has two signatures; a package has one of each key")
			}
		}
	}
	return nil
}

// isKeyBundle is true for signatures/KEYID.sigstore.json.
func isKeyBundle(path string) bool {
	id, ok := strings.CutSuffix(strings.TrimPrefix(path, signaturesFolder), bundleSuffix)
	_, err := ParseDigest(id)
	return ok && err == nil && !strings.Contains(id, ":")
}
