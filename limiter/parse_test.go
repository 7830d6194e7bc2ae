package limiter

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/maestro-conductor/maestro/internal/script"
)

func TestParseLimits(t *testing.T) {
	script.Run(t, "testdata/yaml/*.txt", func(*testing.T) func([]string, string) string {
		return func(_ []string, input string) string {
			limits, err := ParseLimits([]byte(input))
			if err != nil {
				return err.Error()
			}
			out := fmt.Sprintf("%d limits", len(limits))
			for _, l := range limits {
				out += fmt.Sprintf("\n%s: %s %s", l.ID, l.Scope, l.Selector)
				if l.hasBucket() {
					out += fmt.Sprintf(" %s burst %d", l.TokenBucket.Rate, l.TokenBucket.Burst)
				}
				if l.hasWindow() {
					out += fmt.Sprintf(" %d in %s", l.Window.Limit, l.Window.Length)
				}
				if l.hasCalendar() {
					out += fmt.Sprintf(" %+v", l.Calendar)
				}
				if l.fields()&^fieldOnFailure >= fieldEnforcement {
					out += fmt.Sprintf(" enforcement %q canary %d oversize %q access %q overrides %q expires %d", l.Enforcement, l.Canary, l.Oversize, l.Access, l.Overrides, l.Expires)
				}
				if l.OnFailure != "" {
					out += " on failure " + l.OnFailure
				}
			}
			return out
		}
	})
}

func TestParseRefusesHugeFiles(t *testing.T) {
	_, err := ParseLimits([]byte(strings.Repeat("#", FileBytesMax+1)))
	if !errors.Is(err, ErrInvalid) {
		t.Errorf("error %v, want ErrInvalid", err)
	}
}

func TestValidateReportsEverything(t *testing.T) {
	err := Validate([]Limit{
		limit("a", ScopeTenant, "acme", "1/s", 1),
		limit("a", ScopeKey, "acme/"+strings.Repeat("x", 300), "1/s", 1),
		limit("b", "global", "acme", "100", 0),
		limit("c", ScopeKey, "acme/\xff", "1/s", 1),
	})
	if !errors.Is(err, ErrInvalid) {
		t.Fatalf("error %v, want ErrInvalid", err)
	}
	const want = `limits[1].selector: must be at most 256 bytes
limits[1].id: "a" is the id of limits[0] already
limits[2].selector: must be * or left out, because the scope is global: such a limit counts the requests of all tenants
limits[2].tokenBucket.rate: must be TOKENS/PERIOD such as "100/s", "6/m" or "1000/30s", with whole numbers and the units ms, s, m, h, d
limits[3].selector: must be valid UTF-8`
	if err.Error() != want {
		t.Errorf("got:\n%v\nwant:\n%s", err, want)
	}
	var first *InvalidError
	if !errors.As(err, &first) || first.Field != "limits[1].selector" {
		t.Errorf("first error %+v, want the one of limits[1].selector", first)
	}
	if n := strings.Count(Validate(make([]Limit, 1000)).Error(), "\n"); n != problemsMax {
		t.Errorf("%d lines about a thousand bad limits, want %d and one that counts the rest", n+1, problemsMax)
	}
	if err := Validate(nil); err != nil {
		t.Errorf("no limits: %v", err)
	}
}

func TestRatesAreInLowestTerms(t *testing.T) {
	for text, want := range map[string]rate{
		"100/s":          {refill: 1, unit: 10_000},
		"6/m":            {refill: 1, unit: 10_000_000},
		"60/10m":         {refill: 1, unit: 10_000_000},
		"1000/30s":       {refill: 1, unit: 30_000},
		"3/ms":           {refill: 3, unit: 1000},
		"2000000/s":      {refill: 2, unit: 1},
		"4294967295/ms":  {refill: 858993459, unit: 200},
		"7/366d":         {refill: 7, unit: 366 * 86_400_000_000},
		"1/24h":          {refill: 1, unit: 86_400_000_000},
		"999983/999983s": {refill: 1, unit: 1_000_000},
	} {
		if got, err := parseRate(text); err != nil || got != want {
			t.Errorf("%s: %+v, %v; want %+v", text, got, err, want)
		}
	}
}

// Whatever ParseLimits accepts, Validate accepts, and the other way round for errors: they
// say where.
func FuzzParseLimits(f *testing.F) {
	f.Add([]byte("limits:\n  - {id: a, scope: tenant, selector: a, tokenBucket: {rate: 1/s, burst: 1}}\n"))
	f.Add([]byte("limits: [{id: a}]\n---\n"))
	f.Add([]byte("limits: &a [*a]"))
	f.Add([]byte("? [x]\n: y\n<<: {}\n"))
	f.Fuzz(func(t *testing.T, file []byte) {
		limits, err := ParseLimits(file)
		if err != nil {
			if !errors.Is(err, ErrInvalid) {
				t.Fatalf("error %v is not ErrInvalid", err)
			}
			return
		}
		if err := Validate(limits); err != nil {
			t.Fatalf("accepted limits are invalid: %v", err)
		}
	})
}
