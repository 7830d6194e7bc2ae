package meta

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/maestro-conductor/maestro/limiter"
	"github.com/maestro-conductor/maestro/raftfsm"
	"github.com/maestro-conductor/maestro/raftfsm/fsmtest"
)

const (
	metaGroup  raftfsm.GroupID = 1
	limitGroup raftfsm.GroupID = 2
	otherGroup raftfsm.GroupID = 3
)

// region is the meta group and two limiter groups without Raft, behind the interfaces that
// the services use.
type region struct {
	t       testing.TB
	mu      sync.Mutex
	meta    *fsmtest.Driver
	groups  map[raftfsm.GroupID]*fsmtest.Driver
	down    map[raftfsm.GroupID]bool
	beforeQ func() // runs before each query of the meta group
	now     time.Time
	level   int
}

func newRegion(t testing.TB, rules func(table) rules) *region {
	r := &region{t: t, down: map[raftfsm.GroupID]bool{}}
	r.meta = fsmtest.New(t, func() raftfsm.Machine { return newMachine(rules) })
	r.groups = map[raftfsm.GroupID]*fsmtest.Driver{metaGroup: r.meta}
	for _, g := range []raftfsm.GroupID{limitGroup, otherGroup} {
		r.groups[g] = fsmtest.New(t, func() raftfsm.Machine { return limiter.NewMachine() })
	}
	r.now, r.level = r.meta.Wall, raftfsm.LevelCurrent
	return r
}

func (r *region) Propose(_ context.Context, g raftfsm.GroupID, cmd raftfsm.Command) (raftfsm.Result, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.down[g] {
		return raftfsm.Result{}, &raftfsm.Error{Op: "propose", Group: fmt.Sprint(g), Err: raftfsm.ErrNoLeader}
	}
	a := r.groups[g].Propose(cmd)[0]
	return a.Result, a.Err
}

func (r *region) Level() int { return r.level }

func (r *region) Query(ctx context.Context, g raftfsm.GroupID, q []byte, _ raftfsm.Consistency) (raftfsm.Answer, error) {
	if f := r.beforeQ; f != nil && g == metaGroup {
		f()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.down[g] {
		return raftfsm.Answer{}, &raftfsm.Error{Op: "query", Group: fmt.Sprint(g), Err: raftfsm.ErrNoLeader}
	}
	data, err := r.groups[g].Machine().Query(ctx, q)
	return raftfsm.Answer{Data: data}, err
}

// AwaitApplied has nothing to wait for: there is one replica.
func (r *region) AwaitApplied(context.Context, raftfsm.GroupID, uint64) error { return nil }

func (r *region) limiter() *limiter.Service {
	return limiter.NewService(r, []raftfsm.GroupID{limitGroup, otherGroup})
}

func (r *region) service() *Service {
	return NewService(Options{
		Groups:        r,
		Group:         metaGroup,
		Machine:       r.meta.Machine().(*Machine),
		Limiter:       r.limiter(),
		LimiterGroups: []raftfsm.GroupID{limitGroup, otherGroup},
		Region:        "us-west",
		Clock:         func() time.Time { return r.now },
	})
}

// version is the version of the limits that a limiter group applies.
func (r *region) version(g raftfsm.GroupID) uint32 {
	r.t.Helper()
	v, err := r.limiter().Version(r.t.Context(), g, raftfsm.Linearizable)
	if err != nil {
		r.t.Fatal(err)
	}
	return v
}

func limit(id, selector string, burst uint32) limiter.Limit {
	scope := limiter.ScopeTenant
	if strings.Contains(selector, "/") {
		scope = limiter.ScopeKey
	}
	return limiter.Limit{ID: id, Scope: scope, Selector: selector, TokenBucket: limiter.TokenBucket{Rate: "10/s", Burst: burst}}
}

func wantError(t testing.TB, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: error %v, want %v", what, err, want)
	}
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
