package limiter

import (
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
)

// Bounds of what callers send.
const (
	// SubjectBytesMax bounds the token and the key of a request.
	SubjectBytesMax = 256
	// RequestIDBytesMax bounds a request id.
	RequestIDBytesMax = 128
	// SelectorBytesMax bounds a selector.
	SelectorBytesMax = 256

	nameBytesMax = 63
	problemsMax  = 20
)

// ErrInvalid is wrapped by every InvalidError.
var ErrInvalid = errors.New("limiter: invalid input")

// InvalidError is one thing wrong with what a caller sent.
type InvalidError struct {
	// Line counts from 1 in the file that was parsed; 0 when there is none.
	Line int
	// Field is a path such as limits[2].tokenBucket.rate.
	Field string
	// Message says what is wrong and what would be right.
	Message string
}

func (e *InvalidError) Error() string {
	if e.Line > 0 {
		return fmt.Sprintf("line %d: %s: %s", e.Line, e.Field, e.Message)
	}
	return e.Field + ": " + e.Message
}

// Is makes errors.Is(err, ErrInvalid) true.
func (e *InvalidError) Is(target error) bool { return target == ErrInvalid }

// Validate checks limits that came through the API. It returns nil, or what is wrong, up to
// 20 things, as joined *InvalidError.
func Validate(limits []Limit) error { return validate(limits, zoneProblems) }

// ValidateStored is Validate without what may differ between builds, such as the time zones that
// exist, for state machines.
func ValidateStored(limits []Limit) error { return validate(limits, nil) }

func validate(limits []Limit, more func(Limit) []problem) error {
	var errs []*InvalidError
	seen := make(map[string]int, len(limits))
	for i, l := range limits {
		problems := problemsOf(l)
		if more != nil {
			problems = append(problems, more(l)...)
		}
		for _, p := range problems {
			errs = append(errs, &InvalidError{Field: p.path(fmt.Sprintf("limits[%d]", i)), Message: p.message})
		}
		if first, ok := seen[l.ID]; ok {
			errs = append(errs, &InvalidError{
				Field:   fmt.Sprintf("limits[%d].id", i),
				Message: fmt.Sprintf("%q is the id of limits[%d] already", l.ID, first),
			})
		} else {
			seen[l.ID] = i
		}
	}
	return joinInvalid("limits", errs)
}

// joinInvalid joins what is wrong. Errors travel in headers, so their number is bounded.
func joinInvalid(field string, all []*InvalidError) error {
	errs := make([]error, 0, problemsMax+1)
	for i, e := range all {
		if i == problemsMax {
			errs = append(errs, &InvalidError{Field: field, Message: fmt.Sprintf("%d more problems follow; mend these first", len(all)-i)})
			break
		}
		errs = append(errs, e)
	}
	return errors.Join(errs...)
}

// ValidName tells whether s is a tenant or a limit id: [a-z0-9._-]{1,63}.
func ValidName(s string) bool {
	if s == "" || len(s) > nameBytesMax {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '.' && c != '_' && c != '-' {
			return false
		}
	}
	return true
}

// Owner is the tenant that the limit's selector names, * for every tenant, or plan:NAME.
func (l Limit) Owner() string {
	tenant, _, _ := strings.Cut(l.Selector, "/")
	return tenant
}

func (l Limit) hasBucket() bool { return l.TokenBucket.Rate != "" }

func (l Limit) hasCalendar() bool { return l.Calendar.Period != "" }

func (l Limit) hasWindow() bool { return l.Window.Length != "" }

func (l Limit) hasConcurrency() bool { return l.Concurrency.TTL != "" }

// counts tells whether a check has something to count.
func (l Limit) counts() bool { return l.hasBucket() || l.hasWindow() || l.hasCalendar() }

const nameRule = "must be 1 to 63 of the characters a-z 0-9 . _ -"

// problem is one thing wrong with a limit; field is relative to it, and empty for the limit as a
// whole.
type problem struct{ field, message string }

func (p problem) path(limit string) string {
	if p.field == "" {
		return limit
	}
	return limit + "." + p.field
}

func problemsOf(l Limit) []problem {
	var out []problem
	if !ValidName(l.ID) {
		out = append(out, problem{"id", nameRule})
	}
	switch l.Scope {
	case ScopeTenant, ScopeToken, ScopeKey:
	case ScopeGlobal:
		out = append(out, globalProblems(l)...)
	default:
		out = append(out, problem{"scope", "must be tenant, token, key or global"})
	}
	for _, m := range selectorProblems(l) {
		out = append(out, problem{"selector", m})
	}
	if l.fields()&(fieldBucket|fieldWindow|fieldCalendar|fieldConcurrency|fieldAccess) == 0 {
		out = append(out, problem{"", "must have a tokenBucket, a window, a calendar, a concurrency, or several of them; or access"})
	}
	out = append(out, bucketProblems(l)...)
	if l.Window != (Window{}) {
		if m := windowProblem(l.Window); m != "" {
			out = append(out, problem{"window.length", m})
		}
	}
	out = append(out, calendarProblems(l.Calendar)...)
	out = append(out, concurrencyProblems(l.Concurrency)...)
	return append(out, policyProblems(l)...)
}

// zoneProblems are what is wrong with a limit as far as this build knows. Replicas must not ask:
// builds differ in the zones they know.
func zoneProblems(l Limit) []problem {
	if !l.hasCalendar() || !validZoneName(l.Calendar.TimeZone) {
		return nil
	}
	if _, err := l.Calendar.zone(); err != nil {
		return []problem{{"calendar.timeZone", fmt.Sprintf("%q is no time zone that this build knows: it %s", l.Calendar.TimeZone, zoneRule)}}
	}
	return nil
}

func bucketProblems(l Limit) []problem {
	if l.TokenBucket == (TokenBucket{}) {
		return nil
	}
	r, err := parseRate(l.TokenBucket.Rate)
	switch {
	case err != nil:
		return []problem{{"tokenBucket.rate", err.Error()}}
	case refillTooLong(r, l.TokenBucket.Burst):
		return []problem{{"tokenBucket", fmt.Sprintf(
			"at this rate an empty bucket takes more than %d days to fill; raise the rate or lower the burst", RefillMax/(24*time.Hour))}}
	}
	return nil
}

func selectorProblems(l Limit) []string {
	if l.Scope == ScopeGlobal && l.Selector != anyTenant {
		return []string{"must be * or left out, because the scope is global: such a limit counts the requests of all tenants"}
	}
	if len(l.Selector) > SelectorBytesMax {
		return []string{fmt.Sprintf("must be at most %d bytes", SelectorBytesMax)}
	}
	if !utf8.ValidString(l.Selector) {
		return []string{"must be valid UTF-8"}
	}
	var out []string
	tenant, pattern, hasPattern := strings.Cut(l.Selector, "/")
	plan, isPlan := strings.CutPrefix(tenant, planPrefix)
	switch {
	case isPlan && plan == "":
		out = append(out, "must have the name of a plan after plan:")
	case isPlan && strings.Contains(plan, wildcard):
		out = append(out, "must name one plan, without wildcards; set a limit for each plan, or use * for every tenant")
	case isPlan && !ValidName(plan):
		out = append(out, "must have the name of a plan after plan:, 1 to 63 of a-z 0-9 . _ -")
	case !isPlan && tenant != anyTenant && !ValidName(tenant):
		out = append(out, "must begin with a tenant (1 to 63 of a-z 0-9 . _ -), with plan:NAME, or with * for every tenant")
	}
	switch {
	case hasPattern && l.Scope == ScopeTenant && isPlan:
		out = append(out, "must be plan:NAME alone, because the scope is tenant")
	case hasPattern && l.Scope == ScopeTenant:
		out = append(out, "must be a tenant alone, because the scope is tenant")
	case hasPattern && pattern == "":
		out = append(out, "must have a pattern after the slash; * matches everything")
	}
	return out
}

func refillTooLong(r rate, burst uint32) bool {
	us := mul64(uint64(burst), r.unit).divCeil(r.refill)
	return u128{0, uint64(RefillMax.Microseconds())}.less(us)
}
