package index

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/maestro-conductor/maestro/internal/objectstore"
	"github.com/maestro-conductor/maestro/raftfsm"
)

// In a region whose store is away, every node's searches, lookups and lineages say that cold segments are missing, within the
// normal time, with what is at hand; who requires everything is refused; when the store is back, they are complete.
func TestRegionSaysWhatItsColdStoreLacks(t *testing.T) {
	dir := t.TempDir()
	f := newTrio(t, 512, func(m *Machine, _ int) {
		c, err := objectstore.NewCache(objectstore.NewDir(dir), filepath.Join(t.TempDir(), "cache"), 1<<20)
		must(t, err)
		m.UseObjects(c)
	})
	f.ingest(0, 4*512+100)
	f.settle()
	leader := f.AwaitLeader("index-0")
	for _, m := range f.machines { // as if a minute had passed
		last := mark{number: m.docs, time: m.clock.last.time, wall: m.clock.last.wall}
		key := markKey(last.time)
		overwrite(t, m, key, append(key, 0), map[string][]byte{string(key): last.encode()})
	}
	must(t, f.machines[leader].freezeAll(context.Background(), &Freezer{
		Owner: "region", Shard: "index-0", Level: func() int { return raftfsm.LevelCurrent }, Peers: hostPeers{f, leader},
		Stopped: func() bool { return false }, Log: f.keepers[leader].Log,
		Propose: func(ctx context.Context, c []byte) ([]byte, error) {
			r, err := f.Host(leader).Propose(ctx, trioGroup, raftfsm.Command{Data: c})
			return r.Data, err
		},
	}, time.Now))
	f.settle()
	for i, m := range f.machines {
		if m.Cold() != 1 {
			t.Fatalf("node %d has %d cold segments", i, m.Cold())
		}
	}
	f.right("", f.docs)
	flip(t, f.machines[1], 0, 0, 3) // what the rows keep of a cold segment is mended as any other
	f.machines[1].readAll(context.Background(), f.keepers[1])
	if w := f.machines[1].Wholeness(); w.Unsound != 1 {
		t.Fatalf("%+v", w)
	}
	f.keep(1)
	f.settle()
	f.right("", f.docs)
	for i := range 3 { // without what they have cached
		f.Stop(i)
		f.start(i)
	}
	f.AwaitLeader("index-0")
	away := dir + "-away"
	must(t, os.Rename(dir, away))
	all := SearchRequest{Limit: 100, Exact: true, Order: OrderOldest}
	oldest := benchDocument(0).Digests[2]
	for i, s := range f.services {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		begun := time.Now()
		r, err := s.Search(ctx, all)
		if err != nil || r.Complete || r.TotalExact || r.Shards[0].State != ShardPartial || !strings.HasPrefix(r.Shards[0].Missing, "1 cold segments with 2048 documents") || len(r.Items) == 0 {
			t.Errorf("node %d: %+v, %d documents, %v", i, r.Shards, len(r.Items), err)
		}
		t.Logf("node %d: %v, %q", i, time.Since(begun), r.Shards[0].Missing)
		required := all
		required.RequireComplete = true
		if _, err := s.Search(ctx, required); !errors.Is(err, ErrIncomplete) {
			t.Errorf("node %d, everything required: %v", i, err)
		}
		look, err := s.Lookup(ctx, LookupRequest{Digests: []string{FormatDigest(oldest.Algorithm, oldest.Value)}, Documents: 1})
		if err != nil || look.Complete || look.Shards[0].State != ShardPartial {
			t.Errorf("node %d, lookup: %+v, %v", i, look.Shards, err)
		}
		walk, err := s.Lineage(ctx, LineageRequest{Digest: FormatDigest(oldest.Algorithm, oldest.Value), Direction: LineageUp, Depth: 2, Documents: 10, Digests: 10})
		if err != nil || walk.Complete || walk.Shards[0].State != ShardPartial {
			t.Errorf("node %d, lineage: %+v, %v", i, walk.Shards, err)
		}
	}
	must(t, os.Rename(away, dir))
	f.Await("complete answers", func() bool {
		for _, s := range f.services {
			if r, err := s.Search(context.Background(), all); err != nil || !r.Complete || r.Total != f.docs {
				return false
			}
		}
		return true
	})
}
