package index

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/maestro-conductor/maestro/raftfsm"
	"github.com/maestro-conductor/maestro/raftfsm/fsmtest"
)

// region is a service over shards that need no Raft: proposals are applied one by one.
type region struct {
	t       testing.TB
	service *Service
	shards  []Shard

	level int // 0 is the current one

	mu      sync.Mutex // Propose and Restart
	drivers []*fsmtest.Driver
	// moves is whether sealed documents are moved into the state.
	moves bool
	// fail, when set, answers instead of a shard.
	fail func(group raftfsm.GroupID, write bool) error
}

var testKey = []byte("a secret of the region, 32 bytes")

func newRegion(t testing.TB, shards, headDocuments int) *region {
	r := &region{t: t, moves: true}
	for i := range shards {
		r.shards = append(r.shards, Shard{Name: fmt.Sprintf("index-%d", i), Group: raftfsm.GroupID(i)})
		r.drivers = append(r.drivers, fsmtest.New(t, func() raftfsm.Machine { return newMachine(headDocuments, 4) }))
	}
	r.service = NewService(r, r.shards, func() ([]byte, bool) { return testKey, true }, unpaced{})
	return r
}

func (r *region) Level() int { return cmp.Or(r.level, raftfsm.LevelCurrent) }

func (r *region) Propose(_ context.Context, group raftfsm.GroupID, cmd raftfsm.Command) (raftfsm.Result, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.fail != nil {
		if err := r.fail(group, true); err != nil {
			return raftfsm.Result{}, &raftfsm.Error{Op: "propose", Group: r.shards[group].Name, Outcome: raftfsm.OutcomeUnknown, Err: err}
		}
	}
	a := r.drivers[group].Propose(cmd)[0]
	if r.moves {
		lead(r.drivers[group])
	}
	return a.Result, a.Err
}

// lead applies what the leader of a shard would have in the log by now.
func lead(d *fsmtest.Driver) {
	m := d.Machine().(*Machine)
	for {
		m.mu.Lock()
		next := m.nextCommands(layoutNewest)
		m.mu.Unlock()
		if next == nil {
			return
		}
		for _, c := range next {
			d.Apply(c)
		}
	}
}

func (r *region) Query(ctx context.Context, group raftfsm.GroupID, q []byte, _ raftfsm.Consistency) (raftfsm.Answer, error) {
	r.mu.Lock()
	fail, m := r.fail, r.drivers[group].Machine()
	r.mu.Unlock()
	if fail != nil {
		if err := fail(group, false); err != nil {
			return raftfsm.Answer{}, &raftfsm.Error{Op: "query", Group: r.shards[group].Name, Err: err}
		}
	}
	b, err := m.Query(ctx, q)
	return raftfsm.Answer{Data: b, Applied: 1}, err
}

func (r *region) restart(shard int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.drivers[shard].Restart()
}

func (r *region) machine(shard int) *Machine { return r.drivers[shard].Machine().(*Machine) }

// settle waits until every frozen head is a segment, and nothing is to be merged or repaired.
func (m *Machine) settle(t testing.TB) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for len(m.frozen) > 0 || m.damaged != nil || m.mergeable() != nil || m.outdatedFile() != nil {
		if m.failed != nil {
			t.Fatalf("sealer: %v", m.failed)
		}
		m.changed.Wait()
	}
}

func (r *region) ingest(docs ...Document) IngestResult {
	r.t.Helper()
	res, err := r.service.Ingest(context.Background(), slices.Clone(docs), "")
	if err != nil {
		r.t.Fatalf("ingest: %v", err)
	}
	if got := res.Indexed + res.Existing + len(res.Refusals); got != len(docs) {
		r.t.Fatalf("%d documents are accounted for, not %d", got, len(docs))
	}
	return res
}

func (r *region) search(req SearchRequest) SearchResult {
	r.t.Helper()
	res, err := r.service.Search(context.Background(), req)
	if err != nil {
		r.t.Fatalf("search %q: %v", req.Query, err)
	}
	return res
}

// ids searches for the first page of ids.
func (r *region) ids(q string) []string {
	r.t.Helper()
	return idsOf(r.search(SearchRequest{Query: q, Limit: PageMax}).Items)
}

// pages reads a search to its end.
func (r *region) pages(req SearchRequest, between func()) (all []Document, first SearchResult) {
	r.t.Helper()
	for n := 0; ; n++ {
		res := r.search(req)
		if n == 0 {
			first = res
		}
		if res.Total != first.Total || res.TotalExact != first.TotalExact {
			r.t.Fatalf("search %q: the total changed from page to page: %d %v, then %d %v", req.Query, first.Total, first.TotalExact, res.Total, res.TotalExact)
		}
		all = append(all, res.Items...)
		if res.Last != (res.Next == "") {
			r.t.Fatalf("search %q: last is %v, and next %q", req.Query, res.Last, res.Next)
		}
		if res.Next == "" {
			return all, first
		}
		if len(res.Items) == 0 || n > 10_000 {
			r.t.Fatalf("search %q: page %d is empty but has a next one", req.Query, n)
		}
		req.Cursor = res.Next
		if between != nil {
			between()
		}
	}
}

func idsOf(docs []Document) []string {
	out := make([]string, len(docs))
	for i, d := range docs {
		out[i] = d.ID
	}
	return out
}

// normal normalises a document that is meant to be right.
func normal(t testing.TB, d Document) Document {
	t.Helper()
	if d.Kind == "" {
		d.Kind = KindReceipt
	}
	if d.Tenant == "" {
		d.Tenant = "acme"
	}
	if err := Normalize(&d); err != nil {
		t.Fatalf("normalize: %v", err)
	}
	return d
}

// sha makes a sha256 digest that begins with the given byte.
func sha(first byte, direction string) Digest {
	v := make([]byte, 32)
	v[0] = first
	return Digest{Algorithm: "sha256", Value: hex.EncodeToString(v), Direction: direction}
}

var errDown = errors.New("down")

// unpaced lets everything through.
type unpaced struct{}

func (unpaced) Enter(int) error                 { return nil }
func (unpaced) Wait(context.Context, int) error { return nil }
func (unpaced) Leave(int)                       {}
