package pkgstore

import (
	"context"
	"crypto/ecdsa"
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/maestro-conductor/maestro/pkgstore/mwpkg"
)

// check says whether the key made a signature, which Judge does not look at.
func (k *Key) check(name string, sums []byte, s mwpkg.Signature, at int64) error {
	pub, err := x509.ParsePKIXPublicKey(k.SPKI)
	ec, ok := pub.(*ecdsa.PublicKey)
	if err != nil || !ok {
		return &mwpkg.Error{Code: mwpkg.CodeKey, Subject: "key " + k.ID.String(), Detail: "it cannot be read"}
	}
	key := mwpkg.Key{ID: k.ID, Public: ec, Publisher: k.Publisher, NotBefore: timeOf(k.NotBefore), NotAfter: timeOf(k.NotAfter)}
	if k.Revoked != NotRevoked {
		key.Revocation = &mwpkg.Revocation{Kind: revocationNames[k.Revoked], At: timeOf(k.RevokedAt)}
	}
	_, err = (&mwpkg.Trust{Keys: []mwpkg.Key{key}}).Check(name, sums, s, timeOf(at))
	return err
}

// timeOf reads a moment in nanoseconds since 1970, of which 0 means none.
func timeOf(nanos int64) time.Time {
	if nanos == 0 {
		return time.Time{}
	}
	return time.Unix(0, nanos).UTC()
}

// NewKey is a key to be added, of a public key in PEM.
func NewKey(namespace string, pem []byte, publisher string) (Key, error) {
	parsed, err := mwpkg.NewKey(pem)
	if err != nil {
		return Key{}, err
	}
	spki, err := x509.MarshalPKIXPublicKey(parsed.Public)
	if err != nil {
		return Key{}, fmt.Errorf("pkgstore: encode the public key: %w", err)
	}
	return Key{Namespace: namespace, ID: parsed.ID, SPKI: spki, Publisher: publisher}, nil
}

// AddKey trusts a key. Adding it again as it is changes nothing.
func (s *Service) AddKey(ctx context.Context, k Key) (Key, error) {
	switch {
	case k.NotAfter != 0 && k.NotBefore >= k.NotAfter:
		return Key{}, refuse(ErrField, "the key would end at %s, before it begins", moment(k.NotAfter))
	case k.NotAfter != 0 && k.NotAfter <= s.clock().UnixNano():
		return Key{}, refuse(ErrField, "the key would have ended at %s already", moment(k.NotAfter))
	case len(k.Comment) > TextBytesMax:
		return Key{}, refuse(ErrField, "the comment has %d bytes, more than %d", len(k.Comment), TextBytesMax)
	case len(k.Publisher) > NameBytesMax || strings.ContainsAny(k.Publisher, "/ @"):
		return Key{}, refuse(ErrField, "%q is no publisher; give the part of the names before the slash, nothing for names without one, or *", k.Publisher)
	}
	return s.store.AddKey(ctx, k)
}

// RevokeKey ends the trust in a key, or makes a revocation a stronger one. There is no way back.
func (s *Service) RevokeKey(ctx context.Context, namespace string, id Digest, kind Revocation, reason string) (Key, error) {
	switch {
	case kind == NotRevoked:
		return Key{}, refuse(ErrField, "a revocation is superseded or compromised")
	case len(reason) > TextBytesMax:
		return Key{}, refuse(ErrField, "the reason has %d bytes, more than %d", len(reason), TextBytesMax)
	}
	return s.store.RevokeKey(ctx, namespace, id, kind, reason)
}

// Keys are the trust keys of some namespaces, or of all without any: the platform's first, then by namespace
// and id.
func (s *Service) Keys(ctx context.Context, namespaces []string) ([]Key, error) {
	all, err := s.store.Keys(ctx, namespaces)
	if err != nil {
		return nil, err
	}
	out := make([]Key, 0, len(all))
	for _, k := range all { // sorted below
		out = append(out, k)
	}
	slices.SortFunc(out, func(a, b Key) int {
		if c := strings.Compare(a.Namespace, b.Namespace); c != 0 {
			return c
		}
		return strings.Compare(a.ID.String(), b.ID.String())
	})
	return out, nil
}

// Reach is a package that a key has signed, and who uses it.
type Reach struct {
	Package Package
	// Usable tells whether another signature, or this one still, counts now.
	Usable bool
	// Tenants have it installed.
	Tenants []string
}

// Reach is a page of what a key has ever signed in some namespaces, or in all without any, and of the
// tenants that have it installed: those named, or all for the platform.
func (s *Service) Reach(ctx context.Context, namespaces []string, key Digest, tenant, after string, limit int) (all []Reach, next string, err error) {
	packages, next, err := s.store.Packages(ctx, namespaces, Filter{Signer: &key}, after, limit)
	if err != nil {
		return nil, "", err
	}
	for i := range packages {
		p := &packages[i]
		_, keys, err := s.store.Resolve(ctx, []string{p.Namespace}, ID{Name: p.Name, Version: p.Version})
		if err != nil {
			return nil, "", err
		}
		_, judged := keys.JudgeSignatures(p)
		r := Reach{Package: *p, Usable: judged == nil}
		q := InstallQuery{Tenant: tenant, Name: p.Name, Ref: &Ref{Version: p.Version, Namespace: p.Namespace, Digest: p.Digest}}
		for from := ""; ; {
			installs, more, err := s.store.Installs(ctx, q, from, PageMax)
			if err != nil {
				return nil, "", err
			}
			for _, i := range installs {
				r.Tenants = append(r.Tenants, i.Tenant)
			}
			if from = more; more == "" {
				break
			}
		}
		all = append(all, r)
	}
	return all, next, nil
}
