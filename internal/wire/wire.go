// Package wire reads and writes the flat binary layouts of commands, results and rows:
// bytes, canonical varints, and length-prefixed text. A Reader accepts exactly what the
// Append functions write, and never allocates more than its input.
package wire

import (
	"encoding/binary"
	"errors"
)

// ErrMalformed means that bytes are not what an Append function wrote.
var ErrMalformed = errors.New("wire: malformed bytes")

// AppendString appends s with its length.
func AppendString[T ~string | ~[]byte](b []byte, s T) []byte {
	b = binary.AppendUvarint(b, uint64(len(s)))
	return append(b, s...)
}

// Reader takes fields off the front of a buffer. After a malformed field every further one
// is zero, so that callers check once, with Done.
type Reader struct {
	rest []byte
	bad  bool
	text string // what was left at the first Text; rest ends where it ends
}

// NewReader reads b.
func NewReader(b []byte) *Reader { return &Reader{rest: b} }

// Byte takes one byte that is at most max.
func (r *Reader) Byte(max byte) byte {
	if len(r.rest) == 0 || r.rest[0] > max {
		r.Fail()
		return 0
	}
	c := r.rest[0]
	r.rest = r.rest[1:]
	return c
}

// Uvarint takes a varint that is at most max and no longer than it must be.
func (r *Reader) Uvarint(max uint64) uint64 {
	v, n := binary.Uvarint(r.rest)
	if n <= 0 || v > max || n > 1 && r.rest[n-1] == 0 {
		r.Fail()
		return 0
	}
	r.rest = r.rest[n:]
	return v
}

// Bytes takes length-prefixed bytes, at most max of them; they alias the buffer.
func (r *Reader) Bytes(max int) []byte {
	n := r.Uvarint(uint64(max))
	if n > uint64(len(r.rest)) {
		r.Fail()
		return nil
	}
	v := r.rest[:n:n]
	r.rest = r.rest[n:]
	return v
}

// String is Bytes as text of its own.
func (r *Reader) String(max int) string { return string(r.Bytes(max)) }

// Text is String, but all texts of a buffer share one copy of it: cheaper where there are many, and
// none should outlive the others for long.
func (r *Reader) Text(max int) string {
	if r.text == "" {
		r.text = string(r.rest)
	}
	v := r.Bytes(max)
	end := len(r.text) - len(r.rest)
	return r.text[end-len(v) : end]
}

// Fixed takes exactly n bytes; they alias the buffer.
func (r *Reader) Fixed(n int) []byte {
	if n > len(r.rest) {
		r.Fail()
		return make([]byte, n)
	}
	v := r.rest[:n:n]
	r.rest = r.rest[n:]
	return v
}

// Count takes the number of elements that follow, each of at least one byte, at most max.
func (r *Reader) Count(max int) int {
	n := r.Uvarint(uint64(max))
	if n > uint64(len(r.rest)) {
		r.Fail()
		return 0
	}
	return int(n)
}

// Rest takes everything that is left; it aliases the buffer.
func (r *Reader) Rest() []byte {
	v := r.rest
	r.rest = nil
	return v
}

// More tells whether something is left to take, for fields that are left out at the end.
func (r *Reader) More() bool { return len(r.rest) > 0 }

// Failed tells whether a field was malformed so far; loops over many elements ask it.
func (r *Reader) Failed() bool { return r.bad }

// Done returns ErrMalformed when a field was malformed or bytes are left over.
func (r *Reader) Done() error {
	if r.bad || len(r.rest) != 0 {
		return ErrMalformed
	}
	return nil
}

// Fail marks the buffer as malformed, for rules that span several fields.
func (r *Reader) Fail() { r.bad, r.rest = true, nil }
