package limiter

import (
	"math"
	"math/bits"
)

// u128 is an unsigned 128-bit integer. A bucket of 2^32 tokens over a period of a year needs
// 77 bits, and rescaling one to another period 122, so nothing here overflows in practice;
// the operations saturate all the same, always on the side that admits less.
type u128 struct{ hi, lo uint64 }

var maxU128 = u128{math.MaxUint64, math.MaxUint64}

func mul64(a, b uint64) u128 {
	hi, lo := bits.Mul64(a, b)
	return u128{hi, lo}
}

func (a u128) isZero() bool { return a.hi == 0 && a.lo == 0 }

func (a u128) less(b u128) bool { return a.hi < b.hi || a.hi == b.hi && a.lo < b.lo }

// add saturates at the largest value.
func (a u128) add(b u128) u128 {
	lo, carry := bits.Add64(a.lo, b.lo, 0)
	hi, carry := bits.Add64(a.hi, b.hi, carry)
	if carry != 0 {
		return maxU128
	}
	return u128{hi, lo}
}

// sub stops at zero.
func (a u128) sub(b u128) u128 {
	lo, borrow := bits.Sub64(a.lo, b.lo, 0)
	hi, borrow := bits.Sub64(a.hi, b.hi, borrow)
	if borrow != 0 {
		return u128{}
	}
	return u128{hi, lo}
}

// mul saturates at the largest value.
func (a u128) mul(b uint64) u128 {
	over, mid := bits.Mul64(a.hi, b)
	hi, lo := bits.Mul64(a.lo, b)
	hi, carry := bits.Add64(hi, mid, 0)
	if over != 0 || carry != 0 {
		return maxU128
	}
	return u128{hi, lo}
}

// divFloor divides by b, which is not zero, and rounds down.
func (a u128) divFloor(b uint64) u128 {
	q, _ := a.divmod(b)
	return q
}

// divCeil divides by b, which is not zero, and rounds up.
func (a u128) divCeil(b uint64) u128 {
	q, r := a.divmod(b)
	if r != 0 {
		q = q.add(u128{0, 1})
	}
	return q
}

func (a u128) divmod(b uint64) (q u128, r uint64) {
	hi, r := a.hi/b, a.hi%b
	lo, r := bits.Div64(r, a.lo, b)
	return u128{hi, lo}, r
}

// clamp32 is the value, or the largest 32-bit one.
func (a u128) clamp32() uint32 {
	if a.hi != 0 || a.lo > math.MaxUint32 {
		return math.MaxUint32
	}
	return uint32(a.lo)
}
