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
	plans    map[string]string // by tenant
	counters map[string]*oracleCounter
	now      int64
}

type oracleCounter struct {
	limit string
	level *big.Rat
	t     int64
	// taken is everything that ever passed.
	taken []passed
}

type passed struct{ at, cost int64 }

// slotOf is how the window of l cuts time: width of a slot in microseconds, and how many slots
// before the present one count.
func slotOf(l Limit) (width, before int64) {
	length := microsOf(l.Window.Length)
	if l.Window.Limit <= 64 {
		return 1, length
	}
	width = (length + 63) / 64
	return width, (length + width - 1) / width
}

// inWindow adds up what the window counts at a time.
func (c *oracleCounter) inWindow(l Limit, now int64) int64 {
	width, before := slotOf(l)
	sum := int64(0)
	for _, p := range c.taken {
		if p.at/width >= now/width-before {
			sum += p.cost
		}
	}
	return sum
}

// windowWait looks for the first moment at which cost fits.
func (c *oracleCounter) windowWait(l Limit, now, cost int64) int64 {
	fits := func(at int64) bool { return c.inWindow(l, at)+cost <= int64(l.Window.Limit) }
	if fits(now) {
		return 0
	}
	width, before := slotOf(l)
	best := int64(math.MaxInt64)
	for _, p := range c.taken { // room appears only when something leaves
		if leaves := (p.at/width + before + 1) * width; leaves > now && leaves < best && fits(leaves) {
			best = leaves
		}
	}
	return best - now
}

func newOracle() *oracle {
	return &oracle{counters: map[string]*oracleCounter{}, plans: map[string]string{}}
}

// move takes over a change of plans.
func (o *oracle) move(c Change) {
	for _, a := range c.Plans {
		o.plans[a.Tenant] = a.Plan
	}
	for _, tenant := range c.Leavers {
		delete(o.plans, tenant)
	}
}

// perMicro is the rate in tokens per microsecond.
func perMicro(l Limit) *big.Rat {
	tokens, period, _ := strings.Cut(l.TokenBucket.Rate, "/")
	n, _ := new(big.Int).SetString(tokens, 10)
	return new(big.Rat).SetFrac(n, big.NewInt(microsOf(period)))
}

func microsOf(period string) int64 {
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
	return d.Microseconds()
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
	if !l.hasBucket() {
		return
	}
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
			if l.Scope == scope && (tenant == "*" || tenant == r.Tenant || tenant == "plan:"+o.plans[r.Tenant]) && naiveMatch(pattern, subject) {
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
	never := false
	for _, l := range o.matching(r) {
		c := o.counter(l, r)
		room := new(big.Rat).Sub(c.level, cost)
		if slack == nil || room.Cmp(slack) < 0 {
			slack = room
		}
		// Whole microseconds of group time, the unit in which checks are stamped.
		deny := func(kind string, most uint32, micros int64) {
			switch {
			case never:
			case r.Cost > most:
				never = true
				d = Decision{Reason: ReasonCostExceedsLimit, LimitID: l.ID, Kind: kind}
			case micros > longest:
				longest = micros
				real := new(big.Rat).SetFrac64(micros*1000, 999)
				ms := ceil(real.Quo(real, big.NewRat(1000, 1)))
				d = Decision{Reason: ReasonLimited, LimitID: l.ID, Kind: kind, RetryAfterMs: uint32(min(ms, math.MaxUint32))}
			}
		}
		if l.hasBucket() {
			micros := int64(0)
			if room.Sign() < 0 {
				micros = ceil(new(big.Rat).Quo(new(big.Rat).Neg(room), perMicro(l)))
			}
			deny(KindTokenBucket, l.TokenBucket.Burst, micros)
		}
		if l.hasWindow() {
			micros := int64(0)
			if r.Cost <= l.Window.Limit {
				micros = c.windowWait(l, now, int64(r.Cost))
			}
			deny(KindWindow, l.Window.Limit, micros)
		}
	}
	return d, slack
}

// take debits what the machine allowed.
func (o *oracle) take(r Request) {
	for _, l := range o.matching(r) {
		c := o.counter(l, r)
		c.level.Sub(c.level, new(big.Rat).SetInt64(int64(r.Cost)))
		c.taken = append(c.taken, passed{o.now, int64(r.Cost)})
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
