package index

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"

	"github.com/maestro-conductor/maestro/index/query"
)

// cursor is where the next page begins, and the documents that the search is about.
type cursor struct {
	// after is nil where a search that follows goes on with what was stored since.
	after *position
	// order is the search's; the fingerprint tells it.
	order Order
	// bounds are by shard; 0 where the shard had not answered yet, else the number of
	// documents plus one.
	bounds []uint64
	// since are by shard how many documents earlier rounds of a search that follows had; the
	// page has none of them.
	since []uint64
}

// newCursor is the beginning of a search.
func newCursor(shards int) *cursor {
	return &cursor{bounds: make([]uint64, shards), since: make([]uint64, shards)}
}

const (
	cursorVersion  = 2
	cursorMACBytes = 16
	searchHash     = 8 // bytes of the search's fingerprint
)

// fingerprint identifies everything that a cursor is bound to. The page's size and the total
// may change from page to page.
func fingerprint(n query.Node, c conditions, o Order, shards []Shard) []byte {
	b := []byte("maestro.cursor.1\x00")
	for _, s := range []string{n.String(), c.tenant, c.pack, c.digest} {
		b = appendString(b, s)
	}
	b = binary.AppendVarint(b, c.from)
	b = binary.AppendVarint(b, c.to)
	for _, s := range shards {
		b = appendString(b, s.Name)
	}
	if o != OrderNewest {
		b = append(b, byte(o))
	}
	sum := sha256.Sum256(b)
	return sum[:searchHash]
}

// encode seals the cursor: version, fingerprint, position if there is one, bound and since of
// each shard, and a truncated HMAC-SHA256 over them.
func (c *cursor) encode(key, search []byte) string {
	b := append([]byte{cursorVersion}, search...)
	b = append(b, boolByte(c.after != nil))
	if c.after != nil {
		b = appendPosition(b, c.after)
		if c.order == OrderCost {
			b = binary.AppendVarint(b, c.after.cost)
		}
	}
	for i, n := range c.bounds {
		b = binary.AppendUvarint(binary.AppendUvarint(b, n), c.since[i])
	}
	return base64.RawURLEncoding.EncodeToString(append(b, cursorMAC(key, b)...))
}

func cursorMAC(key, b []byte) []byte {
	h := hmac.New(sha256.New, key)
	h.Write(b)
	return h.Sum(nil)[:cursorMACBytes]
}

// decodeCursor opens a cursor of a search over a number of shards. Errors are *CursorError.
func decodeCursor(text string, key, search []byte, o Order, shards int) (*cursor, error) {
	b, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil || len(b) < 1+searchHash+cursorMACBytes {
		return nil, &CursorError{CursorMalformed, "this is not a cursor; send the next of the previous answer as it is"}
	}
	b, mac := b[:len(b)-cursorMACBytes], b[len(b)-cursorMACBytes:]
	if !hmac.Equal(mac, cursorMAC(key, b)) {
		return nil, &CursorError{CursorForged, "it was not made by this region, or it was altered; start the search again"}
	}
	if b[0] != cursorVersion {
		return nil, &CursorError{CursorStale, "another version made it; start the search again"}
	}
	if !hmac.Equal(b[1:1+searchHash], search) {
		return nil, &CursorError{CursorForeign, "it belongs to another search; send it with the query, tenant and conditions it came from"}
	}
	r := wireReader{b: b[1+searchHash:]}
	c := newCursor(shards)
	c.order = o
	if r.bool() {
		c.after = r.position()
		if o == OrderCost {
			c.after.cost = r.varint()
		}
	}
	for i := range shards {
		c.bounds[i], c.since[i] = r.uvarint(), r.uvarint()
	}
	if r.end() != nil {
		return nil, &CursorError{CursorStale, "it does not fit this region; start the search again"}
	}
	return c, nil
}
