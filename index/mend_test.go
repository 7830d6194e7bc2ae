package index

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"iter"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/maestro-conductor/maestro/index/internal/segment"
)

// overwrite changes rows of a node's state behind the machine's back.
func overwrite(t *testing.T, m *Machine, lower, upper []byte, rows map[string][]byte) {
	t.Helper()
	var seq iter.Seq2[[]byte, []byte] = func(yield func(k, v []byte) bool) {
		for _, key := range slices.Sorted(maps.Keys(rows)) {
			yield([]byte(key), rows[key])
		}
	}
	must(t, m.store.Exchange(lower, upper, seq))
}

// flip changes a byte of a piece of the segment with the first document.
func flip(t *testing.T, m *Machine, first uint64, n uint32, at int) {
	t.Helper()
	m.mu.RLock()
	row, err := m.rowOf(first)
	m.mu.RUnlock()
	must(t, err)
	key := pieceKey(first, row.tag(), n)
	v, err := m.store.Get(key)
	must(t, err)
	v[(at+len(v))%len(v)] ^= 0x20
	overwrite(t, m, key, pieceKey(first, row.tag(), n+1), map[string][]byte{string(key): v})
}

// A changed byte in any part of a replica's segment is found by reading it, while all nodes go on to answer
// completely and rightly, also the damaged one, and whoever leads; then the segment is made whole by another replica's bytes.
func TestDamagedSegmentsAreMended(t *testing.T) {
	f := newTrio(t, 512, nil)
	f.ingest(0, 4*512+100)
	f.settle()
	for node := range 3 {
		for _, at := range []int{100, 20_000, -1} {
			m := f.machines[node]
			flip(t, m, 0, 0, at)
			m.readAll(context.Background(), f.keepers[node])
			if w := m.Wholeness(); w.Unsound != 1 {
				t.Fatalf("node %d, byte %d: %+v", node, at, w)
			}
			f.right("", f.docs)
			f.ingest(node, 3) // and one sent again, which is looked up in the damaged segment
			if r, err := f.services[node].Ingest(context.Background(), []Document{normal(t, benchDocument(0))}, ""); err != nil || r.Indexed+r.Existing != 1 {
				t.Fatalf("%+v, %v", r, err)
			} else if r.Indexed == 1 {
				f.docs++
			}
			f.keep(node)
			f.settle()
			f.right("", f.docs)
			m.Attend(nil)
		}
		if w := f.machines[node].Wholeness(); w.Damaged != 3 || w.Mended != 3 || w.Unsound != 0 {
			t.Errorf("node %d: %+v", node, w)
		}
	}
}

// A node whose segment cannot even be opened starts, has others answer its searches, takes part, and becomes whole.
func TestNodeStartsWithADamagedSegment(t *testing.T) {
	f := newTrio(t, 512, nil)
	f.ingest(0, 3*512+100)
	f.settle()
	m := f.machines[1]
	row, err := m.rowOf(512)
	must(t, err)
	flip(t, m, 512, row.pieces()-1, -1)
	f.Stop(1)
	f.start(1)
	f.ingest(0, 700)
	f.right("", f.docs)
	if _, err := f.machines[1].Query(context.Background(), (&shardQuery{limit: 1}).encode()); !errors.Is(err, segment.ErrCorrupt) {
		t.Errorf("the damaged replica itself: %v", err)
	}
	f.Stop(1) // while an entry waits to be applied
	f.start(1)
	f.keep(1)
	f.settle()
	f.right("", f.docs)
}

// What the disk does not give back as it was stored is mended too: nothing reads it any more.
func TestDamagedDiskIsMended(t *testing.T) {
	f := newTrio(t, 512, nil)
	f.ingest(0, 3*512+100)
	f.settle()
	m := f.machines[2]
	row, err := m.rowOf(512)
	must(t, err)
	key := pieceKey(512, row.tag(), 0)
	v, err := m.store.Get(key)
	must(t, err)
	overwrite(t, m, key, pieceKey(512, row.tag(), 1), map[string][]byte{string(key): v}) // into a table of its own
	f.Stop(2)
	f.start(2) // which writes what its log has
	f.Stop(2)
	damaged := 0
	must(t, filepath.WalkDir(f.Dir(2), func(path string, d fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".sst") {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for at := bytes.Index(b, v[500:600]); at >= 0; at = -1 {
			b[at+50] ^= 1
			damaged++
			return os.WriteFile(path, b, 0o600)
		}
		return nil
	}))
	if damaged == 0 {
		t.Fatal("the table is not found")
	}
	f.start(2)
	f.right("", f.docs)
	f.machines[2].readAll(context.Background(), f.keepers[2])
	if w := f.machines[2].Wholeness(); w.Unsound != 1 {
		t.Fatalf("%+v", w)
	}
	f.keep(2)
	f.settle()
	f.right("", f.docs)
}

// A segment that is well-formed and another one than most replicas have is exchanged for theirs.
func TestDifferingSegmentIsMended(t *testing.T) {
	f := newTrio(t, 512, nil)
	f.ingest(0, 2*512+100)
	f.settle()
	m := f.machines[0]
	row, err := m.rowOf(0)
	must(t, err)
	var b bytes.Buffer
	keep := func(_ int, local uint32) bool { return local != 77 }
	must(t, segment.Merge(&b, m.segments[0].Version(), 0, []*segment.Segment{m.segments[0].Segment}, keep, func() error { return nil }))
	fewer, err := segment.Open(bytes.NewReader(b.Bytes()), int64(b.Len()), m.cache)
	must(t, err)
	other := segmentRow{docs: row.docs, size: uint64(b.Len()), digest: fewer.Digest()}
	pieces := map[string][]byte{}
	for n := range other.pieces() {
		pieces[string(pieceKey(0, other.tag(), n))] = b.Bytes()[int(n)*pieceBytes : min(b.Len(), int(n+1)*pieceBytes)]
	}
	overwrite(t, m, pieceKey(0, row.tag(), 0), pieceKey(0, row.tag()+1, 0), pieces)
	overwrite(t, m, segmentKey(0), segmentKey(1), map[string][]byte{string(segmentKey(0)): other.encode()})
	f.Stop(0)
	f.start(0)
	m = f.machines[0]
	m.compare(context.Background(), f.keepers[0])
	if w := m.Wholeness(); w.Unsound != 1 {
		t.Fatalf("%+v", w)
	}
	for i := range 3 {
		f.keep(i)
		if i > 0 {
			f.machines[i].compare(context.Background(), f.keepers[i])
		}
	}
	f.settle()
	f.right("", f.docs)
	if a, b := f.machines[1].Wholeness(), f.machines[2].Wholeness(); a.Damaged+b.Damaged > 0 {
		t.Errorf("the others: %+v, %+v", a, b)
	}
}

// A leader whose own state is damaged disposes of nothing that others would keep, and stops nobody.
func TestDamagedLeaderStopsNobody(t *testing.T) {
	k := filled(t, 3)
	before := len(k.query(""))
	k.policy = RetentionPolicy{Version: 1, Rules: []RetentionRule{{Tenant: "acme", Age: 30 * time.Second * 2}}}
	m := k.leader()
	// Its marks say that much more had arrived early.
	must(t, eachRow(m.store, []byte{tableMark}, []byte{tableMark + 1}, func(key, value []byte) error {
		mk, err := decodeMark(key, value)
		mk.number = m.docs
		k.replicas[0].Overwrite(bytes.Clone(key), mk.encode())
		return err
	}))
	k.replicas[0].Restart()
	wall := func() time.Time { return k.replicas[0].Wall }
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	k.pass(time.Minute)
	if err := k.leader().retainAll(ctx, k.retainer, wall); !errors.Is(err, errDisagree) {
		t.Fatalf("the damaged leader: %v", err)
	}
	if after := len(k.query("")); after != before {
		t.Errorf("%d documents are left of %d", after, before)
	}
}
