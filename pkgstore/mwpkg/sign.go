package mwpkg

import (
	"bytes"
	"slices"

	"github.com/sigstore/sigstore/pkg/signature"
)

// Sign signs the package and gives it with the new signature as the primary one. The signer has
// an ECDSA P-256 key and signs the SHA-256 of what it is given; it may be one of a key service. A valid signature
// of the same key is kept as it is.
func (p *Package) Sign(signer signature.Signer) (*Package, error) {
	public, err := signer.PublicKey()
	if err != nil {
		return nil, refuse(CodeKey, "", "the signer gives no public key: %v", err)
	}
	key, err := newKey(public)
	if err != nil {
		return nil, err
	}
	for _, s := range p.Signatures {
		if s.KeyID == key.ID && key.verify(p.sums, s) == nil {
			return p.WithSignature(s)
		}
	}
	value, err := signer.SignMessage(bytes.NewReader(p.sums))
	if err != nil {
		return nil, refuse(CodeKey, key.ID.String(), "the signer does not sign: %v", err)
	}
	lower, _, err := parseValue(value)
	if err != nil {
		return nil, err
	}
	s := Signature{key.ID, lower}
	if key.verify(p.sums, s) != nil {
		return nil, refuse(CodeSignatureInvalid, key.ID.String(), "what the signer made does not verify")
	}
	return p.WithSignature(s)
}

// WithSignature gives the package with s as its primary signature, beside the others. One
// of the same key is replaced.
func (p *Package) WithSignature(s Signature) (*Package, error) {
	if _, canonical, err := parseValue(s.Value); err != nil {
		return nil, err
	} else if !canonical {
		return nil, refuse(CodeSignatureForm, s.KeyID.String(), "the signature is not in DER with the lower s")
	}
	others := slices.DeleteFunc(slices.Clone(p.Signatures), func(o Signature) bool { return o.KeyID == s.KeyID })
	slices.SortFunc(others, func(a, b Signature) int { return bytes.Compare(a.KeyID[:], b.KeyID[:]) })
	signed := *p
	signed.Signatures = append([]Signature{s}, others...)
	return &signed, checkSet(signed.Signatures)
}
