package index

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/maestro-conductor/maestro/raftfsm"
	"github.com/maestro-conductor/maestro/raftfsm/hosttest"
)

// stuck is the machine of a shard whose searches hang while they are held, and fail while they are
// broken. What asks for no documents is answered.
type stuck struct {
	*Machine
	held, broken *atomic.Bool
}

func (s stuck) Query(ctx context.Context, b []byte) ([]byte, error) {
	q, err := decodeShardQuery(b)
	if probe := err == nil && q.bound != nil && *q.bound == 0; !probe {
		if s.broken.Load() {
			return nil, errors.New("the disk cannot be read")
		}
		if s.held.Load() {
			<-ctx.Done()
			return nil, ctx.Err()
		}
	}
	return s.Machine.Query(ctx, b)
}

// failing is a real region of three nodes with two shards. Shard 1 has its only replica on node 2.
type failing struct {
	*hosttest.Cluster
	t        *testing.T
	held     [3]atomic.Bool // by node: its replicas hang
	broken   [3]atomic.Bool
	services [3]*Service
	shards   []Shard
	token    []ShardPosition // of the last ingest
}

// fresh tells whether an answer is at least as far as the last ingest, in the shards that answered.
func (f *failing) fresh(r SearchResult) bool {
	for i, s := range r.Shards {
		if s.State == ShardOK && s.Applied < f.token[i].Applied {
			return false
		}
	}
	return true
}

func newFailing(t *testing.T) *failing {
	f := &failing{t: t, shards: []Shard{{Name: "index-0", Group: 1}, {Name: "index-1", Group: 2}}}
	started := 0
	f.Cluster = hosttest.Start(t, 3, func() []raftfsm.Group {
		i := started % 3
		started++
		var groups []raftfsm.Group
		for _, s := range f.shards {
			groups = append(groups, raftfsm.Group{ID: s.Group, Name: s.Name, Machine: stuck{NewMachine(nil, nil), &f.held[i], &f.broken[i]}})
		}
		return groups
	})
	f.Place(map[raftfsm.GroupID]raftfsm.Placement{1: f.Voters(0, 1, 2), 2: f.Voters(2)})
	for i := range 3 {
		f.services[i] = NewService(f.Host(i), f.shards, func() ([]byte, bool) { return testKey, true }, unpaced{})
	}
	f.Await("the shards to answer, and the second to have one replica", func() bool {
		for i := range 2 {
			if f.Host(i).Status()[1].Hosted {
				return false
			}
		}
		_, err := f.search(0, false)
		return err == nil
	})
	return f
}

func (f *failing) search(node int, all bool) (SearchResult, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	return f.services[node].Search(ctx, SearchRequest{Limit: PageMax, RequireComplete: all, Exact: true})
}

// ingest stores documents through a node and returns those of the first shard.
func (f *failing) ingest(node int, count int) (first int) {
	f.t.Helper()
	var docs []Document
	for i := range count {
		d := normal(f.t, Document{ID: fmt.Sprint("doc-", i), Time: int64(i + 1)})
		if docs = append(docs, d); f.services[node].router.shard(d.Tenant, d.ID) == 0 {
			first++
		}
	}
	r, err := f.services[node].Ingest(context.Background(), docs, "")
	if err != nil || r.Indexed != count {
		f.t.Fatalf("ingest: %+v, %v", r, err)
	}
	f.token = r.Positions
	return first
}

// With a node dead and a shard without quorum, every other node answers from the rest and says what
// is missing; who requires everything is told which shard cannot answer. When the node is back, the
// answers are complete.
func TestSearchWithANodeDeadAndAShardWithoutQuorum(t *testing.T) {
	f := newFailing(t)
	first := f.ingest(0, 60)
	f.Stop(2)
	for node := range 2 {
		f.Await("the first shard to have a leader", func() bool {
			r, err := f.search(node, false)
			return err == nil && r.Shards[0].State == ShardOK
		})
		r, err := f.search(node, false)
		if err != nil {
			t.Fatalf("node %d: %v", node, err)
		}
		if !f.fresh(r) {
			t.Errorf("node %d answers from before the documents were acknowledged: %+v, %+v", node, r.Shards, f.token)
		}
		f.Await("the second shard to be known as missing, and the first not to be", func() bool {
			r, err = f.search(node, false)
			return err == nil && slices.Equal(f.services[node].missing.lost(), []bool{false, true})
		})
		if !f.fresh(r) {
			t.Errorf("node %d, which knows that a shard is missing, answers from before: %+v, %+v", node, r.Shards, f.token)
		}
		if r.Complete || r.TotalExact || r.Total != first || len(r.Items) != first {
			t.Errorf("node %d: complete %v, total %d (exact %v), %d documents; want %d, a part", node, r.Complete, r.Total, r.TotalExact, len(r.Items), first)
		}
		if up, down := r.Shards[0], r.Shards[1]; up.State != ShardOK || up.Applied == 0 || up.Missing != "" ||
			down.State != ShardTimeout && down.State != ShardUnreachable || down.Missing == "" || down.Message == "" {
			t.Errorf("node %d: shards %+v", node, r.Shards)
		}
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		_, err = f.services[node].Search(ctx, SearchRequest{Limit: 10, RequireComplete: true})
		cancel()
		var shards *ShardsError
		if !errors.Is(err, ErrIncomplete) || !errors.As(err, &shards) || shards.Shards[0].State != ShardOK || shards.Shards[1].State == ShardOK {
			t.Errorf("node %d, everything required: %v", node, err)
		}
	}
	f.Start(2)
	f.services[2] = NewService(f.Host(2), f.shards, func() ([]byte, bool) { return testKey, true }, unpaced{})
	for node := range 3 {
		for _, all := range []bool{false, true} {
			f.Await("complete answers", func() bool {
				r, err := f.search(node, all)
				return err == nil && r.Complete && r.TotalExact && r.Total == 60
			})
		}
	}
}

// A shard that answers with an error is said to fail, not to be down.
func TestSearchTellsErrorsFromAbsence(t *testing.T) {
	f := newFailing(t)
	first := f.ingest(0, 40)
	f.broken[2].Store(true)
	leader := f.AwaitLeader("index-0")
	if leader == 2 {
		must(t, f.Host(2).Transfer(context.Background(), 1, f.Members()[0].ID))
		f.Await("another leader", func() bool {
			r, err := f.search(0, false)
			return err == nil && r.Shards[0].State == ShardOK
		})
	}
	for node := range 3 {
		r, err := f.search(node, false)
		if err != nil || r.Complete || r.Total != first || r.Shards[1].State != ShardError {
			t.Errorf("node %d: %+v, %v", node, r.Shards, err)
		}
	}
}

// While the replica that was asked hangs, another one answers in its place, as fresh and complete; it
// is counted. That is the node's own, or the leader's.
func TestSlowReplicaIsHedged(t *testing.T) {
	f := newFailing(t)
	f.ingest(0, 30)
	for node := range 2 { // the only replica of the other shard is on node 2, and cannot be hedged
		f.Await("the node's replica to have the documents, so that it is asked", func() bool {
			return f.Host(node).Status()[0].AppliedIndex >= f.token[0].Applied
		})
		f.held[node].Store(true)
		f.services[node].hedger.begin(hedgeShare * 2) // its budget
		before := f.services[node].Hedges()
		r, err := f.search(node, true)
		if err != nil || !r.Complete || r.Total != 30 || !f.fresh(r) {
			t.Errorf("node %d: %+v, %v", node, r, err)
		}
		if after := f.services[node].Hedges(); after.Won <= before.Won || after.Sent <= before.Sent {
			t.Errorf("node %d: hedges %+v, before %+v", node, after, before)
		}
		f.held[node].Store(false)
	}
}

// The delay is learned from what queries take, within bounds, and hedges are a part of the queries.
func TestHedgeDelayAndBudget(t *testing.T) {
	var h hedger
	if got := h.begin(1); got != hedgeFirst {
		t.Errorf("at first %v", got)
	}
	for i := range 100 {
		h.answered(time.Duration(i)*time.Millisecond, false)
	}
	if got := h.begin(1); got < 85*time.Millisecond || got > 99*time.Millisecond {
		t.Errorf("after 0 to 99 ms: %v", got)
	}
	for range hedgeSamples {
		h.answered(time.Microsecond, false)
	}
	if got := h.begin(1); got != hedgeLeast {
		t.Errorf("after fast ones: %v", got)
	}
	for range hedgeSamples {
		h.answered(time.Minute, true)
	}
	if got := h.begin(1); got != hedgeMost {
		t.Errorf("after slow ones: %v", got)
	}
	sent := 0
	for range 10_000 {
		h.begin(1)
		if h.spend() {
			sent++
		}
	}
	if sent < 10_000/hedgeShare || sent > 10_000/hedgeShare+hedgeBurst {
		t.Errorf("%d hedges of 10000 queries", sent)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
