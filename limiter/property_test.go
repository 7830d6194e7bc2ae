package limiter

import (
	"fmt"
	"math/big"
	"reflect"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/maestro-conductor/maestro/raftfsm"
)

func genRate() *rapid.Generator[string] {
	return rapid.Custom(func(t *rapid.T) string {
		tokens := rapid.OneOf(rapid.IntRange(1, 20), rapid.IntRange(1, 100_000)).Draw(t, "tokens")
		period := rapid.SampledFrom([]string{"ms", "7ms", "s", "30s", "m", "h", "13h", "d"}).Draw(t, "period")
		return fmt.Sprintf("%d/%s", tokens, period)
	})
}

// genWindow draws logs and rings.
func genWindow() *rapid.Generator[Window] {
	return rapid.Custom(func(t *rapid.T) Window {
		return Window{
			Limit:  rapid.OneOf(rapid.Uint32Range(0, 40), rapid.Uint32Range(60, 90)).Draw(t, "limit"),
			Length: rapid.SampledFrom([]string{"1ms", "7ms", "s", "30s", "m", "h", "13h", "d"}).Draw(t, "length"),
		}
	})
}

func genLimits() *rapid.Generator[[]Limit] {
	return rapid.Custom(func(t *rapid.T) []Limit {
		var out []Limit
		for i := range rapid.IntRange(1, 5).Draw(t, "limits") {
			scope := rapid.SampledFrom([]string{ScopeTenant, ScopeToken, ScopeKey}).Draw(t, "scope")
			selector := rapid.SampledFrom([]string{"acme", "*", "globex", "plan:gold", "plan:basic"}).Draw(t, "tenant")
			if scope != ScopeTenant {
				selector += rapid.SampledFrom([]string{"", "/*", "/a", "/a*", "/*b", "/a*b*"}).Draw(t, "pattern")
			}
			l := Limit{ID: fmt.Sprintf("limit-%d", i), Scope: scope, Selector: selector}
			parts := rapid.SampledFrom([]string{"bucket", "bucket", "window", "both"}).Draw(t, "parts")
			if parts != "window" {
				l.TokenBucket = TokenBucket{genRate().Draw(t, "rate"), rapid.Uint32Range(0, 40).Draw(t, "burst")}
			}
			if parts != "bucket" {
				l.Window = genWindow().Draw(t, "window")
			}
			if len(problemsOf(l)) == 0 {
				out = append(out, l)
			}
		}
		return out
	})
}

// genAnything draws limits of every kind and policy.
func genAnything() *rapid.Generator[[]Limit] {
	return rapid.Custom(func(t *rapid.T) []Limit {
		limits := genLimits().Draw(t, "limits")
		for i := range limits {
			l := &limits[i]
			switch rapid.IntRange(0, 9).Draw(t, "more") {
			case 0:
				l.Calendar = Calendar{
					Limit:    rapid.Uint32Range(0, 20).Draw(t, "most"),
					Period:   rapid.SampledFrom([]string{PeriodDay, PeriodMonth}).Draw(t, "of"),
					TimeZone: rapid.SampledFrom([]string{"", "Europe/Berlin"}).Draw(t, "zone"),
				}
			case 1:
				l.Enforcement = rapid.SampledFrom([]string{EnforcementShadow, EnforcementOff}).Draw(t, "enforcement")
			case 2:
				l.Canary = rapid.Uint32Range(1, 100).Draw(t, "canary")
			case 3:
				l.Oversize = OversizeDebt
			case 4:
				*l = Limit{ID: l.ID, Scope: l.Scope, Selector: l.Selector, Access: rapid.SampledFrom([]string{AccessUnlimited, AccessBanned}).Draw(t, "access")}
			case 5:
				l.Overrides = "limit-0"
			case 7:
				l.Concurrency = Concurrency{Limit: rapid.Uint32Range(0, 5).Draw(t, "slots"), TTL: rapid.SampledFrom([]string{"1s", "60s"}).Draw(t, "ttl")}
			case 6:
				l.Expires = someDay.Unix() + rapid.Int64Range(-100, 4_000_000).Draw(t, "expires")
			}
		}
		return slices.DeleteFunc(limits, func(l Limit) bool { return len(problemsOf(l)) > 0 })
	})
}

// genPlans draws moves of tenants between plans.
func genPlans() *rapid.Generator[Change] {
	return rapid.Custom(func(t *rapid.T) (c Change) {
		for _, tenant := range []string{"acme", "globex", "initech"} {
			switch plan := rapid.SampledFrom([]string{"gold", "basic", "none", "stays"}).Draw(t, tenant); plan {
			case "none":
				c.Leavers = append(c.Leavers, tenant)
			case "stays":
			default:
				c.Plans = append(c.Plans, Assignment{tenant, plan})
			}
		}
		return c
	})
}

// parted cuts a change of plans into a number of parts.
func parted(c Change, parts int) []configureCommand {
	out := make([]configureCommand, parts)
	for i := range out {
		out[i] = configureCommand{Change: Change{From: c.From, To: c.To}, part: uint32(i), last: i == parts-1}
	}
	for i, a := range c.Plans {
		out[i%parts].Plans = append(out[i%parts].Plans, a)
	}
	out[parts-1].Leavers = c.Leavers
	return out
}

// someDay is about when the calendars of these tests are.
var someDay = day("2026-11-25 00:00:00")

func genRequest() *rapid.Generator[Request] {
	return rapid.Custom(func(t *rapid.T) Request {
		subject := rapid.SampledFrom([]string{"", "a", "ab", "axb", "b"})
		return Request{
			Tenant: rapid.SampledFrom([]string{"acme", "globex"}).Draw(t, "tenant"),
			Token:  subject.Draw(t, "token"),
			Key:    subject.Draw(t, "key"),
			Cost:   rapid.OneOf(rapid.Uint32Range(0, 5), rapid.Uint32Range(0, 45)).Draw(t, "cost"),
		}
	})
}

// genPause is a step of group time; most are short enough to find buckets half full.
func genPause() *rapid.Generator[time.Duration] {
	return rapid.Custom(func(t *rapid.T) time.Duration {
		most := rapid.SampledFrom([]int64{0, 50, 5_000, 500_000, 50_000_000, 90_000_000_000}).Draw(t, "scale")
		return time.Duration(rapid.Int64Range(0, most).Draw(t, "pause")) * time.Microsecond
	})
}

// Every answer is exactly the one that fractions give, advice and levels included.
func TestChecksAgreeWithOracle(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		d, o := drive(t, rapid.IntRange(1, 4).Draw(rt, "cache")), newOracle()
		limits := genLimits().Draw(rt, "limits")
		version := d.set(limits...)
		o.set(0, limits)
		var now time.Duration
		for range rapid.IntRange(1, 40).Draw(rt, "checks") {
			now += genPause().Draw(rt, "pause")
			if rapid.IntRange(0, 3).Draw(rt, "plans change") == 0 {
				c := genPlans().Draw(rt, "plans")
				version = d.move(c)
				o.move(c)
			}
			r := genRequest().Draw(rt, "request")
			got := d.check(now, r)
			want, _ := o.decide(now.Microseconds(), r)
			if want.Allow {
				o.take(r)
			}
			want.Version = version
			for _, l := range o.matching(r) {
				c := o.counter(l, r)
				if l.hasBucket() {
					whole := new(big.Int).Div(c.level.Num(), c.level.Denom()).Int64()
					want.Levels = append(want.Levels, Level{LimitID: l.ID, Scope: l.Scope, Kind: KindTokenBucket, Limit: l.TokenBucket.Burst, Remaining: uint32(max(0, whole))})
				}
				if l.hasWindow() {
					left := int64(l.Window.Limit) - c.inWindow(l, now.Microseconds())
					want.Levels = append(want.Levels, Level{LimitID: l.ID, Scope: l.Scope, Kind: KindWindow, Limit: l.Window.Limit, Remaining: uint32(max(0, left))})
				}
			}
			if fmt.Sprintf("%#v", got) != fmt.Sprintf("%#v", want) {
				rt.Fatalf("at %v, %+v:\ngot  %+v\nwant %+v", now, r, got, want)
			}
		}
	})
}

// When limits change now and then, nothing passes that fractions would deny, and nothing is
// denied by more than the rounding of one unit for each change.
func TestChangedLimitsKeepWhatWasUsed(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		d, o := drive(t, 3), newOracle()
		tolerance := big.NewRat(1, 100)
		var now time.Duration
		limits := bucketsOnly(genLimits().Draw(rt, "limits"))
		for range rapid.IntRange(1, 6).Draw(rt, "changes") {
			d.Time = now
			d.set(limits...)
			o.set(now.Microseconds(), limits)
			for range rapid.IntRange(0, 12).Draw(rt, "checks") {
				now += genPause().Draw(rt, "pause")
				r := genRequest().Draw(rt, "request")
				got := d.check(now, r)
				want, slack := o.decide(now.Microseconds(), r)
				if got.Allow && !want.Allow {
					rt.Fatalf("at %v, %+v passed, but the tightest level lacks %s tokens", now, r, slack.FloatString(9))
				}
				if !got.Allow && want.Allow && slack.Cmp(tolerance) > 0 {
					rt.Fatalf("at %v, %+v was denied, but the tightest level has %s tokens to spare", now, r, slack.FloatString(9))
				}
				if got.Allow {
					o.take(r)
				}
				if rapid.IntRange(0, 5).Draw(rt, "sweep") == 0 {
					d.sweep()
				}
			}
			now += genPause().Draw(rt, "pause")
			limits = bucketsOnly(changed(rt, limits))
		}
	})
}

func bucketsOnly(limits []Limit) []Limit {
	for i := range limits {
		limits[i].Window = Window{}
	}
	return slices.DeleteFunc(limits, func(l Limit) bool { return !l.hasBucket() })
}

// changed draws other limits, most of them with ids and scopes that were there before.
func changed(t *rapid.T, limits []Limit) []Limit {
	if len(limits) == 0 {
		return genLimits().Draw(t, "limits")
	}
	var out []Limit
	for _, l := range limits {
		switch rapid.IntRange(0, 9).Draw(t, "fate") {
		case 0:
			continue
		case 1:
			l.Scope, l.Selector = ScopeToken, "acme/a*"
		}
		l.TokenBucket = TokenBucket{genRate().Draw(t, "rate"), rapid.Uint32Range(1, 40).Draw(t, "burst")}
		if l.Window = (Window{}); rapid.Bool().Draw(t, "windowed") {
			l.Window = genWindow().Draw(t, "window")
		}
		if len(problemsOf(l)) == 0 {
			out = append(out, l)
		}
	}
	return out
}

// What was used is rounded up when its unit changes: after going from thirds to halves of a
// token, a third used is half a token.
func TestUsedIsRoundedUp(t *testing.T) {
	third, half := rate{refill: 1, unit: 3}, rate{refill: 1, unit: 2}
	l := newLimitState(limit("a", ScopeTenant, "*", "1/s", 5), 1, 0, []generation{{start: 0, rate: third}, {start: 10, rate: half}})
	got := l.settle(counter{used: u128{0, 1}, unit: 3, t: 10}, 10)
	if want := (counter{used: u128{0, 1}, unit: 2, gen: 1, t: 10}); !reflect.DeepEqual(got, want) {
		t.Errorf("settled to %+v, want %+v", got, want)
	}
}

// Whatever a limit is made of, the checker finds nothing.
func TestNeverOver(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		l := Limit{ID: "a", Scope: ScopeTenant, Selector: "acme", Window: genWindow().Draw(rt, "window")}
		if rapid.Bool().Draw(rt, "bucket too") {
			l.TokenBucket = TokenBucket{genRate().Draw(rt, "rate"), rapid.Uint32Range(1, 90).Draw(rt, "burst")}
		}
		if len(problemsOf(l)) > 0 {
			rt.Skip("refused by Validate")
		}
		allow, length := machineOf(t, l), microsOf(l.Window.Length)
		var all []passed
		now := time.Duration(rapid.Int64Range(0, 2*length).Draw(rt, "begin")) * time.Microsecond
		for range rapid.IntRange(1, 60).Draw(rt, "checks") {
			// Steps around the width of a slot find its edges.
			now += time.Duration(rapid.SampledFrom([]int64{0, 1, length / 65, length / 64, length/64 + 1, length / 7, length}).Draw(rt, "step")) * time.Microsecond
			cost := rapid.Uint32Range(1, max(1, l.Window.Limit/2)).Draw(rt, "cost")
			if allow(now, cost) {
				all = append(all, passed{now.Microseconds(), int64(cost)})
			}
		}
		if v := violation(l, all); v != "" {
			rt.Fatal(v)
		}
	})
}

// In any interval, at most burst + rate*length passes.
func TestArrivalCurve(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		l := limit("a", ScopeTenant, "acme", genRate().Draw(rt, "rate"), rapid.Uint32Range(1, 40).Draw(rt, "burst"))
		if len(problemsOf(l)) > 0 {
			rt.Skip("refused by Validate")
		}
		d := drive(t, 1)
		d.set(l)
		type passed struct{ at, cost int64 }
		var all []passed
		var now time.Duration
		for range rapid.IntRange(1, 60).Draw(rt, "checks") {
			now += genPause().Draw(rt, "pause")
			cost := rapid.Uint32Range(1, 10).Draw(rt, "cost")
			if d.check(now, Request{Tenant: "acme", Cost: cost}).Allow {
				all = append(all, passed{now.Microseconds(), int64(cost)})
			}
		}
		for i := range all {
			sum := int64(0)
			for j := i; j < len(all); j++ {
				sum += all[j].cost
				bound := new(big.Rat).Mul(perMicro(l), new(big.Rat).SetInt64(all[j].at-all[i].at))
				bound.Add(bound, burstOf(l))
				if new(big.Rat).SetInt64(sum).Cmp(bound) > 0 {
					rt.Fatalf("%d tokens passed in [%d, %d] µs; at most %s may", sum, all[i].at, all[j].at, bound.FloatString(3))
				}
			}
		}
	})
}

// takeAdvice repeats a denied request a millisecond before its time, when it must not pass, and on
// time, when it must; it returns that time. After x ms of real time, group time has advanced by 999x µs.
func takeAdvice(rt *rapid.T, d *driven, now time.Duration, r Request, got Decision) time.Duration {
	after := func(ms uint32) time.Duration { return now + time.Duration(ms)*999*time.Microsecond }
	if early := d.check(after(got.RetryAfterMs-1), r); early.Allow {
		rt.Fatalf("%+v: %+v, but passed a millisecond earlier", r, got)
	}
	onTime := after(got.RetryAfterMs)
	if then := d.check(onTime, r); !then.Allow {
		rt.Fatalf("%+v: %+v, but then %+v", r, got, then)
	}
	return onTime
}

// Without other traffic, a denied request is denied at retryAfterMs-1 and passes at
// retryAfterMs.
func TestRetryAdviceIsExact(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		d := drive(t, 2)
		d.set(genLimits().Draw(rt, "limits")...)
		var now time.Duration
		for range rapid.IntRange(1, 30).Draw(rt, "checks") {
			now += genPause().Draw(rt, "pause")
			r := genRequest().Draw(rt, "request")
			got := d.check(now, r)
			if got.Reason != ReasonLimited {
				continue
			}
			now = takeAdvice(rt, d, now, r, got)
		}
	})
}

// genRoll draws what a leader says when clocks have passed some moment.
func genRoll() *rapid.Generator[[]byte] {
	return rapid.Custom(func(t *rapid.T) []byte {
		wall := someDay.Add(time.Duration(rapid.IntRange(0, 1200).Draw(t, "hours")) * time.Hour)
		c := rollCommand{wall: wall.Unix()}
		for _, rule := range []Calendar{{Period: PeriodDay}, {Period: PeriodMonth}, {Period: PeriodDay, TimeZone: "Europe/Berlin"}, {Period: PeriodMonth, TimeZone: "Europe/Berlin"}} {
			begin, end, err := rule.periodOf(wall)
			if err != nil {
				t.Fatal(err)
			}
			c.periods = append(c.periods, period{rule, begin, end})
		}
		return appendRoll(nil, c)
	})
}

// Sweeping at any moment changes no answer.
func TestSweepChangesNoAnswer(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		plain, swept := drive(t, 8), drive(t, 8)
		limits := genAnything().Draw(rt, "limits")
		plain.set(limits...)
		swept.set(limits...)
		var now time.Duration
		for range rapid.IntRange(1, 50).Draw(rt, "steps") {
			now += genPause().Draw(rt, "pause")
			plain.Time, swept.Time = now, now
			if rapid.IntRange(0, 9).Draw(rt, "limits change") == 0 {
				limits = changed(rt, limits)
				plain.set(limits...)
				swept.set(limits...)
			}
			if rapid.IntRange(0, 9).Draw(rt, "periods") == 0 {
				roll := genRoll().Draw(rt, "roll")
				plain.Apply(roll)
				swept.Apply(roll)
			}
			if rapid.Bool().Draw(rt, "sweep") {
				swept.sweep()
			}
			r := genRequest().Draw(rt, "request")
			if a, b := plain.check(now, r), swept.check(now, r); fmt.Sprint(a) != fmt.Sprint(b) {
				rt.Fatalf("at %v, %+v:\nwithout sweeps %v\nwith sweeps    %v", now, r, a, b)
			}
		}
	})
}

func TestPatternsMatchLikeNaiveOnes(t *testing.T) {
	text := rapid.StringOfN(rapid.SampledFrom([]rune("ab*/")), 0, 12, -1)
	rapid.Check(t, func(rt *rapid.T) {
		pattern, s := text.Draw(rt, "pattern"), text.Draw(rt, "text")
		if got, want := compilePattern(pattern).match(s), naiveMatch(pattern, s); got != want {
			rt.Fatalf("pattern %q on %q: %v, want %v", pattern, s, got, want)
		}
	})
}

func TestWideIntegersAgreeWithBigOnes(t *testing.T) {
	wide := func(a u128) *big.Int {
		n := new(big.Int).SetUint64(a.hi)
		return n.Lsh(n, 64).Add(n, new(big.Int).SetUint64(a.lo))
	}
	most := wide(maxU128)
	clamp := func(n *big.Int) *big.Int {
		if n.Sign() < 0 {
			return new(big.Int)
		}
		if n.Cmp(most) > 0 {
			return most
		}
		return n
	}
	rapid.Check(t, func(rt *rapid.T) {
		a := u128{rapid.Uint64().Draw(rt, "a.hi"), rapid.Uint64().Draw(rt, "a.lo")}
		b := u128{rapid.Uint64().Draw(rt, "b.hi"), rapid.Uint64().Draw(rt, "b.lo")}
		c := rapid.Uint64Min(1).Draw(rt, "c")
		bigC := new(big.Int).SetUint64(c)
		quotient, rest := new(big.Int).QuoRem(wide(a), bigC, new(big.Int))
		up := new(big.Int).Set(quotient)
		if rest.Sign() > 0 {
			up.Add(up, big.NewInt(1))
		}
		for name, pair := range map[string][2]*big.Int{
			"add":      {wide(a.add(b)), clamp(new(big.Int).Add(wide(a), wide(b)))},
			"sub":      {wide(a.sub(b)), clamp(new(big.Int).Sub(wide(a), wide(b)))},
			"mul":      {wide(a.mul(c)), clamp(new(big.Int).Mul(wide(a), bigC))},
			"mul64":    {wide(mul64(a.lo, c)), new(big.Int).Mul(new(big.Int).SetUint64(a.lo), bigC)},
			"divFloor": {wide(a.divFloor(c)), quotient},
			"divCeil":  {wide(a.divCeil(c)), up},
		} {
			if pair[0].Cmp(pair[1]) != 0 {
				rt.Fatalf("%s of %v, %v, %d: %v, want %v", name, wide(a), wide(b), c, pair[0], pair[1])
			}
		}
		if a.less(b) != (wide(a).Cmp(wide(b)) < 0) {
			rt.Fatalf("less of %v and %v is wrong", wide(a), wide(b))
		}
	})
}

func TestEveryTenantHasOneGroup(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		tenant := rapid.StringMatching(`[a-z0-9._-]{1,63}`).Draw(rt, "tenant")
		ids := rapid.Permutation([]raftfsm.GroupID{2, 3, 4, 9}).Draw(rt, "order")
		if a, b := place(tenant, ids), place(tenant, []raftfsm.GroupID{2, 3, 4, 9}); a != b {
			rt.Fatalf("tenant %s is in group %d or %d, depending on the order of the groups", tenant, a, b)
		}
	})
}
