package index

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/maestro-conductor/maestro/raftfsm"
	"github.com/maestro-conductor/maestro/raftfsm/hosttest"
)

// trio is a real region of three nodes with one shard of small heads, whose replicas keep their segments whole.
type trio struct {
	*hosttest.Cluster
	t        *testing.T
	heads    int
	prepare  func(m *Machine, node int)
	machines [3]*Machine
	services [3]*Service
	keepers  [3]*Keeper
	docs     int
}

const trioGroup raftfsm.GroupID = 1

// hostPeers are the replicas of the shard beside a node's.
type hostPeers struct {
	f    *trio
	node int
}

func (p hostPeers) Others() []string { return p.f.Host(p.node).OtherReplicas(trioGroup) }

func (p hostPeers) Ask(ctx context.Context, member string, query []byte) ([]byte, error) {
	a, err := p.f.Host(p.node).QueryMember(ctx, trioGroup, member, query)
	return a.Data, err
}

func newTrio(t *testing.T, headDocuments int, prepare func(m *Machine, node int)) *trio {
	f := &trio{t: t, heads: headDocuments, prepare: prepare}
	starting := 0
	f.Cluster = hosttest.Start(t, 3, func() []raftfsm.Group {
		i := starting
		m := newMachine(f.heads, 4)
		if f.prepare != nil {
			f.prepare(m, i)
		}
		f.machines[i] = m
		return []raftfsm.Group{{ID: trioGroup, Name: "index-0", Machine: m, OnLeader: func(ctx context.Context) {
			m.Lead(ctx, func() byte { return layoutNewest }, func(ctx context.Context, c []byte) error { return f.propose(ctx, i, c) })
		}}}
	}, hosttest.Hold(), hosttest.Configure(func(i int, _ *raftfsm.Options) { starting = i }))
	for i := range 3 {
		f.start(i)
	}
	f.AwaitLeader("index-0")
	return f
}

func (f *trio) propose(ctx context.Context, node int, command []byte) error {
	h := f.Host(node)
	if h == nil {
		return raftfsm.ErrShutdown
	}
	_, err := h.Propose(ctx, trioGroup, raftfsm.Command{Data: command})
	return err
}

// start runs a node, whose replica keeps its segments whole from keep on.
func (f *trio) start(i int) {
	f.t.Helper()
	f.Start(i)
	f.services[i] = NewService(f.Host(i), []Shard{{Name: "index-0", Group: trioGroup}}, func() ([]byte, bool) { return testKey, true }, unpaced{})
	f.keepers[i] = &Keeper{
		Shard: "index-0", Peers: hostPeers{f, i}, Every: time.Hour, BytesPerSecond: 1 << 30, Log: slog.New(slog.DiscardHandler),
		Propose: func(ctx context.Context, c []byte) error { return f.propose(ctx, i, c) },
	}
}

func (f *trio) keep(i int) { f.machines[i].Attend(f.keepers[i]) }

// ingest stores n more documents.
func (f *trio) ingest(node, n int) {
	f.t.Helper()
	var docs []Document
	for range n {
		d := benchDocument(f.docs)
		d.ID = fmt.Sprint("doc-", f.docs)
		docs = append(docs, normal(f.t, d))
		f.docs++
	}
	r, err := f.services[node].Ingest(context.Background(), docs, "")
	if err != nil || r.Indexed != n {
		f.t.Fatalf("ingest: %+v, %v", r, err)
	}
}

// settle waits until all that is sealed is in the state of all replicas, and nothing is to be merged or mended.
func (f *trio) settle() {
	f.t.Helper()
	f.Await("all replicas to have moved and merged what they have", func() bool {
		for _, m := range f.machines {
			m.mu.RLock()
			ok := m.docs == uint64(f.docs) && m.moved == m.docs/uint64(m.headDocuments)*uint64(m.headDocuments) && m.merged == nil && m.mergeRun() == nil &&
				len(m.unsound) == 0 && m.pending == nil
			m.mu.RUnlock()
			if !ok {
				return false
			}
		}
		return true
	})
	f.equal()
}

// equal waits until the states of all nodes have one hash.
func (f *trio) equal() {
	f.t.Helper()
	f.Await("the states to be equal", func() bool {
		seen := map[string]bool{}
		for i := range 3 {
			states, err := f.Host(i).States()
			if err != nil || len(states) != 1 {
				return false
			}
			seen[states[0].Hash] = true
		}
		return len(seen) == 1
	})
}

// right searches at every node that runs: the answer must be complete and have every document.
func (f *trio) right(query string, want int) {
	f.t.Helper()
	for i := range 3 {
		if f.Host(i) == nil {
			continue
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		r, err := f.services[i].Search(ctx, SearchRequest{Query: query, Limit: PageMax, RequireComplete: true, Exact: true})
		cancel()
		if err != nil || !r.Complete || r.Total != want || len(r.Items) != min(want, PageMax) {
			f.t.Fatalf("node %d, %q: %d of %d documents, total %d, complete %v: %v", i, query, len(r.Items), want, r.Total, r.Complete, err)
		}
	}
}
