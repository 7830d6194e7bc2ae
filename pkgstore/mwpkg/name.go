package mwpkg

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
)

// Digest is a SHA-256. That of SHA256SUMS is the identity of a package's content.
type Digest [sha256.Size]byte

// String is the digest in 64 lower-case hexadecimal digits.
func (d Digest) String() string { return hex.EncodeToString(d[:]) }

// ParseDigest reads 64 lower-case hexadecimal digits, which may stand behind "sha256:".
func ParseDigest(text string) (Digest, error) {
	var d Digest
	bare := strings.TrimPrefix(text, "sha256:")
	n, err := hex.Decode(d[:], []byte(bare[:min(len(bare), 2*len(d))]))
	if err != nil || n != len(d) || len(bare) != 2*len(d) || strings.ToLower(bare) != bare {
		return Digest{}, refuse(CodeDigest, "", "%q is no SHA-256 in 64 lower-case hexadecimal digits", text)
	}
	return d, nil
}

// Ref names a version of a package: [PUBLISHER/]NAME@VERSION.
type Ref struct {
	// Name has the publisher in front, where there is one.
	Name    string
	Version string
}

// String is NAME@VERSION.
func (r Ref) String() string { return r.Name + "@" + r.Version }

// Publisher is the part of a package name before the slash, "" for a name without one.
func Publisher(name string) string {
	publisher, _, ok := strings.Cut(name, "/")
	if !ok {
		return ""
	}
	return publisher
}

// Filename is how the file of a package is called: a slash in the name becomes a hyphen.
func (r Ref) Filename() string {
	return strings.ReplaceAll(r.Name, "/", "-") + "-" + r.Version + Suffix
}
