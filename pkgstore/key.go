package pkgstore

import (
	"fmt"
	"strings"
	"time"

	"github.com/maestro-conductor/maestro/pkgstore/mwpkg"
)

// Revocation is how a trust key was taken out of use. Revocations are only ever added to.
type Revocation byte

// The kinds of revocation, from least to most.
const (
	// NotRevoked keys sign.
	NotRevoked Revocation = iota
	// Superseded keys sign nothing new; what the region saw before stays usable.
	Superseded
	// Compromised keys count for nothing, whenever they signed.
	Compromised
)

var revocationNames = [...]mwpkg.RevocationKind{"", mwpkg.Superseded, mwpkg.Compromised}

func (r Revocation) String() string { return string(revocationNames[r]) }

// ParseRevocation is the inverse of String.
func ParseRevocation(s string) (Revocation, bool) {
	for r, name := range revocationNames {
		if s == string(name) {
			return Revocation(r), true
		}
	}
	return 0, false
}

// Key is a public key that packages are trusted by.
type Key struct {
	// Namespace is the tenant that trusts it for its own packages, or Public: then it counts for all.
	Namespace string
	// ID is the SHA-256 of SPKI.
	ID Digest
	// SPKI is the public key in DER, ECDSA P-256.
	SPKI []byte
	// Publisher is whose packages it may sign: a publisher, "" for names without one, or mwpkg.AnyPublisher.
	Publisher string
	// NotBefore and NotAfter are its validity, in nanoseconds since 1970 UTC; 0 for no bound. Signatures
	// count that the region saw in between.
	NotBefore, NotAfter int64
	Comment             string
	// Added is when the region learnt of it.
	Added int64
	// Revoked says how it was taken out of use, RevokedAt when by the region's time, and why.
	Revoked   Revocation
	RevokedAt int64
	Reason    string
	Stamp     Stamp
}

// KeyName names a trust key.
type KeyName struct {
	Namespace string
	ID        Digest
}

// Keys are trust keys by namespace and id.
type Keys map[KeyName]Key

// Judge returns nil if a signature of the key that the region saw at a time counts for a package of that
// name, else an *mwpkg.Error. Whether it is one, mathematically, is another question.
func (k *Key) Judge(name string, at int64) error {
	refuse := func(code mwpkg.Code, format string, args ...any) error {
		return &mwpkg.Error{Code: code, Subject: "key " + k.ID.String(), Detail: fmt.Sprintf(format, args...)}
	}
	switch {
	case k.Revoked == Compromised:
		return refuse(mwpkg.CodeKeyCompromised, "it was revoked as compromised at %s: nothing that it signed counts", moment(k.RevokedAt))
	case k.Revoked == Superseded && at >= k.RevokedAt:
		return refuse(mwpkg.CodeKeySuperseded, "it was revoked as superseded at %s: it signs nothing new", moment(k.RevokedAt))
	case k.NotBefore != 0 && at < k.NotBefore:
		return refuse(mwpkg.CodeKeyNotYet, "it is valid from %s on", moment(k.NotBefore))
	case k.NotAfter != 0 && at >= k.NotAfter:
		return refuse(mwpkg.CodeKeyExpired, "it was valid until %s", moment(k.NotAfter))
	case k.Publisher != mwpkg.AnyPublisher && k.Publisher != mwpkg.Publisher(name):
		return refuse(mwpkg.CodeKeyScope, "it may sign for the publisher %q, not %s", k.Publisher, name)
	}
	return nil
}

// Judge returns the key by which a signature that the region saw at a time counts for a package of a
// namespace: it is trusted there, or by the platform, and neither of the two knows it as compromised.
func (all Keys) Judge(namespace, name string, key Digest, at int64) (Key, error) {
	var found *Key
	var err error = &mwpkg.Error{Code: mwpkg.CodeKeyUnknown, Subject: "key " + key.String(), Detail: "it is not trusted here"}
	for _, ns := range namespacesOf(namespace) {
		k, ok := all[KeyName{ns, key}]
		if !ok {
			continue
		}
		switch judged := k.Judge(name, at); {
		case k.Revoked == Compromised:
			return Key{}, judged
		case judged != nil:
			err = judged
		default:
			found = &k
		}
	}
	if found != nil {
		return *found, nil
	}
	return Key{}, err
}

// JudgeSignatures returns the key of one of a package's signatures that counts, else why the last one does not.
func (all Keys) JudgeSignatures(p *Package) (key Key, err error) {
	err = &mwpkg.Error{Code: mwpkg.CodeSignatureMissing, Subject: p.ID(), Detail: "nobody has signed it"}
	for _, s := range p.Signatures {
		if key, err = all.Judge(p.Namespace, p.Name, s.Key, s.At); err == nil {
			return key, nil
		}
	}
	return Key{}, err
}

// namespacesOf are where a tenant's packages and keys are looked for, in order.
func namespacesOf(namespace string) []string {
	if namespace == Public {
		return []string{Public}
	}
	return []string{namespace, Public}
}

func moment(nanos int64) string { return time.Unix(0, nanos).UTC().Format(time.RFC3339) }

// FoldName is what a name reads like: two public packages whose names fold to the same are taken for each
// other.
func FoldName(name string) string {
	return strings.NewReplacer("-", "", "_", "", ".", "", "0", "o", "1", "l").Replace(strings.ToLower(name))
}
