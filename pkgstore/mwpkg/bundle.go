package mwpkg

import (
	"bytes"
	"encoding/base64"
	"errors"

	"github.com/maestro-conductor/maestro/internal/blobsign"
)

// BundleType is the media type of the sigstore bundles that are written and read.
const BundleType = blobsign.BundleType

// writeBundle is the one bundle of a signature of sums.
func writeBundle(sums []byte, s Signature) []byte {
	return blobsign.WriteBundle(s.Value, s.KeyID, sums)
}

// ParseBundle reads a sigstore bundle of sums, as cosign sign-blob --bundle writes it for a key.
func ParseBundle(data, sums []byte) (Signature, error) {
	s, err := blobsign.ParseBundle(data, sums)
	switch {
	case errors.Is(err, blobsign.ErrOtherFile):
		return Signature{}, refuse(CodeBundleMismatch, "", "the bundle is for something else than this %s", SumsPath)
	case errors.Is(err, blobsign.ErrSignature):
		return Signature{}, refuse(CodeSignatureMalformed, "", "%v", err)
	case err != nil:
		return Signature{}, refuse(CodeBundle, "", "%v", err).
			hint("cosign sign-blob --key K --bundle B --use-signing-config=false --tlog-upload=false makes one")
	}
	return Signature{s.KeyID, s.DER()}, nil
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
	switch {
	case f.Path != BundlePath && f.Path != signaturesFolder+s.KeyID.String()+bundleSuffix:
		return Signature{}, refuse(CodeBundleMismatch, f.Path, "the bundle is by key %s", s.KeyID)
	case bytes.Equal(f.Data, writeBundle(sums, s)):
		return s, nil
	case !bytes.Contains(f.Data, []byte(base64.StdEncoding.EncodeToString(s.Value))):
		return Signature{}, refuse(CodeSignatureForm, f.Path, "the signature is not in DER with the lower s")
	}
	return Signature{}, refuse(CodeSignatureForm, f.Path, "the bundle is not written as a package has it").
		hint("maestro pkg sign --bundle takes bundles of others and rewrites them")
}
