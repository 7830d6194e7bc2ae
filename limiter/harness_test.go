package limiter

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/maestro-conductor/maestro/raftfsm"
	"github.com/maestro-conductor/maestro/raftfsm/fsmtest"
)

// driven is one machine behind the interface that the service uses, without Raft.
type driven struct {
	*fsmtest.Driver
	t testing.TB
}

const testGroup raftfsm.GroupID = 7

func drive(t testing.TB, cacheCounters int) *driven {
	return &driven{Driver: fsmtest.New(t, func() raftfsm.Machine { return newMachine(cacheCounters) }), t: t}
}

func (d *driven) Propose(_ context.Context, _ raftfsm.GroupID, cmd raftfsm.Command) (raftfsm.Result, error) {
	a := d.Driver.Propose(cmd)[0]
	return a.Result, a.Err
}

func (d *driven) Query(ctx context.Context, _ raftfsm.GroupID, q []byte, _ raftfsm.Consistency) (raftfsm.Answer, error) {
	data, err := d.Machine().Query(ctx, q)
	return raftfsm.Answer{Data: data}, err
}

func (d *driven) Level() int { return raftfsm.LevelCurrent }

func (d *driven) service() *Service { return NewService(d, []raftfsm.GroupID{testGroup}) }

// set puts exactly these limits in force.
func (d *driven) set(limits ...Limit) uint32 {
	d.t.Helper()
	s := d.service()
	v, err := s.Version(d.t.Context(), testGroup, raftfsm.Linearizable)
	if err == nil {
		_, v, err = s.Configure(d.t.Context(), testGroup, Change{To: v + 1, Puts: limits})
	}
	if err != nil {
		d.t.Fatalf("set limits: %v", err)
	}
	return v
}

// move makes a change of plans alone.
func (d *driven) move(c Change) uint32 {
	d.t.Helper()
	s := d.service()
	v, err := s.Version(d.t.Context(), testGroup, raftfsm.Linearizable)
	c.From, c.To = v, v+1
	if err == nil {
		_, v, err = s.Configure(d.t.Context(), testGroup, c)
	}
	if err != nil {
		d.t.Fatalf("move between plans: %v", err)
	}
	return v
}

// check decides at a group time.
func (d *driven) check(at time.Duration, r Request) Decision {
	d.t.Helper()
	d.Time = at
	res, err := decodeResult(d.Apply(appendCheck(nil, r))[0])
	if err != nil || res.outcome != outcomeDecided {
		d.t.Fatalf("check %+v: outcome %d %s, error %v", r, res.outcome, res.message, err)
	}
	return res.decision
}

func (d *driven) sweep() (more bool) {
	d.t.Helper()
	more, err := d.service().Sweep(d.t.Context(), testGroup)
	if err != nil {
		d.t.Fatal(err)
	}
	return more
}

// cached is a counter as the cache has it.
func (m *Machine) cached(key []byte) (counter, bool) {
	row, _, ok := m.cache.get(m.hash(key), key)
	if !ok {
		return counter{}, false
	}
	c, err := decodeCounter(row)
	return c, err == nil
}

// counters counts the rows of counters.
func (d *driven) counters() int {
	d.t.Helper()
	it, err := d.Machine().(*Machine).store.NewIter([]byte{tableCounter}, []byte{tableCounter + 1})
	if err != nil {
		d.t.Fatal(err)
	}
	n := 0
	for ok := it.First(); ok; ok = it.Next() {
		n++
	}
	if err := it.Close(); err != nil {
		d.t.Fatal(err)
	}
	return n
}

func limit(id, scope, selector, rate string, burst uint32) Limit {
	return Limit{ID: id, Scope: scope, Selector: selector, TokenBucket: TokenBucket{Rate: rate, Burst: burst}}
}

// String shows a decision in one line.
func (d Decision) String() string {
	s := "allow"
	if !d.Allow {
		s = fmt.Sprintf("deny %s by %s%s, retry after %d ms", d.Reason, d.LimitID, ofKind(d.Kind), d.RetryAfterMs)
	}
	for _, l := range d.Levels {
		s += fmt.Sprintf("\n%s%s (%s): %d of %d left", l.LimitID, ofKind(l.Kind), l.Scope, l.Remaining, l.Limit)
		if l.Shadow {
			s += fmt.Sprintf("; watches, would deny: %v", l.WouldDeny)
		}
	}
	return s
}

func ofKind(kind string) string {
	if kind == KindTokenBucket {
		return ""
	}
	return " " + kind
}

// running is a limit of how much runs at the same time, a minute at most.
func running(id string, most uint32) Limit {
	return Limit{ID: id, Scope: ScopeTenant, Selector: "acme", Concurrency: Concurrency{Limit: most, TTL: "60s"}}
}

// windowed is a limit that is a window alone.
func windowed(id, selector string, most uint32, length string) Limit {
	return Limit{ID: id, Scope: ScopeTenant, Selector: selector, Window: Window{Limit: most, Length: length}}
}
