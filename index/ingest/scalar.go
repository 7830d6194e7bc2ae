package ingest

import (
	"math/big"
	"strconv"
	"strings"
	"time"

	"github.com/maestro-conductor/maestro/index"
)

// Layouts of times that are numbers, beside the layouts of package time.
const (
	layoutUnix      = "unix"
	layoutUnixMilli = "unix_ms"
)

// parseTime reads a time in a layout of package time, or a number of seconds (which may have
// decimals) or milliseconds since 1970 UTC. A layout without zone is UTC.
func parseTime(field string, v *value, layout string) (time.Time, *index.DocumentError) {
	text, ok := v.scalar()
	if !ok {
		return time.Time{}, refusal(ReasonTimeMalformed, field, "expected a time, this is %s", v.kind)
	}
	var t time.Time
	var err error
	switch layout {
	case layoutUnix:
		t, ok = unixTime(text, 9)
	case layoutUnixMilli:
		t, ok = unixTime(text, 6)
	default:
		t, err = time.Parse(layout, text)
		ok = err == nil
	}
	if !ok {
		return time.Time{}, refusal(ReasonTimeMalformed, field, "%q is not a time in the layout %s", shorten(text), layoutName(layout))
	}
	return t.UTC(), nil
}

func layoutName(layout string) string {
	switch layout {
	case time.RFC3339:
		return "RFC 3339, such as 2026-01-02T15:04:05Z"
	case layoutUnix:
		return "unix (seconds since 1970)"
	case layoutUnixMilli:
		return "unix_ms (milliseconds since 1970)"
	}
	return strconv.Quote(layout)
}

func unixTime(text string, scale int) (time.Time, bool) {
	ns, ok := parseScaled(text, scale)
	return time.Unix(0, ns), ok
}

// nanoseconds converts a time for the index. What an int64 of nanoseconds cannot hold is
// refused here; the exact range is checked with the whole document.
func nanoseconds(field string, t time.Time) (int64, *index.DocumentError) {
	if year := t.Year(); year < 1970 || year > 2261 {
		return 0, refusal(index.ReasonTimeOutOfRange, field, "the year %d is not between 1970 and 2261", year)
	}
	return t.UnixNano(), nil
}

// parseScaled reads a decimal number, with or without exponent, as an exact integer of
// 10^-scale units. It reports false when the text is no such number, has more digits than
// the unit holds, or does not fit.
func parseScaled(text string, scale int) (int64, bool) {
	mantissa, exponent := text, 0
	if at := strings.IndexAny(text, "eE"); at >= 0 {
		var err error
		if exponent, err = strconv.Atoi(text[at+1:]); err != nil || exponent > 40 || exponent < -40 {
			return 0, false
		}
		mantissa = text[:at]
	}
	whole, fraction, _ := strings.Cut(mantissa, ".")
	digits := strings.TrimRight(fraction, "0")
	if len(mantissa) > 60 || !isInteger(whole) || strings.Trim(fraction, "0123456789") != "" || strings.HasSuffix(mantissa, ".") {
		return 0, false
	}
	n, ok := new(big.Int).SetString(whole+digits, 10)
	if !ok {
		return 0, false
	}
	shift := scale + exponent - len(digits)
	power := new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(max(shift, -shift))), nil)
	if shift >= 0 {
		n.Mul(n, power)
	} else if _, rest := n.QuoRem(n, power, new(big.Int)); rest.Sign() != 0 {
		return 0, false
	}
	return n.Int64(), n.IsInt64()
}

// isInteger accepts an optional minus and at least one digit.
func isInteger(s string) bool {
	s = strings.TrimPrefix(s, "-")
	return s != "" && strings.Trim(s, "0123456789") == ""
}

// textFields are the names of the document's plain text fields.
var textFields = []string{"id", "kind", "tenant", "region", "execution", "task", "pack", "rule", "decision", "reason", "runner"}

// textField returns where a plain text field is kept, nil for another name.
func textField(d *index.Document, name string) *string {
	switch name {
	case "id":
		return &d.ID
	case "kind":
		return &d.Kind
	case "tenant":
		return &d.Tenant
	case "region":
		return &d.Region
	case "execution":
		return &d.Execution
	case "task":
		return &d.Task
	case "pack":
		return &d.Pack
	case "rule":
		return &d.Rule
	case "decision":
		return &d.Decision
	case "reason":
		return &d.Reason
	case "runner":
		return &d.Runner
	}
	return nil
}
