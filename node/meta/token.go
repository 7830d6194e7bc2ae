package meta

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math"
	"strings"

	"github.com/maestro-conductor/maestro/internal/wire"
)

// The text of a token is mct_ID_SECRET: 16 and 64 hexadecimal digits. The prefix lets secret
// scanners find leaked ones.
const (
	tokenPrefix       = "mct_"
	tokenIDBytes      = 8
	tokenSecretBytes  = 32
	tokenTextBytes    = len(tokenPrefix) + 2*tokenIDBytes + 1 + 2*tokenSecretBytes
	descriptionMax    = 256
	roleBytesMax      = 32
	tokenValueVersion = 1
)

// token is an API token as it is stored. Its id is the record's key, its tenant the record's
// owner, and the record's seal is its revocation.
type token struct {
	tenant, role     string
	created, expires int64 // nanoseconds since 1970 UTC; expires is 0 when it does not
	hash             [sha256.Size]byte
	description      string
	revoked          bool
}

func encodeToken(t token) []byte {
	b := []byte{tokenValueVersion}
	b = wire.AppendString(b, t.role)
	b = binary.AppendUvarint(b, uint64(t.created))
	b = binary.AppendUvarint(b, uint64(t.expires))
	b = append(b, t.hash[:]...)
	return wire.AppendString(b, t.description)
}

func decodeToken(rec record) (token, error) {
	r := wire.NewReader(rec.value)
	v := r.Byte(tokenValueVersion)
	t := token{
		tenant:  rec.owner,
		role:    r.String(roleBytesMax),
		created: int64(r.Uvarint(math.MaxInt64)),
		expires: int64(r.Uvarint(math.MaxInt64)),
		hash:    [sha256.Size]byte(r.Fixed(sha256.Size)),
		revoked: rec.sealed,
	}
	t.description = r.String(descriptionMax)
	if err := r.Done(); err != nil || v != tokenValueVersion {
		return token{}, errRow("token " + rec.key)
	}
	return t, nil
}

func validToken(key string, value []byte) error {
	if !isHex(key, tokenIDBytes) {
		return fmt.Errorf("%w: token id %q", errCodec, key)
	}
	_, err := decodeToken(record{key: key, value: value})
	return err
}

// tokenDead tells whether a token admits no longer and never will again.
func tokenDead(r record, wall int64) (bool, error) {
	t, err := decodeToken(r)
	return t.revoked || t.expires != 0 && t.expires <= wall, err
}

// mintToken makes the text of a new token.
func mintToken() (id, text string, hash [sha256.Size]byte) {
	var random [tokenIDBytes + tokenSecretBytes]byte
	rand.Read(random[:]) // never fails: crypto/rand ends the process instead
	id = hex.EncodeToString(random[:tokenIDBytes])
	secret := hex.EncodeToString(random[tokenIDBytes:])
	return id, tokenPrefix + id + "_" + secret, sha256.Sum256([]byte(secret))
}

// splitToken is the inverse of mintToken; ok is false for anything else.
func splitToken(text string) (id, secret string, ok bool) {
	if len(text) != tokenTextBytes || !strings.HasPrefix(text, tokenPrefix) {
		return "", "", false
	}
	id, secret, _ = strings.Cut(text[len(tokenPrefix):], "_")
	return id, secret, isHex(id, tokenIDBytes) && isHex(secret, tokenSecretBytes)
}

// matches compares in constant time.
func (t token) matches(secret string) bool {
	sum := sha256.Sum256([]byte(secret))
	return subtle.ConstantTimeCompare(sum[:], t.hash[:]) == 1
}

func isHex(s string, bytes int) bool {
	return len(s) == 2*bytes && strings.Trim(s, "0123456789abcdef") == ""
}
