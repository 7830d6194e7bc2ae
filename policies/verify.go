package policies

import (
	"bytes"
	"crypto/ecdsa"
	"time"

	"github.com/open-policy-agent/opa/v1/bundle"

	"github.com/maestro-conductor/maestro/internal/blobsign"
)

// Demand is what a pack must be to be believed.
type Demand struct {
	// Tenant and Pack are what was asked for. They are the scope of the signature.
	Tenant, Pack string
	Keys         []Key
	// Now is the time of who verifies. Recorded is when a server that is trusted first took the pack, by its own clock; keys are judged
	// by that, and never by what a signer claims. Zero means now.
	Now, Recorded time.Time
	// Highest is the highest revision of the pack that was ever seen, and HighestDigest its content; 0 when none was.
	Highest       uint64
	HighestDigest string
	// Bundle is the sigstore bundle beside the archive, and Text, which may be missing, the same signature as cosign prints it.
	Text, Bundle []byte
}

// Verified is a pack that is what was demanded.
type Verified struct {
	Source *Source
	Pack   *Pack
	// KeyID signed the pack, and BlobKeyID the archive.
	KeyID, BlobKeyID string
	Issuer           string
	IssuedAt         time.Time
	Expires          time.Time
}

// Verify says whether an archive is a pack that may be used: written plainly, signed inside and beside by keys that may, for this
// tenant and pack, not expired, not older than what was seen, and compiled. An error is an *Error.
func Verify(archive []byte, d Demand) (*Verified, error) {
	s, err := ReadArchive(archive)
	if err != nil {
		return nil, err
	}
	t, err := parseToken(s.signatures)
	if err != nil {
		return nil, err
	}
	c, err := t.claims()
	if err != nil {
		return nil, err
	}
	recorded := d.Recorded
	if recorded.IsZero() {
		recorded = d.Now
	}
	key, err := d.verifyToken(t, c, recorded)
	if err != nil {
		return nil, err
	}
	scope := Scope(d.Tenant, d.Pack)
	if err := c.check(d.Now, scope); err != nil {
		return nil, err
	}
	if !key.maySign(scope) {
		return nil, refuse(CodeKeyScope, key.ID, "the key may not sign packs of the scope %s", quoted(scope))
	}
	if err := c.checkFiles(s.Files); err != nil {
		return nil, err
	}
	if err := d.checkRevision(s, c); err != nil {
		return nil, err
	}
	outer, err := d.verifyBlob(archive, recorded)
	if err != nil {
		return nil, err
	}
	if err := secondOpinion(archive, key, scope); err != nil {
		return nil, err
	}
	p, err := Compile(s)
	if err != nil {
		return nil, err
	}
	return &Verified{
		Source: s, Pack: p, KeyID: key.ID, BlobKeyID: outer.ID, Issuer: c.Issuer,
		IssuedAt: time.Unix(c.IssuedAt, 0).UTC(), Expires: time.Unix(c.Expires, 0).UTC(),
	}, nil
}

// verifyToken finds the key that a token names and says whether it made the signature. The token's algorithm must
// be the key's, and what it names its key by must be one name.
func (d *Demand) verifyToken(t *token, c *claims, recorded time.Time) (*Key, error) {
	id := t.header.KeyID
	switch {
	case id == "":
		id = c.KeyID
	case c.KeyID != "" && c.KeyID != id:
		return nil, refuse(CodeClaims, signaturesFile, "kid and keyid name different keys")
	}
	switch t.header.Algorithm {
	case ES256, EdDSA, RS256:
	default:
		return nil, refuse(CodeAlgorithm, signaturesFile, "the token is signed with %s; ES256, EdDSA and RS256 are read", quoted(string(t.header.Algorithm)))
	}
	for i := range d.Keys {
		k := &d.Keys[i]
		if k.ID != id {
			continue
		}
		if k.Algorithm != t.header.Algorithm {
			return nil, refuse(CodeAlgorithm, k.ID, "the key signs with %s and the token says %s", k.Algorithm, t.header.Algorithm)
		}
		if err := k.usable(recorded); err != nil {
			return nil, err
		}
		if !k.verify(t.signed, t.signature) {
			return nil, refuse(CodeSignature, k.ID, "the key did not sign this")
		}
		return k, nil
	}
	return nil, refuse(CodeKeyUnknown, quoted(id), "the key has signed and is not trusted").
		hint("the key id stands in the token's kid, or in the claim keyid for opa sign")
}

func (d *Demand) checkRevision(s *Source, c *claims) error {
	if s.Name() != d.Pack {
		return refuse(CodeRevision, manifestFile, "the pack is %s; %s was asked for", s.Name(), quoted(d.Pack))
	}
	if c.Revision != s.Manifest.Revision {
		return refuse(CodeRevision, manifestFile, "the token is for revision %s and the manifest for %s", quoted(c.Revision), quoted(s.Manifest.Revision))
	}
	revision, err := parseRevision(c.Revision)
	switch {
	case err != nil:
		return err
	case revision < d.Highest:
		return refuse(CodeRollback, d.Pack, "the pack is revision %d, and %d was there already", revision, d.Highest).
			hint("to go back, sign the older rules as a higher revision")
	case revision == d.Highest && d.HighestDigest != "" && s.Digest() != d.HighestDigest:
		return refuse(CodeRevisionReused, d.Pack, "revision %d was there already with another content", revision).hint("build it as a higher revision")
	}
	return nil
}

// verifyBlob verifies the signature of cosign beside the archive: the bundle, and the signature by itself where it is there too.
func (d *Demand) verifyBlob(archive []byte, recorded time.Time) (*Key, error) {
	if len(d.Bundle) == 0 {
		return nil, refuse(CodeBlobMissing, "", "the sigstore bundle beside the archive is missing").
			hint("maestro policy sign and cosign sign-blob --bundle ARCHIVE.sigstore.json write it")
	}
	s, err := blobsign.ParseBundle(d.Bundle, archive)
	if err != nil {
		return nil, refuse(CodeBlobSignature, "", "%v", err)
	}
	if len(d.Text) > 0 {
		text, err := blobsign.ParseText(d.Text, s.KeyID)
		if err != nil {
			return nil, refuse(CodeBlobSignature, "", "%v", err)
		}
		if !bytes.Equal(text.DER(), s.DER()) {
			return nil, refuse(CodeBlobSignature, "", "the signature and the bundle are not the same")
		}
	}
	for i := range d.Keys {
		k := &d.Keys[i]
		public, ok := k.Public.(*ecdsa.PublicKey)
		if !ok || k.Fingerprint != s.KeyID {
			continue
		}
		if err := k.usable(recorded); err != nil {
			return nil, err
		}
		if scope := Scope(d.Tenant, d.Pack); !k.maySign(scope) {
			return nil, refuse(CodeKeyScope, k.ID, "the key may not sign packs of the scope %s", quoted(scope))
		}
		if !s.Holds(public, archive) {
			return nil, refuse(CodeBlobSignature, k.ID, "the key did not sign this archive")
		}
		return k, nil
	}
	return nil, refuse(CodeKeyUnknown, "", "the key that signed the archive is not trusted")
}

// secondOpinion has OPA verify the archive too: what we accept, OPA accepts.
func secondOpinion(archive []byte, key *Key, scope string) error {
	text, err := publicPEM(key.Public)
	if err != nil {
		return err
	}
	keys := map[string]*bundle.KeyConfig{key.ID: {Key: text, Algorithm: string(key.Algorithm), Scope: scope}}
	_, err = bundle.NewCustomReader(bundle.NewTarballLoaderWithBaseURL(bytes.NewReader(archive), "")).
		WithBundleVerificationConfig(bundle.NewVerificationConfig(keys, key.ID, scope, nil)).
		WithSizeLimitBytes(MaxContent).WithCapabilities(capabilities()).WithProcessAnnotations(true).Read()
	if err != nil {
		return refuse(CodeSignature, "", "OPA does not accept the pack: %v", err)
	}
	return nil
}
