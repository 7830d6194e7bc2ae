package policies

import (
	"fmt"
	"strings"
	"time"

	"github.com/maestro-conductor/maestro/internal/strictyaml"
)

// MaxKeys bounds the keys of a key file.
const MaxKeys = 64

// keyFile is the YAML of a key file; docs/policies.md describes it.
type keyFile struct {
	Version int          `yaml:"version"`
	Keys    []keyFileKey `yaml:"keys"`
}

type keyFileKey struct {
	ID        string   `yaml:"id"`
	PublicKey string   `yaml:"publicKey"`
	Scopes    []string `yaml:"scopes"`
	// Times are RFC 3339.
	NotBefore string          `yaml:"notBefore"`
	NotAfter  string          `yaml:"notAfter"`
	Revoked   *keyFileRevoked `yaml:"revoked"`
}

type keyFileRevoked struct {
	Kind RevocationKind `yaml:"kind"`
	At   string         `yaml:"at"`
}

// ParseKeys reads a key file. The error names every problem.
func ParseKeys(data []byte) ([]Key, error) {
	var file keyFile
	problems := strictyaml.Decode(data, &file)
	if len(problems) == 0 && file.Version != 1 {
		problems = append(problems, "version: it must be 1")
	}
	if n := len(file.Keys); len(problems) == 0 && (n == 0 || n > MaxKeys) {
		problems = append(problems, fmt.Sprintf("keys: there are %d; a key file has 1 to %d", n, MaxKeys))
	}
	var keys []Key
	seen := map[string]bool{}
	for i, f := range file.Keys {
		key, wrong := f.key()
		if wrong == nil && seen[key.ID] {
			wrong = append(wrong, "the id is there twice")
		}
		seen[key.ID] = true
		for _, w := range wrong {
			problems = append(problems, fmt.Sprintf("keys[%d]: %s", i, w))
		}
		keys = append(keys, key)
	}
	if len(problems) > 0 {
		return nil, refuse(CodeKey, "", "%s", strings.Join(problems, "\n"))
	}
	return keys, nil
}

func (f *keyFileKey) key() (Key, []string) {
	var wrong []string
	key, err := NewKey([]byte(f.PublicKey), f.Scopes...)
	if err != nil {
		wrong = append(wrong, err.Error())
	}
	if f.ID != "" {
		key.ID = f.ID
	}
	for _, s := range f.Scopes {
		if tenant, pack, ok := strings.Cut(s, "/"); !ok || tenant == "" || pack == "" || strings.Contains(pack, "/") {
			wrong = append(wrong, fmt.Sprintf("the scope %s is not TENANT/PACK or TENANT/*", quoted(s)))
		}
	}
	if len(f.Scopes) == 0 {
		wrong = append(wrong, "scopes is missing: a key signs nothing that is not named")
	}
	at := func(name, text string) time.Time {
		if text == "" {
			return time.Time{}
		}
		t, err := time.Parse(time.RFC3339, text)
		if err != nil {
			wrong = append(wrong, fmt.Sprintf("%s is %s, which is no time such as 2026-12-31T00:00:00Z", name, quoted(text)))
		}
		return t
	}
	key.NotBefore, key.NotAfter = at("notBefore", f.NotBefore), at("notAfter", f.NotAfter)
	if !key.NotAfter.IsZero() && !key.NotBefore.Before(key.NotAfter) {
		wrong = append(wrong, "notBefore is not before notAfter")
	}
	if f.Revoked != nil {
		key.Revoked, key.RevokedAt = f.Revoked.Kind, at("revoked.at", f.Revoked.At)
		if f.Revoked.At == "" || key.Revoked != Superseded && key.Revoked != Compromised {
			wrong = append(wrong, fmt.Sprintf("revoked needs kind, %s or %s, and at", Superseded, Compromised))
		}
	}
	return key, wrong
}
