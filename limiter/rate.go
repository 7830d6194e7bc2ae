package limiter

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// PeriodMax bounds the period of a rate.
const PeriodMax = 366 * 24 * time.Hour

// rateBytesMax holds every rate that parses: two numbers of ten digits, a slash and a unit.
const rateBytesMax = 24

// RefillMax bounds how long an empty bucket takes to fill up. It keeps every retry time
// within the 32 bits of RetryAfterMs.
const RefillMax = 49 * 24 * time.Hour

// rate is a refill speed in lowest terms: one token is unit units, and refill units flow
// back in every microsecond.
type rate struct{ refill, unit uint64 }

var rateUnits = []struct {
	name   string
	micros uint64
}{
	{"ms", 1_000},
	{"s", 1_000_000},
	{"m", 60_000_000},
	{"h", 3_600_000_000},
	{"d", 86_400_000_000},
}

var errRateForm = errors.New(`must be TOKENS/PERIOD such as "100/s", "6/m" or "1000/30s", with whole numbers and the units ms, s, m, h, d`)

// parseRate reads TOKENS/PERIOD.
func parseRate(s string) (rate, error) {
	count, period, ok := strings.Cut(s, "/")
	if !ok {
		return rate{}, errRateForm
	}
	tokens, err := parseCount("number of tokens", count)
	if err != nil {
		return rate{}, err
	}
	micros, err := parsePeriod(period)
	if err != nil {
		return rate{}, err
	}
	g := gcd(tokens, micros)
	return rate{refill: tokens / g, unit: micros / g}, nil
}

func parsePeriod(s string) (micros uint64, err error) {
	digits := strings.TrimRight(s, "abcdefghijklmnopqrstuvwxyz")
	times := uint64(1)
	if digits != "" {
		if times, err = parseCount("length of the period", digits); err != nil {
			return 0, err
		}
	}
	for _, u := range rateUnits {
		if s[len(digits):] != u.name {
			continue
		}
		if times > uint64(PeriodMax.Microseconds())/u.micros {
			return 0, fmt.Errorf("the period must be at most %d days", PeriodMax/(24*time.Hour))
		}
		return times * u.micros, nil
	}
	return 0, errRateForm
}

// parseCount reads a whole number from 1 to the largest 32-bit one, in plain decimal digits.
func parseCount(what, s string) (uint64, error) {
	if s == "" || strings.Trim(s, "0123456789") != "" {
		return 0, errRateForm
	}
	n, err := strconv.ParseUint(s, 10, 32)
	switch {
	case err != nil:
		return 0, fmt.Errorf("the %s %s is too large: the most is 4294967295", what, s)
	case n == 0:
		return 0, fmt.Errorf("the %s must be at least 1", what)
	case s[0] == '0':
		return 0, fmt.Errorf("the %s %s must not begin with 0", what, s)
	}
	return n, nil
}

func gcd(a, b uint64) uint64 {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}
