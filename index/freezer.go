package index

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"log/slog"
	"math"
	"strings"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/maestro-conductor/maestro/index/internal/segment"
	"github.com/maestro-conductor/maestro/internal/objectstore"
	"github.com/maestro-conductor/maestro/raftfsm"
)

const (
	// freezePause is how often a shard's leader looks for segments that have become old enough.
	freezePause = time.Minute
	// orphanAfter is how long after an upload whose leader died the object is given up, unless another leader has named
	// it: longer than any upload takes, and many tries.
	orphanAfter = 24 * time.Hour
	// storeTimeout bounds one deletion, and goneFor is how long its name cannot be used again: a deletion that comes
	// late, of a leader that is none any more, must not meet a new object.
	storeTimeout = time.Minute
	goneFor      = time.Hour
	// objectSuffix is how names of objects end.
	objectSuffix = ".segment"
)

// Freezer is what the leader of a shard makes segments cold with.
type Freezer struct {
	// Owner is the region's id: this region removes no objects but its own. Shard is the shard's name.
	Owner, Shard string
	// Level is the region's.
	Level func() int
	// After is how long ago the last document of a segment must have arrived.
	After time.Duration
	// Keep is how long an object stays in the store once no segment is in it any more, for backups that name it.
	Keep  time.Duration
	Peers Peers
	// Propose has the log execute a command, and returns its result.
	Propose func(ctx context.Context, command []byte) ([]byte, error)
	// Stopped tells that what is stored is to stay as it is.
	Stopped func() bool
	Log     *slog.Logger

	swept time.Time
}

// Freeze makes old segments cold and removes objects that nobody needs, while this node leads the shard and until ctx ends.
func (m *Machine) Freeze(ctx context.Context, f *Freezer) {
	for ctx.Err() == nil {
		if err := m.freezeAll(ctx, f, time.Now); err != nil && ctx.Err() == nil {
			f.Log.Warn("cold segments: will be tried again", "shard", f.Shard, "err", err)
		}
		pause(ctx, freezePause)
	}
}

// freezeAll does all there is to do now.
func (m *Machine) freezeAll(ctx context.Context, f *Freezer, wall func() time.Time) error {
	if m.objects == nil || f.Level() < raftfsm.LevelCold || f.Stopped() {
		return nil
	}
	// The entry tells the time, and marks what has arrived by it.
	if _, err := f.Propose(ctx, retentionHeader(retentionMark)); err != nil {
		return err
	}
	for last := uint64(math.MaxUint64); ctx.Err() == nil; {
		s, row, err := m.nextToFreeze(f)
		if err != nil {
			return err
		}
		if s == nil {
			break
		}
		if s.Base() == last {
			return errors.Join(fmt.Errorf("index: the log has refused the cold segment of the documents from %d on; it is tried again later", last), s.release())
		}
		last = s.Base()
		err = m.freezeOne(ctx, f, s, row)
		if err = errors.Join(err, s.release()); err != nil {
			return err
		}
	}
	return errors.Join(m.removeGone(ctx, f), m.sweep(ctx, f, wall()))
}

// nextToFreeze is the oldest segment that is to become cold, held; nil when there is none.
func (m *Machine) nextToFreeze(f *Freezer) (*sealed, segmentRow, error) {
	m.life.RLock()
	defer m.life.RUnlock()
	old, err := markAt(m.store, m.now.Load()-f.After.Microseconds())
	if err != nil {
		return nil, segmentRow{}, err
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	for _, s := range m.segments {
		if !s.stored || s.cold.Load() || int(s.width) != m.headDocuments*m.mergedHeads || s.Base()+s.width > old.number {
			continue
		}
		if m.doubted(s.Base()) != nil || m.pending != nil && m.pending.first == s.Base() {
			continue
		}
		row, err := m.rowOf(s.Base())
		if err != nil {
			return nil, row, err
		}
		s.hold()
		return s.sealed, row, nil
	}
	return nil, segmentRow{}, nil
}

// freezeOne stores a segment as an object, makes sure that all replicas can read it, and has the log make it cold.
func (m *Machine) freezeOne(ctx context.Context, f *Freezer, s *sealed, row segmentRow) error {
	sum, err := sumOfSegment(s.file, row)
	if err != nil {
		return s.note(err)
	}
	spans, err := s.Needed(coldGroups)
	if err != nil {
		return s.note(err)
	}
	row.object = objectName(f.Owner, f.Shard, s.Base(), sum)
	row.kept = encodeRuns(runsOf(spans))
	if len(row.kept) > keptMax {
		return fmt.Errorf("index: the segment of the documents from %d on has too many parts to keep", s.Base())
	}
	store := m.objects.Store()
	if err := store.Put(ctx, row.object, s.file, int64(row.size)); err != nil {
		return err
	}
	// One that is damaged is written again the next time.
	if stored, err := sumOfSegment(objectReader{ctx, store, row.object}, row); err != nil || stored != sum {
		return fmt.Errorf("index: object %s is not what was stored: %w", row.object, errors.Join(err, segment.ErrCorrupt))
	}
	for _, member := range f.Peers.Others() {
		if _, err := f.Peers.Ask(ctx, member, appendIdentity([]byte{wirePeer, peerObject}, s.Base(), row)); err != nil {
			return fmt.Errorf("index: node %s cannot read object %s, and every replica must before it becomes cold: %w", member, row.object, err)
		}
	}
	got, err := f.Propose(ctx, encodeFreeze(s.Base(), row))
	if err == nil && bytes.Equal(got, resultDone) {
		f.Log.Info("a segment is cold", "shard", f.Shard, "documents_from", s.Base(), "object", row.object)
	}
	return err
}

// objectName names an object for its region, shard, first document and content.
func objectName(owner, shard string, first uint64, sum [sha256.Size]byte) string {
	return fmt.Sprintf("%s%016x-%s%s", objectPrefix(owner, shard), first, hex.EncodeToString(sum[:]), objectSuffix)
}

func objectPrefix(owner, shard string) string { return owner + "/" + shard + "/" }

// sumOfSegment reads a segment whole and compares it with the digest of its row.
func sumOfSegment(r io.ReaderAt, row segmentRow) (sum [sha256.Size]byte, err error) {
	var all hash.Hash = sha256.New()
	own := segmentSum{size: row.size, hash: xxhash.New()}
	buf := make([]byte, 1<<20)
	for at := uint64(0); at < row.size; {
		b := buf[:min(uint64(len(buf)), row.size-at)]
		if _, err := r.ReadAt(b, int64(at)); err != nil {
			return sum, err
		}
		all.Write(b)
		own.write(b)
		at += uint64(len(b))
	}
	if own.hash.Sum64() != row.digest {
		return sum, fmt.Errorf("%w: its bytes do not have its digest", segment.ErrCorrupt)
	}
	return [sha256.Size]byte(all.Sum(nil)), nil
}

// objectReader reads an object past the cache.
type objectReader struct {
	ctx   context.Context
	store objectstore.Store
	name  string
}

func (r objectReader) ReadAt(b []byte, at int64) (int, error) {
	if err := r.store.ReadAt(r.ctx, r.name, b, at); err != nil {
		return 0, err
	}
	return len(b), nil
}

// readsObject is an error unless this replica has the segment that is to become cold, and its store has the same bytes at
// both ends.
func (m *Machine) readsObject(first uint64, row segmentRow) error {
	if m.objects == nil {
		return errors.New("no store for cold segments is configured there")
	}
	for _, at := range []int64{0, max(0, int64(row.size)-peerBytesMax)} {
		plain := segmentRow{docs: row.docs, size: row.size, digest: row.digest, generation: row.generation}
		want, err := m.bytesOf(first, plain, at, peerBytesMax)
		if err != nil {
			return err
		}
		got := make([]byte, len(want))
		if err := m.objects.ReadAt(row.object, int64(row.size), got, at); err != nil {
			return err
		}
		if !bytes.Equal(got, want) {
			m.objects.Drop(row.object, at, len(got)) // it may be written again
			return fmt.Errorf("%w: the object has other bytes than the segment", segment.ErrCorrupt)
		}
	}
	return nil
}

// removeGone removes objects that no segment is in any more and no backup that is kept names.
func (m *Machine) removeGone(ctx context.Context, f *Freezer) error {
	gone, err := m.goneObjects()
	if err != nil {
		return err
	}
	for object, since := range gone { // any order
		if m.now.Load()-since < f.Keep.Microseconds() {
			continue
		}
		// What a region that was restored from a backup names belongs to the other region.
		if strings.HasPrefix(object, objectPrefix(f.Owner, f.Shard)) {
			if err := deleteObject(ctx, m.objects.Store(), object); err != nil {
				return err
			}
		}
		if m.now.Load()-since < (f.Keep + goneFor).Microseconds() {
			continue
		}
		if _, err := f.Propose(ctx, encodeForget(object)); err != nil {
			return err
		}
	}
	return nil
}

func deleteObject(ctx context.Context, store objectstore.Store, object string) error {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	return store.Delete(ctx, object)
}

// goneObjects are those that no segment is in any more, and since when.
func (m *Machine) goneObjects() (map[string]int64, error) {
	m.life.RLock()
	defer m.life.RUnlock()
	all := map[string]int64{}
	err := eachRow(m.store, []byte{tableGone}, []byte{tableGone + 1}, func(key, value []byte) error {
		if len(value) != 8 {
			return errors.New("index: the row of an object is damaged")
		}
		all[string(key[1:])] = int64(binary.BigEndian.Uint64(value))
		return nil
	})
	return all, err
}

// sweep gives up what leaders stored that died before an entry named it.
func (m *Machine) sweep(ctx context.Context, f *Freezer, now time.Time) error {
	if now.Sub(f.swept) < orphanAfter/4 {
		return nil
	}
	var old []string
	store := m.objects.Store()
	err := store.List(ctx, objectPrefix(f.Owner, f.Shard), func(name string, modified time.Time) error {
		if strings.HasSuffix(name, objectSuffix) && now.Sub(modified) > orphanAfter {
			old = append(old, name)
		}
		return nil
	})
	if err != nil {
		return err
	}
	known, err := m.goneObjects()
	if err != nil {
		return err
	}
	own, err := m.ownSegments()
	if err != nil {
		return err
	}
	for _, row := range own { // any order
		known[row.object] = 0
	}
	for _, name := range old {
		if _, ok := known[name]; !ok {
			if _, err := f.Propose(ctx, encodeAbandon(name)); err != nil {
				return err
			}
		}
	}
	f.swept = now
	return nil
}
