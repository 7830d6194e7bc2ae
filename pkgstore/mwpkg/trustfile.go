package mwpkg

import (
	"fmt"
	"time"

	"github.com/maestro-conductor/maestro/internal/strictyaml"
)

// trustFile is the YAML of a trust file.
type trustFile struct {
	Version int            `yaml:"version"`
	Keys    []trustFileKey `yaml:"keys"`
}

type trustFileKey struct {
	// Publisher is as in Key; "" for names without one.
	Publisher string `yaml:"publisher"`
	PublicKey string `yaml:"publicKey"`
	// Times are RFC 3339.
	NotBefore string           `yaml:"notBefore"`
	NotAfter  string           `yaml:"notAfter"`
	Revoked   *trustRevocation `yaml:"revoked"`
}

type trustRevocation struct {
	Kind RevocationKind `yaml:"kind"`
	At   string         `yaml:"at"`
}

// ParseTrust reads a trust file; docs/packages.md describes it. The error is an *Error that names every problem.
func ParseTrust(data []byte) (*Trust, error) {
	var file trustFile
	var found problems
	for _, text := range strictyaml.Decode(data, &file) {
		found.add(CodeTrust, "", "%s", text)
	}
	if err := found.err(); err != nil {
		return nil, err
	}
	if file.Version != 1 {
		found.add(CodeTrust, "version", "it must be 1")
	}
	if n := len(file.Keys); n == 0 || n > MaxTrustKeys {
		found.add(CodeTrust, "keys", "there are %d; a trust file has 1 to %d", n, MaxTrustKeys)
		return nil, found.err()
	}
	t := &Trust{}
	seen := map[Digest]bool{}
	for i, k := range file.Keys {
		at := fmt.Sprintf("keys[%d]", i)
		key, err := NewKey([]byte(k.PublicKey))
		found.take(at+".publicKey", err)
		if err == nil && seen[key.ID] {
			found.add(CodeTrust, at, "the key is there twice")
		}
		seen[key.ID] = true
		k.apply(&key, at, &found)
		t.Keys = append(t.Keys, key)
	}
	if err := found.err(); err != nil {
		return nil, err
	}
	return t, nil
}

// apply gives key what the file says of it.
func (k trustFileKey) apply(key *Key, at string, found *problems) {
	key.Publisher = k.Publisher
	if k.Publisher != "" && k.Publisher != AnyPublisher && !namePart.MatchString(k.Publisher) {
		found.add(CodeTrust, at+".publisher", "it must be a publisher, %q for all packages, or empty for those without one", AnyPublisher)
	}
	key.NotBefore = parseTime(at+".notBefore", k.NotBefore, found)
	key.NotAfter = parseTime(at+".notAfter", k.NotAfter, found)
	if !key.NotAfter.IsZero() && !key.NotBefore.Before(key.NotAfter) {
		found.add(CodeTrust, at, "notBefore is not before notAfter")
	}
	if k.Revoked == nil {
		return
	}
	if k.Revoked.Kind != Superseded && k.Revoked.Kind != Compromised {
		found.add(CodeTrust, at+".revoked.kind", "it must be %s or %s", Superseded, Compromised)
	}
	key.Revocation = &Revocation{k.Revoked.Kind, parseTime(at+".revoked.at", k.Revoked.At, found)}
	if key.Revocation.At.IsZero() && k.Revoked.At == "" {
		found.add(CodeTrust, at+".revoked.at", "it is missing")
	}
}

func parseTime(at, text string, found *problems) time.Time {
	if text == "" {
		return time.Time{}
	}
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		found.add(CodeTrust, at, "%s is no time such as 2026-12-31T00:00:00Z", quoted(text))
	}
	return t
}
