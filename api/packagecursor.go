package api

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"

	"github.com/maestro-conductor/maestro/pkgstore"
)

const (
	packageCursorVersion  = 1
	packageCursorMACBytes = 16
)

// packagePage is a page of a list of the catalog: how long, and behind which key it begins. Its cursor is bound
// to what the list is about.
type packagePage struct {
	limit int
	after string

	key   []byte
	about []byte
}

// packagePage reads the bounds of a page. about says what the list is about: which list, in whose view, what it keeps.
func (s *server) packagePage(catalog Packages, limit uint32, cursor string, namespaces []string, about ...string) (*packagePage, error) {
	if limit > pkgstore.PageMax {
		return nil, refuse(reasonFieldMalformed, "limit: %d is more than the %d of a page", limit, pkgstore.PageMax)
	}
	if limit == 0 {
		limit = DefaultPage
	}
	key, known := catalog.CursorKey()
	if !known {
		return nil, ErrNotReady
	}
	p := &packagePage{limit: int(limit), key: key}
	p.about = binary.AppendUvarint([]byte("maestro.package.cursor\x00"), uint64(len(namespaces)))
	for _, word := range append(append([]string{}, namespaces...), about...) {
		p.about = append(binary.AppendUvarint(p.about, uint64(len(word))), word...)
	}
	if cursor == "" {
		return p, nil
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(cursor)
	if err != nil || len(b) < 1+packageCursorMACBytes {
		return nil, refuse(reasonCursorMalformed, "this is no cursor")
	}
	b, mac := b[:len(b)-packageCursorMACBytes], b[len(b)-packageCursorMACBytes:]
	if b[0] != packageCursorVersion || !hmac.Equal(mac, p.mac(b)) {
		return nil, refuse(reasonCursorMalformed, "it was not made by this region for this list")
	}
	p.after = string(b[1:])
	return p, nil
}

// next is the cursor of the page that begins behind a key; none after the last page.
func (p *packagePage) next(after string) string {
	if after == "" {
		return ""
	}
	b := append([]byte{packageCursorVersion}, after...)
	return base64.RawURLEncoding.EncodeToString(append(b, p.mac(b)...))
}

func (p *packagePage) mac(b []byte) []byte {
	h := hmac.New(sha256.New, p.key)
	h.Write(p.about)
	h.Write(b)
	return h.Sum(nil)[:packageCursorMACBytes]
}
