package limiter

import (
	"math"
	"math/big"
	"regexp"
	"sort"
	"strconv"
	"strings"
	"time"
)

// oracle decides the same checks as the machine with fractions instead of scaled integers,
// and by looking at every limit and every counter each time.
type oracle struct {
	limits   []Limit
	counters map[string]*oracleCounter
	now      int64
}

type oracleCounter struct {
	limit string
	level *big.Rat
	t     int64
}

func newOracle() *oracle { return &oracle{counters: map[string]*oracleCounter{}} }

// perMicro is the rate in tokens per microsecond.
func perMicro(l Limit) *big.Rat {
	tokens, period, _ := strings.Cut(l.TokenBucket.Rate, "/")
	if period[0] < '0' || period[0] > '9' {
		period = "1" + period
	}
	if days, ok := strings.CutSuffix(period, "d"); ok {
		n, _ := strconv.Atoi(days)
		period = strconv.Itoa(24*n) + "h"
	}
	d, err := time.ParseDuration(period)
	if err != nil {
		panic(err)
	}
	n, _ := new(big.Int).SetString(tokens, 10)
	return new(big.Rat).SetFrac(n, big.NewInt(d.Microseconds()))
}

func burstOf(l Limit) *big.Rat { return new(big.Rat).SetInt64(int64(l.TokenBucket.Burst)) }

func (o *oracle) counter(l Limit, r Request) *oracleCounter {
	key := l.ID + "\x00" + r.Tenant
	switch l.Scope {
	case ScopeToken:
		key += "\x00" + r.Token
	case ScopeKey:
		key += "\x00" + r.Key
	}
	c := o.counters[key]
	if c == nil {
		c = &oracleCounter{limit: l.ID, level: burstOf(l), t: o.now}
		o.counters[key] = c
	}
	c.settle(l, o.now)
	return c
}

func (c *oracleCounter) settle(l Limit, now int64) {
	gained := new(big.Rat).Mul(perMicro(l), new(big.Rat).SetInt64(now-c.t))
	c.level.Add(c.level, gained)
	if b := burstOf(l); c.level.Cmp(b) > 0 {
		c.level.Set(b)
	}
	c.t = now
}

func (o *oracle) matching(r Request) []Limit {
	var out []Limit
	for _, scope := range []string{ScopeTenant, ScopeToken, ScopeKey} {
		begin := len(out)
		for _, l := range o.limits {
			tenant, pattern, ok := strings.Cut(l.Selector, "/")
			if !ok {
				pattern = "*"
			}
			subject := map[string]string{ScopeToken: r.Token, ScopeKey: r.Key}[scope]
			if l.Scope == scope && (tenant == "*" || tenant == r.Tenant) && naiveMatch(pattern, subject) {
				out = append(out, l)
			}
		}
		sort.Slice(out[begin:], func(a, b int) bool { return out[begin+a].ID < out[begin+b].ID })
	}
	return out
}

func naiveMatch(pattern, s string) bool {
	quoted := strings.ReplaceAll(regexp.QuoteMeta(pattern), `\*`, `.*`)
	return regexp.MustCompile(`(?s)^` + quoted + `$`).MatchString(s)
}

// decide answers without debiting; slack is how much more the tightest level has than cost.
func (o *oracle) decide(now int64, r Request) (d Decision, slack *big.Rat) {
	o.now = now
	d.Allow = true
	cost := new(big.Rat).SetInt64(int64(r.Cost))
	var longest int64
	for _, l := range o.matching(r) {
		c := o.counter(l, r)
		room := new(big.Rat).Sub(c.level, cost)
		if slack == nil || room.Cmp(slack) < 0 {
			slack = room
		}
		if r.Cost > l.TokenBucket.Burst {
			return Decision{Reason: ReasonCostExceedsLimit, LimitID: l.ID}, room
		}
		if room.Sign() >= 0 {
			continue
		}
		// Whole microseconds of group time, the unit in which checks are stamped.
		micros := ceil(new(big.Rat).Quo(new(big.Rat).Neg(room), perMicro(l)))
		if micros > longest {
			longest = micros
			real := new(big.Rat).SetFrac64(micros*1000, 999)
			ms := ceil(real.Quo(real, big.NewRat(1000, 1)))
			d = Decision{Reason: ReasonLimited, LimitID: l.ID, RetryAfterMs: uint32(min(ms, math.MaxUint32))}
		}
	}
	return d, slack
}

// take debits what the machine allowed.
func (o *oracle) take(r Request) {
	for _, l := range o.matching(r) {
		c := o.counter(l, r)
		c.level.Sub(c.level, new(big.Rat).SetInt64(int64(r.Cost)))
	}
}

// set replaces all limits; what was used stays used.
func (o *oracle) set(now int64, limits []Limit) {
	o.now = now
	next := map[string]Limit{}
	for _, l := range limits {
		next[l.ID] = l
	}
	for _, old := range o.limits {
		l, stays := next[old.ID]
		for key, c := range o.counters {
			if c.limit != old.ID {
				continue
			}
			if !stays || l.Scope != old.Scope {
				delete(o.counters, key)
				continue
			}
			c.settle(old, now)
			c.level.Add(c.level, burstOf(l))
			c.level.Sub(c.level, burstOf(old))
		}
	}
	o.limits = limits
}

func ceil(r *big.Rat) int64 {
	n := new(big.Int).Add(r.Num(), new(big.Int).Sub(r.Denom(), big.NewInt(1)))
	return n.Div(n, r.Denom()).Int64()
}
