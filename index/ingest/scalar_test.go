package ingest

import (
	"fmt"
	"math/big"
	"testing"

	"pgregory.net/rapid"
)

func TestParseScaled(t *testing.T) {
	for _, c := range []struct {
		text  string
		scale int
		want  string
	}{
		{"0", 6, "0"},
		{"1", 6, "1000000"},
		{"-1.5", 6, "-1500000"},
		{"0.000001", 6, "1"},
		{"0.1", 6, "100000"},
		{"1.2300000000", 6, "1230000"},
		{"1e-6", 6, "1"},
		{"12E+3", 0, "12000"},
		{"0.5e1", 0, "5"},
		{"9223372036854.775807", 6, "9223372036854775807"},
		{"-9223372036854.775808", 6, "-9223372036854775808"},
		{"9223372036854.775808", 6, "refused"},
		{"0.0000001", 6, "refused"},
		{"1.5", 0, "refused"},
		{"1e41", 0, "refused"},
		{"1e40", 0, "refused"},
		{"", 0, "refused"},
		{"-", 0, "refused"},
		{".5", 6, "refused"},
		{"5.", 6, "refused"},
		{"1.2.3", 6, "refused"},
		{"--1", 6, "refused"},
		{"1.-2", 6, "refused"},
		{"+1", 6, "refused"},
		{" 1", 6, "refused"},
		{"1,5", 6, "refused"},
		{"0x10", 6, "refused"},
		{"1_000", 6, "refused"},
		{"NaN", 6, "refused"},
	} {
		n, ok := parseScaled(c.text, c.scale)
		got := fmt.Sprint(n)
		if !ok {
			got = "refused"
		}
		if got != c.want {
			t.Errorf("%q in units of 10^-%d is %s, want %s", c.text, c.scale, got, c.want)
		}
	}
}

// Whatever is accepted is exact: big.Rat reads the same number.
func FuzzParseScaled(f *testing.F) {
	for _, text := range []string{"1.5", "-0.000001", "12e3", "1e-6", "9223372036854775807"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		n, ok := parseScaled(text, 6)
		if !ok {
			return
		}
		want, valid := new(big.Rat).SetString(text)
		if !valid || new(big.Rat).SetFrac(big.NewInt(n), big.NewInt(1_000_000)).Cmp(want) != 0 {
			t.Fatalf("%q is read as %d millionths", text, n)
		}
	})
}

func TestMoneyOfEveryAmountIsExact(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		micros := rapid.Int64().Draw(t, "micros")
		text := new(big.Rat).SetFrac(big.NewInt(micros), big.NewInt(1_000_000)).FloatString(6)
		if got, ok := parseScaled(text, 6); !ok || got != micros {
			t.Fatalf("%s is read as %d, %v", text, got, ok)
		}
	})
}
