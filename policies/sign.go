package policies

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sigstore/sigstore/pkg/cryptoutils"
	"github.com/sigstore/sigstore/pkg/signature"

	"github.com/maestro-conductor/maestro/internal/blobsign"
)

// Build gives the pack of a folder as an archive without a signature. revision is at least 1 and higher than those before.
func Build(s *Source, revision uint64) (*Source, []byte, error) {
	if revision == 0 {
		return nil, nil, refuse(CodeManifest, manifestFile, "the revision is 0; revisions begin at 1")
	}
	m := s.Manifest
	m.Revision = strconv.FormatUint(revision, 10)
	manifest, err := json.Marshal(m)
	if err != nil {
		return nil, nil, err
	}
	files := slices.Clone(s.Files)
	for i, f := range files {
		if f.Path == manifestFile {
			files[i].Data = append(manifest, '\n')
		}
	}
	built, err := newSource(files)
	if err != nil {
		return nil, nil, err
	}
	// What cannot be evaluated must not be built.
	if _, err := Compile(built); err != nil {
		return nil, nil, err
	}
	archive, err := writeArchive(files)
	return built, archive, err
}

// Statement is what a signer says of a pack, besides its files and revision.
type Statement struct {
	// Tenant is whose pack it is, * for the platform's.
	Tenant string
	Issuer string
	// IssuedAt and Expires are in whole seconds.
	IssuedAt, Expires time.Time
}

// Signed is a signed pack: the archive, and what stands beside it for cosign.
type Signed struct {
	Archive []byte
	// Text is the signature of the archive as cosign sign-blob prints it, Bundle the same as a sigstore bundle.
	Text, Bundle []byte
}

// Scope is how tokens name a pack of a tenant.
func Scope(tenant, pack string) string { return tenant + "/" + pack }

// Sign signs a built pack twice: inside by a token that OPA verifies, and beside the archive for cosign. The signer has an ECDSA
// P-256 key and signs the SHA-256 of what it is given; it may be one of a key service.
func Sign(s *Source, by Statement, signer signature.Signer) (*Signed, error) {
	if s.Manifest.Revision == "" {
		return nil, refuse(CodeManifest, manifestFile, "the pack has no revision").hint("maestro policy build gives it one")
	}
	key, err := signerKey(signer)
	if err != nil {
		return nil, err
	}
	c := claims{
		Scope: Scope(by.Tenant, s.Name()), Issuer: by.Issuer, IssuedAt: by.IssuedAt.Unix(), Expires: by.Expires.Unix(), Revision: s.Manifest.Revision,
	}
	if by.Tenant == "" || strings.Contains(by.Tenant, "/") {
		return nil, refuse(CodeScope, "", "%s is no tenant", quoted(by.Tenant))
	}
	if err := c.check(by.IssuedAt, c.Scope); err != nil {
		return nil, err
	}
	for _, f := range s.Files {
		hashed, err := hashFile(f)
		if err != nil {
			return nil, err
		}
		c.Files = append(c.Files, hashed)
	}
	header, err := json.Marshal(tokenHeader{Algorithm: ES256, KeyID: key.ID})
	if err != nil {
		return nil, err
	}
	payload, err := json.Marshal(c)
	if err != nil {
		return nil, err
	}
	text := base64.RawURLEncoding.EncodeToString(header) + "." + base64.RawURLEncoding.EncodeToString(payload)
	inner, err := signWith(signer, &key, []byte(text))
	if err != nil {
		return nil, err
	}
	file, err := json.Marshal(signatures{Signatures: []string{text + "." + base64.RawURLEncoding.EncodeToString(inner.Raw())}})
	if err != nil {
		return nil, err
	}
	files := append(slices.Clone(s.Files), File{signaturesFile, append(file, '\n')})
	slices.SortFunc(files, func(a, b File) int { return strings.Compare(a.Path, b.Path) })
	archive, err := writeArchive(files)
	if err != nil {
		return nil, err
	}
	return SignArchive(archive, signer)
}

// SignArchive signs an archive for cosign, whoever signed the pack inside.
func SignArchive(archive []byte, signer signature.Signer) (*Signed, error) {
	key, err := signerKey(signer)
	if err != nil {
		return nil, err
	}
	outer, err := signWith(signer, &key, archive)
	if err != nil {
		return nil, err
	}
	return &Signed{Archive: archive, Text: outer.Text(), Bundle: outer.Bundle(archive)}, nil
}

func signerKey(signer signature.Signer) (Key, error) {
	public, err := signer.PublicKey()
	if err != nil {
		return Key{}, refuse(CodeKey, "", "the signer gives no public key: %v", err)
	}
	text, err := cryptoutils.MarshalPublicKeyToPEM(public)
	if err != nil {
		return Key{}, refuse(CodeKey, "", "the signer's public key cannot be written: %v", err)
	}
	key, err := NewKey(text)
	if err == nil && key.Algorithm != ES256 {
		err = refuse(CodeKey, key.ID, "packs are signed with ECDSA on P-256").hint("maestro pkg keygen makes such keys; opa sign signs with others")
	}
	return key, err
}

func signWith(signer signature.Signer, key *Key, message []byte) (blobsign.Signature, error) {
	der, err := signer.SignMessage(bytes.NewReader(message))
	if err != nil {
		return blobsign.Signature{}, refuse(CodeKey, key.ID, "the signer does not sign: %v", err)
	}
	s, err := blobsign.Parse(der, key.Fingerprint)
	if err == nil && !key.verify(message, s.Raw()) {
		err = errors.New("what the signer made does not verify")
	}
	if err != nil {
		return blobsign.Signature{}, refuse(CodeSignature, key.ID, "%v", err)
	}
	return s, nil
}

func publicPEM(public any) (string, error) {
	text, err := cryptoutils.MarshalPublicKeyToPEM(public)
	if err != nil {
		return "", refuse(CodeKey, "", "the public key cannot be written: %v", err)
	}
	return string(text), nil
}
