package limiter

import (
	"math"
	"strings"
	"testing"
)

// Odd input has the outcome that docs/limits.md names in "Odd input"; the many ways of malformed files are in
// testdata/yaml.
func TestOddInput(t *testing.T) {
	bucket := limit("a", ScopeTenant, "*", "1/h", 5)
	long := strings.Repeat("x", 10<<10)
	for _, c := range []struct {
		name   string
		limits []Limit
		r      Request
		want   string // "allow", the reason of a denial, or words of an error
		levels int
	}{
		{"cost 0 takes nothing", []Limit{bucket}, Request{Tenant: "acme"}, "allow", 1},
		{"a cost above the burst", []Limit{bucket}, Request{Tenant: "acme", Cost: 6}, ReasonCostExceedsLimit, 1},
		{"the largest cost", []Limit{bucket}, Request{Tenant: "acme", Cost: math.MaxUint32}, ReasonCostExceedsLimit, 1},
		{"a tenant that nobody has used", []Limit{limit("b", ScopeTenant, "other", "1/h", 5)}, Request{Tenant: "acme", Cost: 1}, "allow", 0},
		{"an empty token", []Limit{limit("a", ScopeToken, "*/*", "1/h", 5)}, Request{Tenant: "acme", Cost: 1}, "allow", 1},
		{"no tenant", []Limit{bucket}, Request{Cost: 1}, "tenant: must be", 0},
		{"ids of 10 KiB", []Limit{bucket}, Request{Tenant: "acme", Token: long, Cost: 1}, "token: must be at most 256 bytes, not 10240", 0},
		{"a request id of 10 KiB", []Limit{bucket}, Request{Tenant: "acme", RequestID: long, Cost: 1}, "request_id: must be at most 128 bytes", 0},
		{"limits that overlap: all count", []Limit{bucket, limit("b", ScopeTenant, "acme", "1/h", 1)}, Request{Tenant: "acme", Cost: 2}, ReasonCostExceedsLimit, 2},
		{"a burst of 0", []Limit{limit("a", ScopeTenant, "*", "1/h", 0)}, Request{Tenant: "acme", Cost: 1}, ReasonCostExceedsLimit, 1},
		{"a burst of 0, and a cost of 0", []Limit{limit("a", ScopeTenant, "*", "1/h", 0)}, Request{Tenant: "acme"}, "allow", 1},
		{"the largest limits", []Limit{limit("a", ScopeTenant, "*", "4294967295/s", math.MaxUint32), windowed("b", "*", math.MaxUint32, "31d")}, Request{Tenant: "acme", Cost: math.MaxUint32}, "allow", 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := drive(t, 8)
			d.set(c.limits...)
			got, err := d.service().Check(t.Context(), c.r)
			said := got.Reason
			switch {
			case err != nil:
				said = err.Error()
			case got.Allow:
				said = "allow"
			}
			if !strings.Contains(said, c.want) || len(got.Levels) != c.levels {
				t.Errorf("%s with %d levels, want %s with %d", said, len(got.Levels), c.want, c.levels)
			}
			if got.Reason == ReasonCostExceedsLimit && got.RetryAfterMs != 0 {
				t.Errorf("time to retry what can never pass: %d ms", got.RetryAfterMs)
			}
		})
	}
	for name, l := range map[string]Limit{
		"calendar.timeZone":  {ID: "a", Scope: ScopeTenant, Selector: "*", Calendar: Calendar{Limit: 1, Period: PeriodDay, TimeZone: "Mars/Olympus"}},
		"tokenBucket.rate":   limit("a", ScopeTenant, "*", "NaN/s", 1),
		"tokenBucket: at":    limit("a", ScopeTenant, "*", "1/d", math.MaxUint32),
		"concurrency.limit:": {ID: "a", Scope: ScopeTenant, Selector: "*", Concurrency: Concurrency{Limit: math.MaxUint32, TTL: "1m"}},
	} {
		if err := Validate([]Limit{l}); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%+v: %v", l, err)
		}
	}
}
