package wire_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"

	"github.com/maestro-conductor/maestro/internal/wire"
)

func TestReaderTakesBackWhatWasAppended(t *testing.T) {
	b := []byte{7}
	b = binary.AppendUvarint(b, 300)
	b = wire.AppendString(b, "acme")
	b = wire.AppendString(b, "")
	b = wire.AppendString(b, "ana")
	b = append(b, 1, 2, 3)
	r := wire.NewReader(b)
	if c := r.Byte(7); c != 7 {
		t.Errorf("byte %d, want 7", c)
	}
	if v := r.Uvarint(300); v != 300 {
		t.Errorf("varint %d, want 300", v)
	}
	if s := r.String(4); s != "acme" {
		t.Errorf("text %q, want acme", s)
	}
	if s := r.Text(4); s != "" {
		t.Errorf("text %q, want none", s)
	}
	if s := r.Text(4); s != "ana" {
		t.Errorf("text %q, want ana", s)
	}
	if v := r.Fixed(3); !bytes.Equal(v, []byte{1, 2, 3}) {
		t.Errorf("fixed %v, want 1 2 3", v)
	}
	if err := r.Done(); err != nil {
		t.Errorf("done: %v", err)
	}
}

func TestReaderRefuses(t *testing.T) {
	for name, read := range map[string]func(r *wire.Reader){
		"a byte above its maximum":        func(r *wire.Reader) { r.Byte(1) },
		"a varint above its maximum":      func(r *wire.Reader) { r.Uvarint(1) },
		"text longer than its maximum":    func(r *wire.Reader) { r.String(1) },
		"shared text above its maximum":   func(r *wire.Reader) { r.Text(1) },
		"text longer than what is left":   func(r *wire.Reader) { r.String(100) },
		"more elements than bytes left":   func(r *wire.Reader) { r.Count(100) },
		"more fixed bytes than are left":  func(r *wire.Reader) { r.Fixed(9) },
		"bytes that nobody asked for":     func(r *wire.Reader) { r.Byte(9) },
		"a varint with needless zeros":    func(r *wire.Reader) { *r = *wire.NewReader([]byte{0x80, 0}); r.Uvarint(9) },
		"anything after a malformed part": func(r *wire.Reader) { r.Byte(1); r.Rest() },
	} {
		r := wire.NewReader([]byte{2, 'a'})
		read(r)
		if err := r.Done(); !errors.Is(err, wire.ErrMalformed) {
			t.Errorf("%s: error %v, want ErrMalformed", name, err)
		}
	}
}
