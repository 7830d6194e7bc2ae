// Package ratelimitheader writes what a decision says about limits as HTTP headers: RateLimit and
// RateLimit-Policy of draft-ietf-httpapi-ratelimit-headers-10, and Retry-After of RFC 9110, section
// 10.2.3.
//
//	RateLimit-Policy: "acme-api";q=100;w=60
//	RateLimit: "acme-api";r=50;t=30
//	Retry-After: 30
package ratelimitheader

import (
	"cmp"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/maestro-conductor/maestro/limiter"
)

// Names of the headers, in lower case as HTTP/2 has them.
const (
	Limit      = "ratelimit"
	Policy     = "ratelimit-policy"
	RetryAfter = "retry-after"
)

// policiesMax bounds the policies of an answer, the scarcest first: headers of many kilobytes
// break proxies.
const policiesMax = 8

// Quota is one policy with what is left of it.
type Quota struct {
	// Name is the limit's id; where several parts of a limit count, with a slash and the part's kind.
	Name string
	// Quota is the most that can be taken at once, and Remaining what is left.
	Quota, Remaining uint32
	// Window is the time in which Quota comes back; 0 when not known.
	Window time.Duration
	// RetryAfterMs is when the denied request would pass, in milliseconds; 0 for one that passed.
	RetryAfterMs uint32
}

// Of are the quotas of decisions about one request, the scarcest first and at most eight. Limits
// that only watch are no business of the caller's, and those that are no quantity have none. limit
// finds a limit by its id; where it does not, Window is 0.
func Of(limit func(id string) (limiter.Limit, bool), decisions ...limiter.Decision) []Quota {
	least := map[string]Quota{}
	for _, d := range decisions {
		for _, l := range d.Levels {
			if l.Shadow || l.Kind == limiter.KindUnlimited || l.Kind == limiter.KindBanned {
				continue
			}
			q := Quota{Name: l.LimitID, Quota: l.Limit, Remaining: l.Remaining}
			if several(d.Levels, l.LimitID) {
				q.Name += "/" + l.Kind
			}
			if l.LimitID == d.LimitID && l.Kind == d.Kind {
				q.RetryAfterMs = d.RetryAfterMs
			}
			if def, ok := limit(l.LimitID); ok {
				q.Window = window(def, l)
			}
			if other, ok := least[q.Name]; ok {
				// Counters of several subjects under one limit: the scarcer one is what matters.
				q.Remaining, q.RetryAfterMs = min(q.Remaining, other.Remaining), max(q.RetryAfterMs, other.RetryAfterMs)
			}
			least[q.Name] = q
		}
	}
	out := make([]Quota, 0, len(least))
	for _, q := range least {
		out = append(out, q)
	}
	slices.SortFunc(out, func(a, b Quota) int {
		return cmp.Or(cmp.Compare(b.RetryAfterMs, a.RetryAfterMs), cmp.Compare(a.Remaining, b.Remaining), strings.Compare(a.Name, b.Name))
	})
	return out[:min(len(out), policiesMax)]
}

// several tells whether more than one part of a limit counts.
func several(levels []limiter.Level, id string) bool {
	n := 0
	for _, l := range levels {
		if l.LimitID == id {
			n++
		}
	}
	return n > 1
}

// window is the time in which all of a level's limit comes back: for a token bucket, the time to
// fill it.
func window(l limiter.Limit, level limiter.Level) time.Duration {
	tokens, period := l.Pace(level.Kind)
	if level.Kind != limiter.KindTokenBucket || tokens == 0 {
		return period
	}
	fill := math.Ceil(float64(level.Limit) * period.Seconds() / float64(tokens))
	return time.Duration(fill) * time.Second
}

// Policies is the value of RateLimit-Policy; empty without quotas.
func Policies(quotas []Quota) string {
	return list(quotas, func(b *strings.Builder, q Quota) {
		parameter(b, 'q', uint64(q.Quota))
		if q.Window > 0 {
			parameter(b, 'w', seconds(q.Window))
		}
	})
}

// Limits is the value of RateLimit; empty without quotas.
func Limits(quotas []Quota) string {
	return list(quotas, func(b *strings.Builder, q Quota) {
		parameter(b, 'r', uint64(q.Remaining))
		if q.RetryAfterMs > 0 {
			parameter(b, 't', seconds(time.Duration(q.RetryAfterMs)*time.Millisecond))
		}
	})
}

// RetryIn is the value of Retry-After, in whole seconds, rounded up: the header knows no smaller ones.
func RetryIn(retryAfterMs uint32) string {
	return strconv.FormatUint(seconds(time.Duration(retryAfterMs)*time.Millisecond), 10)
}

func seconds(d time.Duration) uint64 { return uint64((d + time.Second - 1) / time.Second) }

// list is a list of structured fields (RFC 9651, section 3.1). Names hold nothing that a string of
// structured fields escapes.
func list(quotas []Quota, parameters func(*strings.Builder, Quota)) string {
	var b strings.Builder
	for i, q := range quotas {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteByte('"')
		b.WriteString(q.Name)
		b.WriteByte('"')
		parameters(&b, q)
	}
	return b.String()
}

func parameter(b *strings.Builder, name byte, value uint64) {
	b.WriteByte(';')
	b.WriteByte(name)
	b.WriteByte('=')
	b.WriteString(strconv.FormatUint(value, 10))
}
