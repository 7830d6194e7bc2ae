package segment

import (
	"encoding/binary"
	"math/bits"
)

// packPadding follows packed integers, so that each of them can be read with one load.
const packPadding = 8

// packedBytes is how long n packed integers of a width are.
func packedBytes(n int, width uint) int { return (n*int(width)+7)/8 + packPadding }

// appendPacked appends integers below 1<<width, least significant bits first.
func appendPacked(b []byte, width uint, values []uint64) []byte {
	var acc uint64
	var have uint
	for _, v := range values {
		acc |= v << have
		if have += width; have < 64 {
			continue
		}
		b = binary.LittleEndian.AppendUint64(b, acc)
		have -= 64
		acc = 0
		if have > 0 {
			acc = v >> (width - have)
		}
	}
	for ; have > 0; have -= min(have, 8) {
		b = append(b, byte(acc))
		acc >>= 8
	}
	return append(b, make([]byte, packPadding)...)
}

// unpack reads the i-th packed integer.
func unpack(b []byte, width uint, i int) uint64 {
	at := uint(i) * width
	v := binary.LittleEndian.Uint64(b[at/8:]) >> (at % 8)
	if width+at%8 > 64 {
		v |= uint64(b[at/8+8]) << (64 - at%8)
	}
	return v & (1<<width - 1)
}

func widthOf(most uint64) uint { return uint(bits.Len64(most)) }

// cursor reads a block from its beginning. After the first failure it returns zero values.
type cursor struct {
	b   []byte
	bad bool
	// checked spares a second look at every value of a block that was found well-formed.
	checked bool
}

func (c *cursor) take(n uint64) []byte {
	if c.bad || n > uint64(len(c.b)) {
		c.bad = true
		return nil
	}
	out := c.b[:n:n]
	c.b = c.b[n:]
	return out
}

func (c *cursor) byte() byte {
	if b := c.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (c *cursor) uvarint() uint64 {
	v, n := binary.Uvarint(c.b)
	if c.bad || n <= 0 {
		c.bad = true
		return 0
	}
	c.b = c.b[n:]
	return v
}

func (c *cursor) uint32() uint32 {
	if b := c.take(4); b != nil {
		return binary.LittleEndian.Uint32(b)
	}
	return 0
}

func (c *cursor) uint64() uint64 {
	if b := c.take(8); b != nil {
		return binary.LittleEndian.Uint64(b)
	}
	return 0
}

// count reads a number that may not exceed most.
func (c *cursor) count(most int) int {
	n := c.uvarint()
	if n > uint64(most) {
		c.bad = true
		return 0
	}
	return int(n)
}

// bytes reads bytes behind their length.
func (c *cursor) bytes() []byte { return c.take(c.uvarint()) }

// packed reads n packed integers behind their width.
func (c *cursor) packed(n int) (width uint, data []byte) {
	width = uint(c.byte())
	if width > 64 {
		c.bad = true
		return 0, nil
	}
	return width, c.take(uint64(packedBytes(n, width)))
}

func zigzag(v int64) uint64 { return uint64(v)<<1 ^ uint64(v>>63) }

func unzigzag(v uint64) int64 { return int64(v>>1) ^ -int64(v&1) }
