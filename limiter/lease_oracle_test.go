package limiter

import (
	"cmp"
	"fmt"
	"math/big"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// leaseOracle is one counter as the rules of leases say it, in fractions: a level that flows back up to the
// burst less what is lent, everything that was ever taken, and accounts.
type leaseOracle struct {
	l     Limit
	ttl   int64
	level *big.Rat
	t     int64
	taken []passed // for the window
	spent int64    // in the calendar's period
	since int64    // when that began
	lent  []oracleAccount
}

type oracleAccount struct {
	holder                           Holder
	epoch, seq                       uint64
	granted, spent, returned, ending int64
	over                             bool
}

func (a oracleAccount) left() int64 {
	if a.over {
		return 0
	}
	return a.granted - a.spent - a.returned
}

func newLeaseOracle(l Limit, ttl int64) *leaseOracle {
	return &leaseOracle{l: l, ttl: ttl, level: burstOf(l)}
}

func (o *leaseOracle) clone() *leaseOracle {
	c := *o
	c.level = new(big.Rat).Set(o.level)
	c.taken, c.lent = slices.Clone(o.taken), slices.Clone(o.lent)
	return &c
}

func (o *leaseOracle) out() int64 {
	sum := int64(0)
	for _, a := range o.lent {
		sum += a.left()
	}
	return sum
}

func (o *leaseOracle) refill(until int64) {
	if o.l.hasBucket() && until > o.t {
		o.level.Add(o.level, new(big.Rat).Mul(perMicro(o.l), big.NewRat(until-o.t, 1)))
		if most := new(big.Rat).Sub(burstOf(o.l), big.NewRat(o.out(), 1)); o.level.Cmp(most) > 0 {
			o.level = most
		}
	}
	o.t = max(o.t, until)
}

// settle ends accounts in the order of their deadlines, refilling up to each.
func (o *leaseOracle) settle(now int64) *leaseOracle {
	slices.SortStableFunc(o.lent, func(a, b oracleAccount) int { return cmp.Compare(a.ending, b.ending) })
	for i := range o.lent {
		a := &o.lent[i]
		if a.over || a.ending > now {
			continue
		}
		o.refill(a.ending)
		o.taken = append(o.taken, passed{a.ending, a.left()})
		if a.ending > o.since {
			o.spent += a.left()
		}
		a.over = true
	}
	o.refill(now)
	o.lent = slices.DeleteFunc(o.lent, func(a oracleAccount) bool { return a.over && a.ending+fenceTime.Microseconds() <= now })
	return o
}

func (o *leaseOracle) room() int64 {
	room := int64(1 << 40)
	if o.l.hasBucket() {
		room = min(room, new(big.Int).Div(o.level.Num(), o.level.Denom()).Int64())
	}
	if o.l.hasWindow() {
		room = min(room, int64(o.l.Window.Limit)-(&oracleCounter{taken: o.taken}).inWindow(o.l, o.t)-o.out())
	}
	if o.l.hasCalendar() {
		room = min(room, int64(o.l.Calendar.Limit)-o.spent-o.out())
	}
	return max(0, room)
}

// take debits what passes now.
func (o *leaseOracle) take(n int64) {
	o.level.Sub(o.level, big.NewRat(n, 1))
	o.count(n)
}

func (o *leaseOracle) count(n int64) {
	o.taken = append(o.taken, passed{o.t, n})
	o.spent += n
}

func (o *leaseOracle) renew(h Holder, r Renewal) Grant {
	refused := Grant{Refused: true}
	i := slices.IndexFunc(o.lent, func(a oracleAccount) bool { return a.holder == h && a.epoch == r.Epoch })
	if i < 0 {
		older := slices.ContainsFunc(o.lent, func(a oracleAccount) bool { return a.holder == h && a.epoch > r.Epoch })
		n := min(int64(r.Want), o.room())
		if older || r.Seq != 1 || r.Spent+r.Returned > 0 || n == 0 {
			return refused
		}
		o.lent = append(o.lent, oracleAccount{holder: h, epoch: r.Epoch})
		i = len(o.lent) - 1
	}
	a := &o.lent[i]
	spent, returned := max(a.spent, int64(r.Spent)), max(a.returned, int64(r.Returned))
	if a.over || spent+returned > a.granted && a.granted > 0 {
		return refused
	}
	o.count(spent - a.spent)
	o.level.Add(o.level, big.NewRat(returned-a.returned, 1))
	a.spent, a.returned = spent, returned
	if r.Seq > a.seq {
		a.seq = r.Seq
		if r.Want > 0 {
			n := min(int64(r.Want), o.room())
			a.granted, a.ending = a.granted+n, o.t+o.ttl
			o.level.Sub(o.level, big.NewRat(n, 1))
		}
	}
	return Grant{Granted: uint64(a.granted)}
}

// wait is how long, in microseconds, until cost fits if nobody does anything: room only grows then.
func (o *leaseOracle) wait(cost int64) int64 {
	fits := func(d int64) bool { return o.clone().settle(o.t+d).room() >= cost }
	low, high := int64(0), int64(1) // it does not fit at low, and does at high
	if fits(0) {
		return 0
	}
	for ; !fits(high); high *= 2 {
		low = high
	}
	for high-low > 1 {
		if mid := (low + high) / 2; fits(mid) {
			high = mid
		} else {
			low = mid
		}
	}
	return high
}

// holders are those who have something left, by the order of their accounts.
func (o *leaseOracle) holders() map[Holder]bool {
	out := map[Holder]bool{}
	for _, a := range o.lent {
		if a.left() > 0 {
			out[a.holder] = true
		}
	}
	return out
}

// genLent draws limits of which something is lent.
func genLent() *rapid.Generator[Limit] {
	return rapid.Custom(func(t *rapid.T) Limit {
		l := Limit{ID: "a", Scope: ScopeTenant, Selector: "acme"}
		parts := rapid.IntRange(1, 3).Draw(t, "parts")
		if parts&1 != 0 {
			l.TokenBucket = TokenBucket{
				rapid.SampledFrom([]string{"7/13ms", "100/s", "333/s", "3/100ms", "97/7s"}).Draw(t, "rate"), rapid.Uint32Range(leaseTokensMin, 90).Draw(t, "burst"),
			}
		}
		if parts&2 != 0 {
			l.Window = Window{rapid.Uint32Range(logMax+1, 150).Draw(t, "limit"), rapid.SampledFrom([]string{"1501ms", "2s", "7s"}).Draw(t, "length")}
		}
		if rapid.IntRange(0, 3).Draw(t, "calendar too") == 0 {
			l.Calendar = Calendar{Limit: rapid.Uint32Range(leaseTokensMin, 300).Draw(t, "period"), Period: PeriodDay}
		}
		return l
	})
}

// genRenewal draws reports and wishes, most of which could be those of a holder.
func genRenewal(t *rapid.T, lent []oracleAccount) (Holder, Renewal) {
	r := Renewal{Epoch: rapid.Uint64Range(1, 3).Draw(t, "epoch"), Seq: rapid.Uint64Range(1, 3).Draw(t, "seq"), Want: rapid.Uint64Range(0, 60).Draw(t, "want")}
	h := Holder(rapid.IntRange(1, 4).Draw(t, "holder"))
	if len(lent) == 0 || rapid.IntRange(0, 3).Draw(t, "open") == 0 {
		r.Seq = 1
		return h, r
	}
	a := rapid.SampledFrom(lent).Draw(t, "account")
	r.Epoch, r.Seq = a.epoch, a.seq+rapid.Uint64Range(0, 1).Draw(t, "next")
	r.Spent = uint64(max(0, a.spent+rapid.Int64Range(-3, 12).Draw(t, "more spent")))
	r.Returned = uint64(a.returned)
	switch rapid.IntRange(0, 4).Draw(t, "return") {
	case 0:
		r.Spent, r.Returned = uint64(a.spent), uint64(a.granted-a.spent)
	case 1:
		r.Returned += rapid.Uint64Range(0, 4).Draw(t, "some")
	}
	return a.holder, r
}

// Every grant, decision, advice and recall is exactly what the rules give in fractions.
func TestLeasesAgreeWithOracle(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		l := genLent().Draw(rt, "limit")
		if len(problemsOf(l)) > 0 {
			rt.Skip("refused by Validate")
		}
		m := leasedMachine(t, l)
		ttl := m.Machine().(*Machine).set.byID["a"].leaseTTL().Microseconds()
		if ttl == 0 {
			rt.Skip("is not lent")
		}
		o := newLeaseOracle(l, ttl)
		if l.hasCalendar() {
			m.roll(0)
		}
		now := int64(1)
		for range rapid.IntRange(1, 60).Draw(rt, "steps") {
			now += rapid.Int64Range(0, rapid.SampledFrom([]int64{0, 100, 20_000, ttl, 4 * ttl, 100_000_000}).Draw(rt, "scale")).Draw(rt, "pause")
			o.settle(now)
			what := rapid.SampledFrom([]string{"renew", "renew", "renew", "check", "check", "restart", "sweep", "roll"}).Draw(rt, "what")
			switch what {
			case "restart":
				m.Restart()
			case "sweep":
				m.sweep(now)
			case "roll":
				if l.hasCalendar() {
					m.roll(now)
					o.spent, o.since = 0, now
				}
			case "renew":
				h, r := genRenewal(rt, o.lent)
				got, want := m.renew(now, h, r), o.renew(h, r)
				if got.Refused != want.Refused || got.Granted != want.Granted {
					rt.Fatalf("at %d, holder %d, %+v: %+v, want %+v", now, h, r, got, want)
				}
				if !got.Refused && int64(got.Remaining) != o.room() {
					rt.Fatalf("at %d, %+v: %d remain, want %d", now, r, got.Remaining, o.room())
				}
			case "check":
				checkWithOracle(rt, m, o, now, rapid.Uint32Range(0, 160).Draw(rt, "cost"))
			}
		}
	})
}

func checkWithOracle(rt *rapid.T, m *leased, o *leaseOracle, now int64, cost uint32) {
	got := m.ask(m.at(now, appendRecallingCheck(nil, Request{Tenant: "acme", Cost: cost}, holdID{})))
	most, never := uint32(1<<31), false
	for _, part := range []struct {
		has  bool
		most uint32
	}{{o.l.hasBucket(), o.l.TokenBucket.Burst}, {o.l.hasWindow(), o.l.Window.Limit}, {o.l.hasCalendar(), o.l.Calendar.Limit}} {
		if part.has {
			most = min(most, part.most)
		}
	}
	never = cost > most
	allow := o.room() >= int64(cost)
	if got.decision.Allow != allow {
		rt.Fatalf("at %d, cost %d: %v, want allow %v with room %d", now, cost, got.decision, allow, o.room())
	}
	returned := o.clone()
	for i := range returned.lent {
		a := &returned.lent[i]
		returned.level.Add(returned.level, big.NewRat(a.left(), 1))
		a.over = true
	}
	// Leases are in the way of what would pass earlier without them.
	wait, without := int64(0), int64(0)
	if !allow && !never && !o.l.hasCalendar() { // whose advice follows the wall clock
		wait, without = o.wait(int64(cost)), returned.wait(int64(cost))
	}
	scarce := without < wait || o.l.hasCalendar() && got.outcome == outcomeScarce
	if could := !allow && !never && o.out() > 0 && returned.room() >= int64(cost); scarce != (got.outcome == outcomeScarce) || could && !scarce {
		rt.Fatalf("at %d, cost %d: outcome %d, want one that leases are in the way of: %v", now, cost, got.outcome, scarce)
	}
	if scarce {
		named := map[Holder]bool{}
		for _, h := range got.recalls[0].Holders {
			named[h] = true
		}
		if fmt.Sprint(named) != fmt.Sprint(o.holders()) || len(got.recalls) != 1 || got.recalls[0].Limit != m.uid {
			rt.Fatalf("recalls %+v, want those of %v", got.recalls, o.holders())
		}
	}
	switch {
	case allow:
		o.take(int64(cost))
	case never:
		if got.decision.RetryAfterMs != 0 || got.decision.Reason != ReasonCostExceedsLimit {
			rt.Fatalf("cost %d: %v", cost, got.decision)
		}
	case !o.l.hasCalendar():
		ms := func(micros int64) int64 { return (micros + groupMicrosPerMs - 1) / groupMicrosPerMs }
		want := ms(wait)
		if scarce {
			want = min(want, max(ms(without), scarceMin.Milliseconds()))
		}
		if int64(got.decision.RetryAfterMs) != want {
			rt.Fatalf("at %d, cost %d: retry after %d ms, want %d", now, cost, got.decision.RetryAfterMs, want)
		}
	}
}
