package limiter

import (
	"context"
	"fmt"
	"math"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/maestro-conductor/maestro/internal/clock"
	"github.com/maestro-conductor/maestro/raftfsm"
)

// region is a machine and the nodes that hold its leases.
type region struct {
	*driven
	t     testing.TB
	nodes []*node

	mu       sync.Mutex
	began    time.Time
	level    int
	proposed int
	queried  atomic.Int64
	// cut lets no proposal through.
	cut bool
	// others are the goroutines that ran before.
	others goleak.Option
}

// node is a service with leases in a region.
type node struct {
	*Service
	leases *Leases
	// lost is set while the node's replica does not keep up.
	lost atomic.Bool
}

func startRegion(t testing.TB, nodes int, limits ...Limit) *region {
	return startRegionWith(t, 64, nodes, limits...)
}

// startRegionWith has a cache for so many counters.
func startRegionWith(t testing.TB, counters, nodes int, limits ...Limit) *region {
	r := &region{driven: drive(t, counters), t: t, began: time.Now(), level: raftfsm.LevelCurrent}
	r.set(limits...)
	system, err := clock.System()
	if err != nil {
		t.Fatal(err)
	}
	r.others = goleak.IgnoreCurrent()
	for range nodes {
		n := &node{Service: NewService(r, []raftfsm.GroupID{testGroup})}
		n.leases, err = n.NewLeases(LeaseOptions{
			Groups: r, Recaller: recaller{r, n}, Clock: clock.NewFast(system),
			Machines: map[raftfsm.GroupID]*Machine{testGroup: r.Machine().(*Machine)},
			Follows:  func(raftfsm.GroupID) bool { return !n.lost.Load() },
		})
		if err != nil {
			t.Fatal(err)
		}
		r.nodes = append(r.nodes, n)
	}
	return r
}

func (r *region) close() {
	for _, n := range r.nodes {
		n.leases.Close(r.t.Context())
	}
	goleak.VerifyNone(r.t, r.others, goleak.IgnoreAnyFunction("github.com/cockroachdb/pebble/v2/record.(*LogWriter).flushLoop"))
}

func (r *region) Level() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.level
}

func (r *region) Propose(ctx context.Context, g raftfsm.GroupID, cmd raftfsm.Command) (raftfsm.Result, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cut {
		return raftfsm.Result{}, &raftfsm.Error{Op: "propose", Group: "test", Err: raftfsm.ErrNoLeader}
	}
	r.proposed++
	r.Time = max(r.Time, time.Since(r.began)*999/1000)
	return r.driven.Propose(ctx, g, cmd)
}

func (r *region) Query(ctx context.Context, g raftfsm.GroupID, q []byte, c raftfsm.Consistency) (raftfsm.Answer, error) {
	r.queried.Add(1)
	return r.driven.Query(ctx, g, q, c)
}

// count is how many commands there were.
func (r *region) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.proposed
}

// recaller carries what a node tells the others.
type recaller struct {
	region *region
	self   *node
}

func (c recaller) Tell(ctx context.Context, _ raftfsm.GroupID, message []byte) {
	for _, n := range c.region.nodes {
		if n != c.self {
			if err := n.leases.Recalled(ctx, message); err != nil {
				c.region.t.Error(err)
			}
		}
	}
}

func (n *node) ask(t testing.TB, r Request) Decision {
	t.Helper()
	d, err := n.Check(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// The second check of a key needs nobody, and a batch as little as one check.
func TestChecksAreDecidedFromLeases(t *testing.T) {
	r := startRegion(t, 1, limit("all", ScopeTenant, "acme", "100000/h", 100_000), limit("key", ScopeKey, "acme/*", "1000/h", 1000))
	defer r.close()
	q := Request{Tenant: "acme", Key: "k", Cost: 1}
	first := r.nodes[0].ask(t, q)
	if !first.Allow || first.Source != SourceLease || len(first.Levels) != 2 || first.Version != 1 {
		t.Errorf("first: %+v", first)
	}
	before := r.count()
	second := r.nodes[0].ask(t, q)
	if !second.Allow || second.Source != SourceLease || r.count() != before {
		t.Errorf("second: %+v after %d commands, want none", second, r.count()-before)
	}
	if l := second.Levels[1]; l.LimitID != "key" || l.Limit != 1000 || l.Remaining != 998 {
		t.Errorf("level %+v, want 998 of 1000 left", l)
	}
	var all []Request
	for i := range 1000 {
		all = append(all, Request{Tenant: "acme", Key: fmt.Sprint("b", i%200), Cost: 1})
	}
	before = r.count()
	out, err := r.nodes[0].CheckBatch(t.Context(), all)
	if err != nil {
		t.Fatal(err)
	}
	for i, o := range out {
		if o.Err != nil || !o.Decision.Allow || o.Decision.Source != SourceLease {
			t.Fatalf("check %d: %+v", i, o)
		}
	}
	if n := r.count() - before; n > 8 {
		t.Errorf("a batch of 1000 checks of 200 new keys took %d commands", n)
	}
}

// What is denied, cannot be lent, takes nothing or must be remembered is decided by the group.
func TestOtherChecksGoToTheGroup(t *testing.T) {
	r := startRegion(t, 1, limit("large", ScopeTenant, "acme", "100/h", 1000), limit("small", ScopeTenant, "globex", "5/h", 5))
	defer r.close()
	n := r.nodes[0]
	for _, q := range []Request{
		{Tenant: "globex", Cost: 1},
		{Tenant: "acme", Cost: 0},
		{Tenant: "acme", Cost: 1, RequestID: "r"},
		{Tenant: "acme", Cost: 1001},
		{Tenant: "nobody", Cost: 1},
	} {
		if d := n.ask(t, q); d.Source != SourceLeader {
			t.Errorf("%+v: %+v, want the leader's decision", q, d)
		}
	}
	n.lost.Store(true)
	n.leases.look()
	if d := n.ask(t, Request{Tenant: "acme", Cost: 1}); d.Source != SourceLeader {
		t.Errorf("on a replica that is behind: %+v", d)
	}
	n.lost.Store(false)
	n.leases.look()
	if d := n.ask(t, Request{Tenant: "acme", Cost: 1}); d.Source != SourceLease {
		t.Errorf("on a replica that keeps up: %+v", d)
	}
	r.mu.Lock()
	r.level = raftfsm.LevelLimits
	r.mu.Unlock()
	n.leases.look()
	if d := n.ask(t, Request{Tenant: "acme", Cost: 1}); d.Source != SourceLeader {
		t.Errorf("beside a node of an older level: %+v", d)
	}
}

// A denial is answered from memory until its retry time, and not for less.
func TestDenialsAreRemembered(t *testing.T) {
	r := startRegion(t, 1, limit("small", ScopeTenant, "acme", "10/h", 10))
	defer r.close()
	n := r.nodes[0]
	n.ask(t, Request{Tenant: "acme", Cost: 8})
	denied := n.ask(t, Request{Tenant: "acme", Cost: 5})
	if denied.Allow || denied.Source != SourceLeader {
		t.Fatalf("%+v, want a denial", denied)
	}
	before := r.count()
	again := n.ask(t, Request{Tenant: "acme", Cost: 5})
	if again.Allow || again.Source != SourceCached || again.Reason != ReasonLimited || again.LimitID != "small" || again.Kind != KindTokenBucket ||
		again.RetryAfterMs > denied.RetryAfterMs || again.RetryAfterMs == 0 || len(again.Levels) != 1 {
		t.Errorf("%+v after %+v, want the same from memory", again, denied)
	}
	if r.count() != before {
		t.Errorf("%d commands for what is known", r.count()-before)
	}
	// What costs more has an advice of its own, or none.
	if more := n.ask(t, Request{Tenant: "acme", Cost: 6}); more.Source != SourceLeader || more.RetryAfterMs < denied.RetryAfterMs+300_000 {
		t.Errorf("more: %v, want six minutes more than %d ms", more, denied.RetryAfterMs)
	}
	if most := n.ask(t, Request{Tenant: "acme", Cost: 11}); most.Reason != ReasonCostExceedsLimit || most.RetryAfterMs != 0 {
		t.Errorf("more than the burst: %v", most)
	}
	if less := n.ask(t, Request{Tenant: "acme", Cost: 2}); !less.Allow {
		t.Errorf("less: %+v", less)
	}
	if again := n.ask(t, Request{Tenant: "acme", Cost: 6}); again.Source != SourceCached {
		t.Errorf("again: %+v", again)
	}
	n.leases.table.forget("acme")
	if d := n.ask(t, Request{Tenant: "acme", Cost: 5}); d.Source != SourceLeader {
		t.Errorf("after tokens came back: %+v", d)
	}
	r.set(limit("small", ScopeTenant, "acme", "10/h", 30))
	if d := n.ask(t, Request{Tenant: "acme", Cost: 5}); !d.Allow {
		t.Errorf("after a change of the limit: %+v", d)
	}
	if d := n.ask(t, Request{Tenant: "acme", Cost: 31}); d.Reason != ReasonCostExceedsLimit {
		t.Errorf("too large: %+v", d)
	}
	if d := n.ask(t, Request{Tenant: "acme", Cost: 31}); d.Source != SourceLeader {
		t.Errorf("too large again: %+v; time does not cure it", d)
	}
}

// Tokens that idle at one node let a check of another one pass.
func TestScarceTokensAreRecalled(t *testing.T) {
	for _, batch := range []bool{false, true} {
		t.Run(fmt.Sprintf("batch %v", batch), func(t *testing.T) {
			r := startRegion(t, 2, limit("a", ScopeTenant, "acme", "1/h", 64))
			defer r.close()
			r.nodes[0].ask(t, Request{Tenant: "acme", Cost: 2})
			if left := r.nodes[0].ask(t, Request{Tenant: "acme", Cost: 1}); left.Source != SourceLease {
				t.Fatalf("%+v, want tokens left at the first node", left)
			}
			all := Request{Tenant: "acme", Cost: 61}
			got := Decision{}
			if batch {
				out, err := r.nodes[1].CheckBatch(t.Context(), []Request{all})
				if err != nil || out[0].Err != nil {
					t.Fatal(err, out)
				}
				got = out[0].Decision
			} else {
				got = r.nodes[1].ask(t, all)
			}
			if !got.Allow {
				t.Errorf("%v, want all that is left", got)
			}
			if d := r.nodes[0].ask(t, Request{Tenant: "acme", Cost: 1}); d.Allow || d.Source != SourceLeader {
				t.Errorf("then %v", d)
			}
		})
	}
}

// A check that waits for a renewal ends with its context, and has taken nothing.
func TestWaitingEndsWithTheContext(t *testing.T) {
	r := startRegion(t, 1, limit("a", ScopeTenant, "acme", "1/h", 64))
	defer r.close()
	r.mu.Lock() // nothing is answered
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		_, err := r.nodes[0].Check(ctx, Request{Tenant: "acme", Cost: 1})
		done <- err
	}()
	cancel()
	err := <-done
	r.mu.Unlock()
	if err == nil || raftfsm.OutcomeOf(err) != raftfsm.OutcomeDefinite {
		t.Errorf("error %v, outcome %v; want a definite one", err, raftfsm.OutcomeOf(err))
	}
}

// Whoever stops gives back what it holds.
func TestCloseGivesBack(t *testing.T) {
	r := startRegion(t, 2, limit("a", ScopeTenant, "acme", "1/h", 64))
	defer r.close()
	r.nodes[0].ask(t, Request{Tenant: "acme", Cost: 1})
	r.nodes[0].leases.Close(t.Context())
	// Not through recalls: nobody is there to answer.
	got, err := r.nodes[0].Peek(t.Context(), Request{Tenant: "acme", Cost: 63})
	if err != nil || !got.Allow {
		t.Errorf("%v, %v; want 63 of 64 left", got, err)
	}
	if d := r.nodes[0].ask(t, Request{Tenant: "acme", Cost: 1}); d.Source != SourceLeader {
		t.Errorf("a closed holder: %v", d)
	}
	r.mu.Lock()
	r.cut = true
	r.mu.Unlock()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	r.nodes[1].leases.Close(ctx) // and does not wait for ever
}

// Whatever way a cost is asked for, tokens that idle at another node do not deny it.
func TestEveryWayOfAskingRecalls(t *testing.T) {
	for name, ask := range map[string]func(n *node) (bool, error){
		"with a request id": func(n *node) (bool, error) {
			d, err := n.Check(t.Context(), Request{Tenant: "acme", Cost: 99, RequestID: "r"})
			return d.Allow, err
		},
		"together": func(n *node) (bool, error) {
			d, err := n.CheckTogether(t.Context(), []Part{{Request: Request{Tenant: "acme", Cost: 99}}})
			return err == nil && d[0].Allow, err
		},
		"in a batch": func(n *node) (bool, error) {
			out, err := n.CheckBatch(t.Context(), []Request{{Tenant: "acme", Cost: 99}})
			return err == nil && out[0].Decision.Allow, err
		},
		"reserved": func(n *node) (bool, error) {
			h, err := n.Reserve(t.Context(), Request{Tenant: "acme", Cost: 99, RequestID: "r"}, 0)
			return h.Decision.Allow, err
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := startRegion(t, 2, limit("a", ScopeTenant, "acme", "1/s", 100))
			defer r.close()
			if d := r.nodes[0].ask(t, Request{Tenant: "acme", Cost: 1}); d.Source != SourceLease {
				t.Fatalf("%+v, want a lease at the first node", d)
			}
			for try := range 2 { // the second one is a retry, or one of another cost too many
				allowed, err := ask(r.nodes[1])
				if retry := name == "with a request id" || name == "reserved"; err != nil || allowed != (try == 0 || retry) {
					t.Fatalf("try %d: allowed %v, %v", try, allowed, err)
				}
			}
		})
	}
}

// A key that is denied costs its group one decision, however often a batch asks for it; what costs less
// is decided for itself.
func TestBatchOfADeniedKeyAsksOnce(t *testing.T) {
	r := startRegion(t, 1, limit("small", ScopeTenant, "acme", "1/h", 10))
	defer r.close()
	all := []Request{{Tenant: "acme", Key: "k", Cost: 8}}
	for range 20 {
		all = append(all, Request{Tenant: "acme", Key: "k", Cost: 9})
	}
	all[3].Cost = 1
	if out, err := r.nodes[0].CheckBatch(t.Context(), all[:1]); err != nil || !out[0].Decision.Allow {
		t.Fatal(out, err)
	}
	before := r.count()
	out, err := r.nodes[0].CheckBatch(t.Context(), all[1:])
	if err != nil {
		t.Fatal(err)
	}
	for i, o := range out {
		if cheap := i == 2; o.Err != nil || o.Decision.Allow != cheap || !cheap && (o.Decision.RetryAfterMs == 0 || len(o.Decision.Levels) != 1) {
			t.Errorf("check %d: %+v", i, o)
		}
	}
	if n := r.count() - before; n != 2 {
		t.Errorf("%d commands, want one for the first and one for what costs less", n)
	}
}

// A retry finds what a first try got with the help of others, also when these were asked a moment ago,
// or when the node that it goes to asks nobody.
func TestRetriesFindWhatRecallsBrought(t *testing.T) {
	for name, ask := range map[string]func(n *node) (string, error){
		"check": func(n *node) (string, error) {
			d, err := n.Check(t.Context(), Request{Tenant: "acme", Cost: 99, RequestID: "r"})
			return fmt.Sprint(d.Allow), err
		},
		"reserve": func(n *node) (string, error) {
			h, err := n.Reserve(t.Context(), Request{Tenant: "acme", Cost: 99, RequestID: "r"}, 0)
			return fmt.Sprint(h.Decision.Allow, h.ID), err
		},
	} {
		for _, scarce := range []Limit{limit("a", ScopeTenant, "acme", "1/s", 100), limit("a", ScopeGlobal, anyTenant, "1/s", 100)} {
			t.Run(name+" "+scarce.Scope, func(t *testing.T) { retriesFind(t, scarce, ask) })
		}
	}
}

func retriesFind(t *testing.T, scarce Limit, ask func(n *node) (string, error)) {
	r := startRegion(t, 2, scarce, limit("roomy", ScopeTenant, "acme", "1000/s", 1000))
	defer r.close()
	if d := r.nodes[0].ask(t, Request{Tenant: "acme", Cost: 1}); d.Source != SourceLease {
		t.Fatalf("%+v, want a lease at the first node", d)
	}
	first, err := ask(r.nodes[1])
	if err != nil || strings.HasPrefix(first, "false") {
		t.Fatalf("%s, %v", first, err)
	}
	for key := range r.nodes[1].leases.recalls.last { // just now, however slow this machine is
		r.nodes[1].leases.recalls.last[key].until = math.MaxInt64
	}
	if again, err := ask(r.nodes[1]); err != nil || again != first {
		t.Errorf("again: %s, %v; want %s", again, err, first)
	}
	r.nodes[1].leases.Close(t.Context())
	if again, err := ask(r.nodes[1]); err != nil || again != first {
		t.Errorf("without leases: %s, %v; want %s", again, err, first)
	}
}

// What would be denied without leases too is not denied for as long as these last.
func TestAdviceOfWhatIsDeniedAnyway(t *testing.T) {
	r := startRegion(t, 2, limit("a", ScopeTenant, "acme", "1/m", 100))
	defer r.close()
	if d := r.nodes[0].ask(t, Request{Tenant: "acme", Cost: 1}); d.Source != SourceLease {
		t.Fatalf("%+v, want a lease at the first node", d)
	}
	// Seven are left, or ten once those of the first node are back: one flows back in a minute.
	if d := r.nodes[1].ask(t, Request{Tenant: "acme", Cost: 89, RequestID: "most"}); !d.Allow {
		t.Fatal(d)
	}
	for i := range 2 {
		if d := r.nodes[1].ask(t, Request{Tenant: "acme", Cost: 12, RequestID: fmt.Sprint("more", i)}); d.Allow || d.RetryAfterMs > 121_000 {
			t.Errorf("%v, want to pass within two minutes", d)
		}
	}
	if d := r.nodes[0].ask(t, Request{Tenant: "acme", Cost: 1}); !d.Allow || d.Source != SourceLease {
		t.Errorf("at the node that has a lease: %+v, want that it was not returned for nothing", d)
	}
}

// A flood of keys fills the places there are, and no more; who has one keeps it, and the group decides
// for the others. Places come free again.
func TestFloodOfKeysIsBounded(t *testing.T) {
	r := startRegion(t, 1, limit("key", ScopeKey, "acme/*", "1000/h", 1000), limit("small", ScopeTenant, "globex", "1/h", 1))
	defer r.close()
	n := r.nodes[0]
	const most = 100
	n.leases.table.most = most
	places := func() (n int) {
		for i := range r.nodes[0].leases.table.shards {
			s := &r.nodes[0].leases.table.shards[i]
			s.mu.Lock()
			n = max(n, s.routes.n+s.leases[0].n+s.leases[1].n+s.leases[2].n)
			s.mu.Unlock()
		}
		return n
	}
	for i := range 2 * most {
		for _, q := range []Request{{Tenant: "acme", Key: fmt.Sprint(i), Cost: 1}, {Tenant: "globex", Key: fmt.Sprint(i), Cost: 1}} {
			if d := n.ask(t, q); d.Allow != (q.Tenant == "acme" || i == 0) {
				t.Fatalf("%+v: %v", q, d)
			}
		}
	}
	if got := places(); got < most || got > most+1 {
		t.Errorf("%d places are taken, want %d", got, most)
	}
	if d := n.ask(t, Request{Tenant: "acme", Key: "0", Cost: 1}); d.Source != SourceLease {
		t.Errorf("a key that was there before: %v from %s", d, d.Source)
	}
	if d := n.ask(t, Request{Tenant: "acme", Key: "late", Cost: 1}); d.Source != SourceLeader {
		t.Errorf("a key without a place: %v from %s", d, d.Source)
	}
	now := n.leases.options.Clock.Sync()
	for began := time.Now(); places() > 0; runtime.Gosched() { // messages may be under way
		if now += int64(time.Hour); time.Since(began) > time.Minute {
			t.Fatalf("%d places are taken when all is over", places())
		}
		n.leases.table.tick(now)
	}
}
