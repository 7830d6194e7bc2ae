package raftfsm

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/maestro-conductor/maestro/internal/wire"
)

// BackupChunk is a part of a group's rows as of one moment.
type BackupChunk struct {
	// Position is that moment.
	Index, Term uint64
	Time        int64
	// Rows are the rows that DecodeRows gives, Count how many.
	Rows  []byte
	Count uint64
	// Last is true when no chunk follows.
	Last bool
}

const backupVersion = 1

// backupSession is the reading of a group by one reader, as of the moment it began.
type backupSession struct {
	g *group

	mu     sync.Mutex
	it     *pebble.Iterator // nil after the last chunk
	ended  bool
	pos    Position
	ranges [][2][]byte
	// started is true while it stands on a row of ranges[0].
	started bool
	// last is chunk number next-1, for a reader whom it has not reached.
	last BackupChunk
	next uint64
	idle *time.Timer

	began time.Time
	// finished is true once the last chunk was read.
	finished bool
}

// What became of a reading, in metrics.
const (
	backupStarted  = "started"
	backupFinished = "finished"
	backupFailed   = "failed"
)

// backupSessions are the readings that this node serves. They are few, because each pins the
// rows of its moment on the disk.
type backupSessions struct {
	mu sync.Mutex
	by map[BackupID]*backupSession
}

// ReadBackup reads a chunk of a group's rows at its leader. Chunk 0 begins a reading, as of a
// moment after the call, and ends an earlier one of the same id, which the caller chose; the
// others follow one by one, and the last one that was read may be read again. ErrBackupGone
// means that it has to begin anew, ErrOverloaded that the leader serves as many as it may.
func (h *Host) ReadBackup(ctx context.Context, id GroupID, reading BackupID, chunk uint64) (BackupChunk, error) {
	s, err := h.seat(id)
	if err != nil {
		return BackupChunk{}, err
	}
	payload := binary.AppendUvarint(append([]byte{backupVersion}, reading[:]...), chunk)
	var answer []byte
	err = h.atLeader(ctx, s, "backup", true, func(ctx context.Context, g *group) (err error) {
		answer, err = g.readBackup(ctx, payload)
		return err
	}, func(ctx context.Context, l *link) error {
		r, err := s.ask(ctx, l, "backup", kindBackup, payload)
		answer = r.payload
		return err
	})
	if err != nil {
		return BackupChunk{}, err
	}
	return decodeBackupChunk(answer)
}

func (c BackupChunk) encode() []byte {
	b := []byte{backupVersion, boolByte(c.Last)}
	for _, v := range [...]uint64{c.Index, c.Term, uint64(c.Time), c.Count} {
		b = binary.AppendUvarint(b, v)
	}
	return append(b, c.Rows...)
}

func decodeBackupChunk(b []byte) (BackupChunk, error) {
	r := wire.NewReader(b)
	v := r.Byte(backupVersion)
	c := BackupChunk{
		Last:  r.Byte(1) == 1,
		Index: r.Uvarint(math.MaxUint64), Term: r.Uvarint(math.MaxUint64), Time: int64(r.Uvarint(math.MaxInt64)),
		Count: r.Uvarint(math.MaxUint64),
	}
	c.Rows = r.Rest()
	if err := r.Done(); err != nil || v != backupVersion {
		return BackupChunk{}, errors.New("raftfsm: malformed chunk of a backup")
	}
	return c, nil
}

// readBackup answers ReadBackup on this node, which must lead.
func (g *group) readBackup(ctx context.Context, payload []byte) ([]byte, error) {
	r := wire.NewReader(payload)
	v := r.Byte(backupVersion)
	id := BackupID(r.Fixed(len(BackupID{})))
	n := r.Uvarint(math.MaxUint64)
	if err := r.Done(); err != nil || v != backupVersion {
		return nil, errors.New("raftfsm: malformed reading of a backup")
	}
	c, err := g.backupChunk(ctx, id, n)
	if err == nil {
		// Within what a node may send of its state, transfers included.
		err = g.host.copies.pace.wait(ctx, len(c.Rows))
	}
	if err != nil {
		return nil, g.fail("backup", OutcomeDefinite, err)
	}
	return c.encode(), nil
}

func (g *group) backupChunk(ctx context.Context, id BackupID, n uint64) (BackupChunk, error) {
	sessions := &g.host.backups
	s := sessions.find(id, g)
	if n == 0 {
		if err := g.confirmApplied(ctx); err != nil {
			return BackupChunk{}, err
		}
		if err := sessions.take(id); err != nil {
			return BackupChunk{}, err
		}
		var err error
		if s, err = sessions.open(id, g); err != nil {
			return BackupChunk{}, err
		}
	}
	if s == nil {
		return BackupChunk{}, ErrBackupGone
	}
	c, err := s.read(n)
	if err != nil && !errors.Is(err, ErrBackupGone) {
		err = errors.Join(err, sessions.end(id, s))
	}
	return c, err
}

func (b *backupSessions) find(id BackupID, g *group) *backupSession {
	b.mu.Lock()
	defer b.mu.Unlock()
	if s := b.by[id]; s != nil && s.g == g {
		return s
	}
	return nil
}

// open begins a reading, now that no other has its id.
func (b *backupSessions) open(id BackupID, g *group) (*backupSession, error) {
	m, ok := g.machine.(Restorer)
	if !ok {
		return nil, fmt.Errorf("%w: this group cannot be backed up", ErrRestoreRefused)
	}
	g.replacing.RLock()
	defer g.replacing.RUnlock()
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.by[id] != nil:
		return nil, ErrBackupGone // the same was asked for twice at a time
	case g.ctx.Err() != nil:
		return nil, ErrShutdown
	case g.replica.restoring(): // also when it serves: it is not whole
		return nil, ErrRestoring
	case len(b.by) >= backupSessionsMax:
		return nil, ErrOverloaded
	}
	it, err := g.host.db.NewIter(&pebble.IterOptions{LowerBound: keyPrefix(g.id, spaceHost), UpperBound: keyPrefix(g.id, spaceDerived)})
	if err != nil {
		return nil, fmt.Errorf("raftfsm: backup: %w", err)
	}
	pos, err := positionIn(it, join(keyPrefix(g.id, spaceHost), rowPosition))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("raftfsm: backup: %w", err), it.Close())
	}
	s := &backupSession{g: g, it: it, pos: pos, ranges: m.BackupRanges(), began: time.Now()}
	g.host.metrics.backups.WithLabelValues(g.name, backupStarted).Inc()
	s.idle = time.AfterFunc(backupSessionIdle, func() { _ = b.end(id, s) }) // nobody is left to be told
	if b.by == nil {
		b.by = map[BackupID]*backupSession{}
	}
	b.by[id] = s
	return s, nil
}

// take ends the reading that has an id.
func (b *backupSessions) take(id BackupID) error {
	b.mu.Lock()
	s := b.by[id]
	b.mu.Unlock()
	if s == nil {
		return nil
	}
	return b.end(id, s)
}

// end ends a reading. A reading leaves the map last, so that drop waits for its rows too; and it
// is closed without the lock, because others need not wait for the chunk that it collects.
func (b *backupSessions) end(id BackupID, s *backupSession) error {
	err := s.close()
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.by[id] == s {
		delete(b.by, id)
	}
	return err
}

// drop ends all readings of a replica: it does not lead any more, its rows are about to be
// replaced, or it stops.
func (b *backupSessions) drop(g *group) error {
	b.mu.Lock()
	all := maps.Clone(b.by)
	b.mu.Unlock()
	var errs []error
	for id, s := range all {
		if s.g == g {
			errs = append(errs, b.end(id, s))
		}
	}
	return errors.Join(errs...)
}

func (s *backupSession) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.idle.Stop()
	if !s.ended && !s.finished {
		s.g.host.metrics.backups.WithLabelValues(s.g.name, backupFailed).Inc()
	}
	s.ended = true
	return s.release()
}

// release gives the rows free. The caller holds mu.
func (s *backupSession) release() error {
	if s.it == nil {
		return nil
	}
	it := s.it
	s.it = nil
	return it.Close()
}

// read returns chunk n, the next one or the one before.
func (s *backupSession) read(n uint64) (BackupChunk, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.ended:
		return BackupChunk{}, ErrBackupGone
	case n+1 == s.next:
		s.idle.Reset(backupSessionIdle)
		return s.last, nil
	case n != s.next || s.it == nil:
		return BackupChunk{}, ErrBackupGone
	}
	c, err := s.collect()
	if err == nil && c.Last {
		err = s.release()
	}
	if err != nil {
		return BackupChunk{}, fmt.Errorf("raftfsm: backup: %w", err)
	}
	metrics := s.g.host.metrics
	metrics.backupBytes.WithLabelValues(s.g.name).Add(float64(len(c.Rows)))
	if c.Last {
		s.finished = true
		metrics.backups.WithLabelValues(s.g.name, backupFinished).Inc()
		metrics.backupTime.WithLabelValues(s.g.name).Observe(time.Since(s.began).Seconds())
	}
	s.last, s.next = c, n+1
	s.idle.Reset(backupSessionIdle)
	return c, nil
}

func (s *backupSession) collect() (BackupChunk, error) {
	c := BackupChunk{Index: s.pos.Index, Term: s.pos.Term, Time: s.pos.Time}
	state := keyPrefix(s.g.id, spaceState)
	for len(s.ranges) > 0 {
		if !s.started {
			s.it.SeekGE(join(state, s.ranges[0][0]))
			s.started = true
		}
		end := join(state, s.ranges[0][1])
		for ; s.it.Valid() && bytes.Compare(s.it.Key(), end) < 0; s.it.Next() {
			v, err := s.it.ValueAndErr()
			if err != nil {
				return c, err
			}
			key := s.it.Key()[prefixLen:]
			if c.Count > 0 && len(c.Rows)+len(key)+len(v) > backupChunkBytes {
				return c, nil
			}
			c.Rows = AppendRow(c.Rows, key, v)
			c.Count++
		}
		if err := s.it.Error(); err != nil {
			return c, err
		}
		s.ranges, s.started = s.ranges[1:], false
	}
	c.Last = true
	return c, nil
}
