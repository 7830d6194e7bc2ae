package limiter

import (
	"fmt"
	"math/big"
	"math/rand/v2"
	"testing"
	"time"
)

// violation finds an interval in which more passed than a limit allows, or returns "". It knows
// nothing of slots and levels: only what passed, and when, in microseconds.
func violation(l Limit, all []passed) string {
	for i := range all {
		sum := int64(0)
		for _, p := range all[i:] {
			sum += p.cost
			length := p.at - all[i].at
			if l.hasBucket() {
				most := new(big.Rat).Mul(perMicro(l), new(big.Rat).SetInt64(length))
				if most.Add(most, burstOf(l)); new(big.Rat).SetInt64(sum).Cmp(most) > 0 {
					return fmt.Sprintf("%d tokens in [%d, %d] µs; the bucket allows %s", sum, all[i].at, p.at, most.FloatString(3))
				}
			}
			if l.hasWindow() && length <= microsOf(l.Window.Length) && sum > int64(l.Window.Limit) {
				return fmt.Sprintf("%d tokens in [%d, %d] µs; the window allows %d", sum, all[i].at, p.at, l.Window.Limit)
			}
		}
	}
	return ""
}

// counting decides for one subject of one limit.
type counting func(now time.Duration, cost uint32) bool

// machineOf is the real thing.
func machineOf(t testing.TB, l Limit) counting {
	d := drive(t, 4)
	d.set(l)
	return func(now time.Duration, cost uint32) bool {
		return d.check(now, Request{Tenant: "acme", Cost: cost}).Allow
	}
}

// history offers more than the limit lets through, in bursts and trickles, and returns what passed.
func history(random *rand.Rand, l Limit, allow counting) []passed {
	length := time.Duration(microsOf(l.Window.Length)) * time.Microsecond
	var all []passed
	now := time.Duration(random.Int64N(int64(2 * length)))
	for range 600 {
		switch random.IntN(4) {
		case 0: // at once
		case 1:
			now += time.Duration(random.Int64N(int64(length / 4)))
		case 2:
			now += time.Duration(random.Int64N(int64(length / 100)))
		case 3:
			now += length / ringSlots
		}
		now = now.Truncate(time.Microsecond)
		cost := 1 + random.Uint32N(max(1, l.Window.Limit/8))
		if allow(now, cost) {
			all = append(all, passed{now.Microseconds(), int64(cost)})
		}
	}
	return all
}

// counted is a window that is simpler than ours: it adds up what the rule weighs.
func counted(l Limit, weight func(taken, now int64) (numerator, denominator int64)) counting {
	var all []passed
	return func(now time.Duration, cost uint32) bool {
		used := new(big.Rat)
		for _, p := range all {
			n, d := weight(p.at, now.Microseconds())
			used.Add(used, big.NewRat(p.cost*n, d))
		}
		if used.Add(used, new(big.Rat).SetInt64(int64(cost))).Cmp(new(big.Rat).SetInt64(int64(l.Window.Limit))) > 0 {
			return false
		}
		all = append(all, passed{now.Microseconds(), int64(cost)})
		return true
	}
}

func yes(b bool) (numerator, denominator int64) {
	if b {
		return 1, 1
	}
	return 0, 1
}

// Each of these windows is in use somewhere and admits too much; the checker must see it, and
// see nothing in ours.
func TestCheckerCatchesWindowMutants(t *testing.T) {
	l := windowed("w", "acme", 200, "64s")
	length := microsOf(l.Window.Length)
	width := length / ringSlots
	for _, c := range []struct {
		name   string
		allow  func() counting
		caught bool
	}{
		{"ours", func() counting { return machineOf(t, l) }, false},
		{"a ring of K slots", func() counting {
			return counted(l, func(taken, now int64) (int64, int64) { return yes(taken/width > now/width-ringSlots) })
		}, true},
		{"a ring with a weighted oldest slot", func() counting {
			return counted(l, func(taken, now int64) (int64, int64) {
				if taken/width == now/width-ringSlots {
					return width - now%width, width
				}
				return yes(taken/width > now/width-ringSlots)
			})
		}, true},
		{"two buckets with a weight", func() counting {
			return counted(l, func(taken, now int64) (int64, int64) {
				if taken/length == now/length-1 {
					return length - now%length, length
				}
				return yes(taken/length == now/length)
			})
		}, true},
		{"a fixed window", func() counting {
			return counted(l, func(taken, now int64) (int64, int64) { return yes(taken/length == now/length) })
		}, true},
		{"a window that opens at the first request", func() counting {
			first := int64(-1)
			return counted(l, func(taken, now int64) (int64, int64) {
				if first < 0 || now-first > length {
					first = now
				}
				return yes(taken >= first)
			})
		}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			found := ""
			for seed := uint64(1); seed <= 20 && found == ""; seed++ {
				found = violation(l, history(rand.New(rand.NewPCG(seed, 0)), l, c.allow()))
			}
			if (found != "") != c.caught {
				t.Errorf("found %q; want a violation: %v", found, c.caught)
			}
		})
	}
}

// With more demand than the limit, at least 97 % of it is used, whatever the size of requests.
func TestWindowsAreUsed(t *testing.T) {
	for _, l := range []Limit{
		windowed("log", "acme", 64, "1m"),
		windowed("ring", "acme", 1000, "1m"),
		windowed("odd", "acme", 999, "61s"),
		windowed("short", "acme", 1000, "100ms"),
	} {
		allow, length := machineOf(t, l), microsOf(l.Window.Length)
		passed, now := int64(0), int64(0)
		const lengths = 20
		for ; now < lengths*length; now += length / 2000 {
			if allow(time.Duration(now)*time.Microsecond, 1) {
				passed++
			}
		}
		if least := lengths * int64(l.Window.Limit) * 97 / 100; passed < least {
			t.Errorf("%s: %d passed in %d windows of %d, want at least %d", l.ID, passed, lengths, l.Window.Limit, least)
		}
	}
}
