package index

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"
)

// digestAlgorithms lists the algorithms whose lengths are known, with their permitted
// lengths in bytes. Names are as in the in-toto DigestSet, in lower case and with '-' for
// '_'. The order is the algorithm's code in the document codec: only ever append. No length
// in hex may be another length in base64 (64 characters are 32 or 48 bytes), or a value
// would have two readings.
var digestAlgorithms = []struct {
	name  string
	sizes []int
}{
	{"sha256", []int{32}},
	{"sha512", []int{64}},
	{"sha1", []int{20}},
	{"sha384", []int{48}},
	{"sha224", []int{28}},
	{"md5", []int{16}},
	{"sha512-256", []int{32}},
	{"sha512-224", []int{28}},
	{"sha3-224", []int{28}},
	{"sha3-256", []int{32}},
	{"sha3-384", []int{48}},
	{"sha3-512", []int{64}},
	{"blake2b", []int{64, 32, 20}},
	{"blake2b-256", []int{32}},
	{"blake2b-512", []int{64}},
	{"blake2s", []int{32}},
	{"blake3", []int{32, 64}},
	{"gitcommit", []int{20, 32}},
	{"gittree", []int{20, 32}},
	{"gitblob", []int{20, 32}},
	{"gittag", []int{20, 32}},
	{"dirhash", []int{32}},
	{"ripemd160", []int{20}},
	{"sm3", []int{32}},
}

// digestSizes returns the permitted lengths in bytes, nil for an algorithm not listed.
func digestSizes(algorithm string) []int {
	for i := range digestAlgorithms {
		if digestAlgorithms[i].name == algorithm {
			return digestAlgorithms[i].sizes
		}
	}
	return nil
}

// Bounds of a digest of an algorithm whose length is not known, in bytes.
const (
	minUnknownDigestBytes = 8
	maxUnknownDigestBytes = 128
	maxAlgorithmBytes     = 32
)

// bareHex maps the length of a digest given without algorithm to the algorithm meant.
var bareHex = map[int]string{40: "sha1", 64: "sha256", 96: "sha384", 128: "sha512"}

// ParseDigest reads a digest in any of the spellings in use and returns its algorithm in
// lower case and its value in lower-case hex:
//
//	sha256:HEX          any case, as OCI and in-toto write it
//	sha256:BASE64       standard or URL alphabet, padded or not
//	sha256-BASE64       subresource integrity, as npm writes it
//	h1:BASE64           Go's module hash; the algorithm is dirhash
//	HEX                 40, 64, 96 or 128 characters: sha1, sha256, sha384, sha512
//
// "SHA-256" and "sha512_256" are read as "sha256" and "sha512-256". The length must be that
// of the algorithm. Another algorithm is taken as it is if its value is hex of 8 to 128
// bytes. The error is a *DocumentError with ReasonDigestMalformed.
func ParseDigest(s string) (algorithm, value string, err error) {
	if name, rest, ok := strings.Cut(s, ":"); ok {
		return parseDigestValue(name, rest)
	}
	if isHex(s) {
		if name, ok := bareHex[len(s)]; ok {
			return name, strings.ToLower(s), nil
		}
		return "", "", malformedDigest("%d hex characters could be of several algorithms; write ALGORITHM:VALUE", len(s))
	}
	if name, rest, ok := strings.Cut(s, "-"); ok && digestSizes(canonicalAlgorithm(name)) != nil {
		return parseDigestValue(name, rest)
	}
	return "", "", malformedDigest("%s is not a digest; write ALGORITHM:VALUE with the value in hex or base64", quote(s))
}

// FormatDigest spells a digest the way answers do: ALGORITHM:VALUE.
func FormatDigest(algorithm, value string) string { return algorithm + ":" + value }

// parseDigestValue reads a value of a named algorithm.
func parseDigestValue(name, value string) (algorithm, hexValue string, err error) {
	if name == "h1" {
		name = "dirhash"
	}
	algorithm = canonicalAlgorithm(name)
	sizes := digestSizes(algorithm)
	if algorithm == "dirhash" {
		value = strings.TrimPrefix(value, "h1:")
	}
	if sizes == nil {
		return parseUnknownDigest(algorithm, value)
	}
	for _, size := range sizes {
		switch len(value) {
		case hex.EncodedLen(size):
			if isHex(value) {
				return algorithm, strings.ToLower(value), nil
			}
		case base64.StdEncoding.EncodedLen(size), base64.RawStdEncoding.EncodedLen(size):
			if raw, ok := decodeBase64(value); ok && len(raw) == size {
				return algorithm, hex.EncodeToString(raw), nil
			}
		}
	}
	return "", "", malformedDigest("%s is not a %s value: expected %s hex characters, or base64 of as many bytes",
		quote(value), algorithm, hexLengths(sizes))
}

func parseUnknownDigest(algorithm, value string) (string, string, error) {
	if !validAlgorithm(algorithm) {
		return "", "", malformedDigest("%s is not the name of a digest algorithm; use letters, digits, '.', '+' and '-', at most %d",
			quote(algorithm), maxAlgorithmBytes)
	}
	size := len(value) / 2
	if len(value)%2 != 0 || size < minUnknownDigestBytes || size > maxUnknownDigestBytes || !isHex(value) {
		return "", "", malformedDigest("%s is not a value of algorithm %s: expected %d to %d hex characters",
			quote(value), quote(algorithm), 2*minUnknownDigestBytes, 2*maxUnknownDigestBytes)
	}
	return algorithm, strings.ToLower(value), nil
}

// canonicalAlgorithm unifies case, '_' and the hyphen in "SHA-256".
func canonicalAlgorithm(name string) string {
	name = strings.ReplaceAll(strings.ToLower(name), "_", "-")
	if rest, ok := strings.CutPrefix(name, "sha-"); ok {
		return "sha" + rest
	}
	return name
}

func validAlgorithm(name string) bool {
	if name == "" || len(name) > maxAlgorithmBytes {
		return false
	}
	for i := range len(name) {
		c := name[i]
		letter := c >= 'a' && c <= 'z' || c >= '0' && c <= '9'
		if !letter && (i == 0 || c != '-' && c != '.' && c != '+') {
			return false
		}
	}
	return true
}

func isHex(s string) bool {
	for i := range len(s) {
		c := s[i]
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') && (c < 'A' || c > 'F') {
			return false
		}
	}
	return s != ""
}

// decodeBase64 reads the standard and the URL alphabet, padded or not. It is strict about
// left-over bits and line breaks, so that a value has one spelling per alphabet.
func decodeBase64(s string) ([]byte, bool) {
	if strings.ContainsAny(s, "\r\n") {
		return nil, false
	}
	enc := base64.RawStdEncoding
	if strings.ContainsAny(s, "-_") {
		enc = base64.RawURLEncoding
	}
	if len(s)%4 == 0 {
		s = strings.TrimSuffix(strings.TrimSuffix(s, "="), "=")
	}
	raw, err := enc.Strict().DecodeString(s)
	return raw, err == nil
}

func hexLengths(sizes []int) string {
	var b strings.Builder
	for i, size := range sizes {
		if i > 0 {
			b.WriteString(" or ")
		}
		fmt.Fprintf(&b, "%d", hex.EncodedLen(size))
	}
	return b.String()
}

func malformedDigest(format string, args ...any) error {
	return &DocumentError{Reason: ReasonDigestMalformed, Message: fmt.Sprintf(format, args...)}
}

// quote shows a value in a message, cut so that hostile input cannot flood a log.
func quote(s string) string {
	const most = 80
	if len(s) > most {
		return fmt.Sprintf("%q...", s[:most])
	}
	return fmt.Sprintf("%q", s)
}
