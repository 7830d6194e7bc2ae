package segment

import (
	"testing"

	"pgregory.net/rapid"
)

// genInts draws columns of every shape that documents have.
func genInts(rt *rapid.T) []uint64 {
	n := rapid.IntRange(1, 600).Draw(rt, "n")
	values := make([]uint64, n)
	shape := rapid.IntRange(0, 5).Draw(rt, "shape")
	step := rapid.SampledFrom([]uint64{1, 7, 1000, 1e6, 1 << 40}).Draw(rt, "step")
	for i := range values {
		switch draw := rapid.Uint64().Draw(rt, "v"); shape {
		case 0: // one value
			values[i] = step
		case 1: // few
			values[i] = draw % 5 * step
		case 2: // a line with noise
			values[i] = uint64(i)*step + draw%step
		case 3: // many zeros
			if draw%4 == 0 {
				values[i] = draw >> 40
			}
		case 4: // a falling line
			values[i] = uint64(n-i) * step
		default:
			values[i] = draw
		}
	}
	return values
}

func TestIntsHoldTheirValues(t *testing.T) {
	var w intsWriter
	forms := map[byte]bool{}
	rapid.Check(t, func(rt *rapid.T) {
		values := genInts(rt)
		b := w.append([]byte("before"), values)
		c := cursor{b: b[len("before"):]}
		col := c.ints(len(values))
		if c.bad || len(c.b) > 0 {
			rt.Fatalf("%v: bad %v, %d bytes left", values, c.bad, len(c.b))
		}
		for i, v := range values {
			if got := col.at(i); got != v {
				rt.Fatalf("value %d of %v in form %d is %d", i, values, col.form, got)
			}
		}
		forms[col.form] = true
		if col.nulls != nil {
			forms[intsNullable] = true
		}
	})
	if len(forms) != intsNullable+1 {
		t.Errorf("forms that were chosen: %v, want all", forms)
	}
}
