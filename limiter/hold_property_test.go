package limiter

import (
	"fmt"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// holdStep is one command about something held, and when.
type holdStep struct {
	at   time.Duration
	what string
	c    holdCommand
	id   holdID // that it makes
	of   Request
}

func (s holdStep) data() []byte {
	switch s.what {
	case "check":
		return appendRecallingCheck(nil, s.c.Request, s.c.id)
	case "reserve":
		return appendHold(nil, opReserve, s.c)
	case "commit":
		return appendHold(nil, opSettle, s.c)
	case "refund":
		return appendHold(nil, opRefund, s.c)
	case "acquire", "renew":
		return appendHold(nil, opAcquire, s.c)
	case "release":
		return appendHold(nil, opRelease, s.c)
	}
	begin := someDay.AddDate(0, 0, int(s.c.Cost))
	return appendRoll(nil, rollCommand{wall: begin.Unix(), periods: []period{{Calendar{Period: PeriodDay}, begin.Unix(), begin.AddDate(0, 0, 1).Unix()}}})
}

// genHolds draws commands that mostly name what earlier ones made, and limits of every kind.
func genHolds(rt *rapid.T) ([]Limit, []holdStep) {
	limits := genLimits().Draw(rt, "limits")
	for i := range limits {
		switch rapid.IntRange(0, 3).Draw(rt, "more") {
		case 0:
			limits[i].Calendar = Calendar{Limit: rapid.Uint32Range(0, 60).Draw(rt, "most"), Period: PeriodDay}
		case 1:
			limits[i].Concurrency = Concurrency{Limit: rapid.Uint32Range(0, 6).Draw(rt, "slots"), TTL: rapid.SampledFrom([]string{"1s", "60s", "1h"}).Draw(rt, "ttl")}
		}
	}
	slices.SortFunc(limits, func(a, b Limit) int { return strings.Compare(a.ID, b.ID) })
	ttl := rapid.SampledFrom([]uint64{0, 1000, 5000, 3_600_000})
	made := map[string][]holdStep{}
	var steps []holdStep
	var now time.Duration
	days := uint32(0)
	for i := range rapid.IntRange(1, 40).Draw(rt, "steps") {
		now += rapid.OneOf(genPause(), rapid.Just(time.Duration(0)), rapid.Just(time.Second), rapid.Just(time.Minute)).Draw(rt, "pause")
		s := holdStep{at: now, what: rapid.SampledFrom([]string{"check", "reserve", "reserve", "commit", "commit", "refund", "acquire", "acquire", "renew", "release", "roll"}).Draw(rt, "what")}
		s.c.Request = genRequest().Draw(rt, "request")
		s.c.id = holdID{byte(i + 1), 1}
		from := map[string]string{"commit": "reserve", "refund": "check", "renew": "acquire", "release": "acquire"}[s.what]
		switch s.what {
		case "reserve", "acquire":
			s.c.Cost, s.c.ttl = 1+s.c.Cost%20, ttl.Draw(rt, "ttl")
			if s.what == "acquire" {
				s.c.Cost = 1 + s.c.Cost%4
			}
			s.id = newHoldID(s.c.id, now.Microseconds())
		case "check":
			s.id = s.c.id
		case "roll":
			days++
			s.c = holdCommand{Request: Request{Cost: days}}
		default:
			s.c = holdCommand{Request: Request{Tenant: s.c.Tenant, Cost: s.c.Cost}, id: s.c.id}
			if s.renews() {
				s.c.renew, s.c.ttl = true, ttl.Draw(rt, "ttl")
			}
			if all := made[from]; len(all) > 0 {
				one := all[rapid.IntRange(0, len(all)-1).Draw(rt, "of")]
				s.c.id, s.of = one.id, one.c.Request
				if rapid.IntRange(0, 9).Draw(rt, "foreign") > 0 {
					s.c.Tenant = one.c.Tenant
				}
			}
		}
		made[s.what] = append(made[s.what], s)
		steps = append(steps, s)
	}
	return limits, steps
}

func (s holdStep) renews() bool { return s.what == "renew" }

// want is what the oracle says of a step, in the words of got.
func (o *holdOracle) want(s holdStep) string {
	now, ttl := s.at.Microseconds(), int64(s.c.ttl)*1000
	o.now = now
	foreign := s.of.Tenant != "" && s.of.Tenant != s.c.Tenant
	switch s.what {
	case "check":
		return fmt.Sprint(o.check(now, s.c.Request, s.id, rememberFor.Microseconds()))
	case "reserve":
		if ttl == 0 {
			ttl = HoldUsual.Microseconds()
		}
		return fmt.Sprint(o.check(now, s.c.Request, s.id, ttl))
	case "commit":
		if got := o.settle(now, s.c.id, s.c.Cost); !foreign && got != nil {
			return fmt.Sprintf("%+v", *got)
		}
		return "unknown"
	case "refund":
		if n, ok := o.refund(now, s.c.id, s.c.Cost); ok && !foreign {
			return fmt.Sprint(n)
		}
		return "unknown"
	case "acquire":
		allow, never, micros := o.acquire(now, s.c.Request, s.id, ttl)
		switch {
		case allow:
			return fmt.Sprintf("held for %d", micros/1000)
		case never:
			return ReasonCostExceedsLimit + " 0"
		}
		return fmt.Sprintf("%s %d", ReasonLimited, ceil(big.NewRat(micros, 999)))
	case "renew":
		if micros := o.renew(now, s.of, s.c.id, ttl); micros > 0 && !foreign {
			return fmt.Sprintf("held for %d", micros/1000)
		}
		return "unknown"
	case "release":
		return fmt.Sprint(o.release(now, s.c.id) && !foreign)
	}
	o.period++
	o.spent = map[string]int64{}
	return "rolled"
}

func (s holdStep) got(t *rapid.T, data []byte) string {
	res, err := decodeResult(data)
	if err != nil {
		t.Fatal(err)
	}
	switch res.outcome {
	case outcomeDecided:
		return fmt.Sprint(res.decision.Allow)
	case outcomeReserved:
		return fmt.Sprint(res.decision.Allow)
	case outcomeSettled:
		return fmt.Sprintf("%+v", res.hold.settlement)
	case outcomeRefunded:
		return fmt.Sprint(res.hold.settlement.Refunded)
	case outcomeAcquired:
		if res.decision.Allow {
			return fmt.Sprintf("held for %d", res.hold.ttl)
		}
		return fmt.Sprintf("%s %d", res.decision.Reason, res.decision.RetryAfterMs)
	case outcomeReleased:
		return fmt.Sprint(res.hold.released)
	case outcomeUnknown:
		return "unknown"
	case outcomeRolled:
		return "rolled"
	}
	return fmt.Sprintf("outcome %d %s", res.outcome, res.message)
}

// Whatever is reserved, settled, given back, held and released, and in whatever order: every answer and
// all that is used afterwards is what fractions and plain lists give, sweeps and restarts in between.
func TestHoldsAgreeWithOracle(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		limits, steps := genHolds(rt)
		d, o := drive(t, rapid.IntRange(1, 4).Draw(rt, "cache")), newHoldOracle(limits)
		d.set(limits...)
		d.Apply(holdStep{what: "roll"}.data())
		for _, s := range steps {
			if s.what == "renew" || s.what == "release" || s.what == "commit" || s.what == "refund" {
				if s.of.Tenant != "" && s.of.Tenant != s.c.Tenant {
					// Another tenant's is not there, and nothing happens to it.
					d.Time = s.at
					if got := s.got(rt, d.Apply(s.data())[0]); got != "unknown" && got != "false" {
						rt.Fatalf("%s of another tenant's: %s", s.what, got)
					}
					continue
				}
			}
			d.Time = s.at
			if got, want := s.got(rt, d.Apply(s.data())[0]), o.want(s); got != want {
				rt.Fatalf("at %v, %s %+v: %s, want %s", s.at, s.what, s.c, got, want)
			}
			switch rapid.IntRange(0, 9).Draw(rt, "then") {
			case 0:
				d.Restart()
			case 1:
				d.sweep()
			}
			r := s.c.Request
			if s.of.Tenant != "" {
				r = s.of
			}
			if r.Tenant == "" {
				continue
			}
			d.Apply(appendCheck(nil, Request{Tenant: "nobody"})) // peeks are as of the last entry
			p, err := d.service().Peek(t.Context(), r)
			if err != nil {
				rt.Fatal(err)
			}
			var got []string
			for _, l := range p.Levels {
				got = append(got, fmt.Sprintf("%s %s %d, %d left", l.LimitID, l.Kind, l.Used, l.Remaining))
			}
			if want := o.usage(s.at.Microseconds(), r); !slices.Equal(got, want) {
				rt.Fatalf("after %s %+v at %v:\ngot  %q\nwant %q", s.what, s.c, s.at, got, want)
			}
		}
	})
}

// The same commands give the same results and rows, whatever is held.
func TestHoldsReplayTheSame(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		limits, steps := genHolds(rt)
		log := []timed{{0, appendConfigure(nil, configureCommand{Change: Change{To: 1, Puts: limits}, last: true})}}
		for _, s := range steps {
			log = append(log, timed{s.at, s.data()})
		}
		replaysTheSame(t, rt, log)
	})
}

// What was given back counts as never taken; then no interval has more than the limit, and only commits
// above what was reserved are more, and are paid back.
func TestNeverOverWithRefunds(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		l := Limit{ID: "a", Scope: ScopeTenant, Selector: "acme"}
		parts := rapid.SampledFrom([]string{"bucket", "window", "both"}).Draw(rt, "parts")
		if parts != "window" {
			l.TokenBucket = TokenBucket{genRate().Draw(rt, "rate"), rapid.Uint32Range(1, 90).Draw(rt, "burst")}
		}
		if parts != "bucket" {
			l.Window = genWindow().Draw(rt, "window")
		}
		if len(problemsOf(l)) > 0 {
			rt.Skip("refused by Validate")
		}
		d := drive(t, 2)
		d.set(l)
		s := d.service()
		most := max(l.TokenBucket.Burst, l.Window.Limit, 1)
		var all []passed
		at := map[string]int{}
		var ids []string
		for range rapid.IntRange(1, 60).Draw(rt, "steps") {
			d.Time += rapid.OneOf(genPause(), rapid.Just(time.Duration(0))).Draw(rt, "pause")
			if len(ids) > 0 && rapid.Bool().Draw(rt, "settle") {
				i := rapid.IntRange(0, len(ids)-1).Draw(rt, "which")
				p := &all[at[ids[i]]]
				got, err := s.Commit(t.Context(), "acme", ids[i], uint32(rapid.Int64Range(0, p.cost).Draw(rt, "actual")))
				if err == nil {
					p.cost -= int64(got.Refunded)
				}
				ids = slices.Delete(ids, i, i+1)
				continue
			}
			cost := rapid.Uint32Range(1, most).Draw(rt, "cost")
			h, err := s.Reserve(t.Context(), Request{Tenant: "acme", Cost: cost}, time.Hour)
			if err != nil {
				rt.Fatal(err)
			}
			if h.Allow {
				at[h.ID] = len(all)
				ids = append(ids, h.ID)
				all = append(all, passed{d.Time.Microseconds(), int64(cost)})
			}
		}
		if v := violation(l, all); v != "" {
			rt.Fatal(v)
		}
	})
}

// However limits change, a refund leaves at least as much used as if the refunded had never been.
func TestRefundsGiveNothingThatOthersTook(t *testing.T) {
	genLimit := rapid.Custom(func(t *rapid.T) Limit {
		l := Limit{ID: "a", Scope: ScopeTenant, Selector: "acme"}
		if rapid.Bool().Draw(t, "bucket") {
			l.TokenBucket = TokenBucket{genRate().Draw(t, "rate"), 100_000}
		}
		l.Window = Window{rapid.SampledFrom([]uint32{logMax, 1000}).Draw(t, "limit"), genWindow().Draw(t, "window").Length}
		if rapid.IntRange(0, 3).Draw(t, "no window") == 0 {
			l.Window = Window{}
		}
		return l
	}).Filter(func(l Limit) bool { return len(problemsOf(l)) == 0 })
	rapid.Check(t, func(rt *rapid.T) {
		both, others := drive(t, 2), drive(t, 2)
		l := genLimit.Draw(rt, "limit")
		both.set(l)
		others.set(l)
		var refunds []holdStep
		var now time.Duration
		for i := range rapid.IntRange(1, 20).Draw(rt, "steps") {
			now += rapid.OneOf(genPause(), rapid.Just(time.Duration(0))).Draw(rt, "pause")
			both.Time, others.Time = now, now
			r := Request{Tenant: "acme", Cost: rapid.Uint32Range(1, 3).Draw(rt, "cost")} // all of them pass
			switch rapid.SampledFrom([]string{"refunded", "refunded", "other", "change", "sweep"}).Draw(rt, "what") {
			case "refunded":
				s := holdStep{what: "check", c: holdCommand{Request: r, id: holdID{byte(i + 1)}}}
				both.Apply(s.data())
				s.what = "refund"
				refunds = append(refunds, s)
			case "other":
				both.check(now, r)
				others.check(now, r)
			case "change":
				l = genLimit.Draw(rt, "changed")
				both.set(l)
				others.set(l)
			case "sweep":
				both.sweep()
			}
		}
		now += genPause().Draw(rt, "pause")
		both.Time, others.Time = now, now
		for _, s := range refunds {
			both.Apply(s.data())
		}
		usage := func(d *driven) []Level {
			d.check(now, Request{Tenant: "nobody"})
			p, err := d.service().Peek(t.Context(), Request{Tenant: "acme"})
			if err != nil {
				rt.Fatal(err)
			}
			return p.Levels
		}
		got, least := usage(both), usage(others)
		for i := range got {
			if got[i].Used < least[i].Used {
				rt.Fatalf("%s: %d used, and %d without the refunded", got[i].Kind, got[i].Used, least[i].Used)
			}
		}
	})
}
