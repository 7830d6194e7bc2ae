package raftfsm

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/cockroachdb/pebble/v2"

	"github.com/maestro-conductor/maestro/internal/wire"
)

// Restorer is a Machine whose group can be backed up and restored. A backup is rows of its
// state. They come back through the log of a group that nobody has written to: a beginning,
// chunks of rows in the order of a backup, an end.
//
// The methods with a Tx are as deterministic as Apply, and follow the same rules. What they
// cannot take they refuse with an error that wraps ErrRestoreRefused or ErrNotEmpty, having
// changed nothing but the Tx, which is then dropped; any other error ends the process.
type Restorer interface {
	Machine
	// BackupRanges are the ranges [lower, upper) of keys whose rows a backup takes, in order.
	BackupRanges() [][2][]byte
	// ServesRestore tells whether the group takes a command before the end; nil stands for queries.
	// A command that it does not take is refused with ErrRestoring, and nothing remembers it.
	ServesRestore(command []byte) bool
	// RestoreBegin returns an error that wraps ErrNotEmpty if the group was written to. It
	// changes nothing.
	RestoreBegin(tx *Tx) error
	// RestoreRows takes the next rows.
	RestoreRows(tx *Tx, e Entry, rows []Row) error
	// RestoreEnd puts what was restored in force.
	RestoreEnd(tx *Tx, e Entry) error
}

// Row is one row of a machine's state.
type Row struct{ Key, Value []byte }

// AppendRow adds a row to a chunk of rows.
func AppendRow(b, key, value []byte) []byte {
	return wire.AppendString(wire.AppendString(b, key), value)
}

// DecodeRows is the inverse of AppendRow for a whole chunk; the rows alias b.
func DecodeRows(b []byte) ([]Row, error) {
	var rows []Row
	for len(b) > 0 {
		var parts [2][]byte
		for i := range parts {
			n, w := binary.Uvarint(b)
			if w <= 0 || n > uint64(len(b)-w) {
				return nil, fmt.Errorf("%w: a chunk of rows is malformed", ErrRestoreRefused)
			}
			parts[i], b = b[w:w+int(n):w+int(n)], b[w+int(n):]
		}
		rows = append(rows, Row{Key: parts[0], Value: parts[1]})
	}
	return rows, nil
}

// BackupID names a backup, and one reading of a group.
type BackupID [16]byte

// RowsSum is a running checksum over chunks of rows: that of the next chunk goes over the one
// before and the chunk.
type RowsSum [sha256.Size]byte

// Add is the sum with the next chunk.
func (s RowsSum) Add(rows []byte) RowsSum {
	h := sha256.New()
	h.Write(s[:])
	h.Write(rows)
	return RowsSum(h.Sum(nil))
}

// RestoreOp is what a step of a restore does.
type RestoreOp byte

// The steps of a restore. All may be repeated.
const (
	// RestoreProbe asks whether the group would take RestoreBegin, and changes nothing.
	RestoreProbe RestoreOp = 1
	// RestoreBegin begins to restore the group from a backup, or finds how far that has come.
	RestoreBegin RestoreOp = 2
	// RestoreRows writes a chunk, which is the next one or an earlier one.
	RestoreRows RestoreOp = 3
	// RestoreEnd compares what was written with what the backup says and puts it in force.
	RestoreEnd RestoreOp = 4
)

// RestoreStep is one step of a restore.
type RestoreStep struct {
	Op RestoreOp
	// Backup is the backup that all steps belong to.
	Backup BackupID
	// Chunk is the number of the chunk in Rows, from 0; at the end how many there are.
	Chunk uint64
	Rows  []byte
	// Sum is, at the end, the checksum of all chunks.
	Sum RowsSum
}

// RestoreState is how far a restore has come.
type RestoreState struct {
	// Next is the chunk that is missing.
	Next uint64
	// Done is true after the end.
	Done bool
}

// chunkBytesMax bounds a chunk in a log entry: a row may be as large as the command it came in.
const chunkBytesMax = CommandBytesMax + 4<<10

// stepBytesMax bounds a step: a chunk and the header before it.
const stepBytesMax = chunkBytesMax + 128

const restoreVersion = 1

// Command is the step as it enters the log.
func (s RestoreStep) Command() Command {
	b := append([]byte{restoreVersion, byte(s.Op)}, s.Backup[:]...)
	b = binary.AppendUvarint(b, s.Chunk)
	b = append(b, s.Sum[:]...)
	return Command{Data: append(b, s.Rows...), host: true}
}

func decodeStep(b []byte) (s RestoreStep, err error) {
	r := wire.NewReader(b)
	if v := r.Byte(math.MaxUint8); v != restoreVersion {
		return s, fmt.Errorf("raftfsm: a host command of version %d, this build knows %d", v, restoreVersion)
	}
	s.Op = RestoreOp(r.Byte(math.MaxUint8))
	if s.Op == 0 || s.Op > RestoreEnd {
		return s, fmt.Errorf("raftfsm: host command %d is unknown to this build", s.Op)
	}
	s.Backup = BackupID(r.Fixed(len(s.Backup)))
	s.Chunk = r.Uvarint(math.MaxUint64)
	s.Sum = RowsSum(r.Fixed(len(s.Sum)))
	s.Rows = r.Rest()
	return s, r.Done()
}

// restoreRow is what a group remembers of its restore.
type restoreRow struct {
	backup BackupID
	next   uint64
	done   bool
	sum    RowsSum
}

func encodeRestore(r restoreRow) []byte {
	b := append([]byte{restoreVersion}, r.backup[:]...)
	b = append(b, boolByte(r.done))
	b = append(b, r.sum[:]...)
	return binary.AppendUvarint(b, r.next)
}

func boolByte(v bool) byte {
	if v {
		return 1
	}
	return 0
}

func decodeRestore(b []byte) (*restoreRow, error) {
	r := wire.NewReader(b)
	v, row := r.Byte(restoreVersion), restoreRow{}
	row.backup = BackupID(r.Fixed(len(row.backup)))
	row.done = r.Byte(1) == 1
	row.sum = RowsSum(r.Fixed(len(row.sum)))
	row.next = r.Uvarint(math.MaxUint64)
	if err := r.Done(); err != nil || v != restoreVersion {
		return nil, errors.New("raftfsm: malformed row of a restore; the data folder is damaged or newer than this build")
	}
	return &row, nil
}

// openRestore reads how far a restore of the group has come, if there is one.
func (r *Replica) openRestore() error {
	v, err := get(r.db, r.host, rowRestore)
	if errors.Is(err, ErrNotFound) {
		r.restored.Store(nil)
		return nil
	}
	if err != nil {
		return err
	}
	row, err := decodeRestore(v)
	r.restored.Store(row)
	return err
}

// restoring tells whether a restore has begun and not ended.
func (r *Replica) restoring() bool {
	row := r.restored.Load()
	return row != nil && !row.done
}

// closed tells whether the group does not take a command, or queries for nil, because it is being
// restored.
func (r *Replica) closed(command []byte) bool {
	if !r.restoring() {
		return false
	}
	m, ok := r.machine.(Restorer)
	return ok && !m.ServesRestore(command)
}

// restore executes one step. A refused one leaves the group as it was.
func (r *Replica) restore(b *pebble.Batch, e Entry, data []byte) (Applied, []func(), error) {
	s, err := decodeStep(data)
	if err != nil {
		return Applied{}, nil, err
	}
	tx := &Tx{b: b, prefix: r.store.state, deleted: r.store.deleted}
	next, err := r.step(tx, e, s)
	if err == nil && next != nil {
		err = b.Set(join(r.host, rowRestore), encodeRestore(*next), nil)
	}
	switch {
	case errors.Is(err, ErrNotEmpty), errors.Is(err, ErrRestoreRefused):
		b.Reset()
		return Applied{Result: Result{Index: e.Index, Data: encodeStepResult(RestoreState{}, err)}}, nil, nil
	case err != nil:
		return Applied{}, nil, fmt.Errorf("restore: %w", err)
	}
	var state RestoreState
	if next != nil {
		state = RestoreState{Next: next.next, Done: next.done}
		tx.OnCommit(func() { r.restored.Store(next) })
	}
	return Applied{Result: Result{Index: e.Index, Data: encodeStepResult(state, nil)}}, tx.onCommit, nil
}

// step returns what the group remembers after the step; nil for nothing.
func (r *Replica) step(tx *Tx, e Entry, s RestoreStep) (*restoreRow, error) {
	m, ok := r.machine.(Restorer)
	if !ok {
		return nil, fmt.Errorf("%w: this group cannot be restored", ErrRestoreRefused)
	}
	old := r.restored.Load()
	switch {
	case old == nil && s.Op > RestoreBegin:
		return nil, fmt.Errorf("%w: the restore has not begun", ErrRestoreRefused)
	case old == nil:
		if err := m.RestoreBegin(tx); err != nil {
			return nil, err
		}
		if s.Op == RestoreProbe {
			return nil, nil
		}
		return &restoreRow{backup: s.Backup}, nil
	case old.backup != s.Backup && old.done:
		return nil, fmt.Errorf("%w: it was restored from another backup", ErrNotEmpty)
	case old.backup != s.Backup:
		return nil, fmt.Errorf("%w: it is being restored from another backup; go on with that one, or start with a new region", ErrNotEmpty)
	case s.Op <= RestoreBegin, old.done, s.Op == RestoreRows && s.Chunk < old.next:
		return old, nil
	case s.Chunk != old.next:
		return nil, fmt.Errorf("%w: chunk %d is missing", ErrRestoreRefused, old.next)
	case s.Op == RestoreEnd:
		if s.Sum != old.sum {
			return nil, fmt.Errorf("%w: the checksum of what was restored is not that of the backup", ErrRestoreRefused)
		}
		done := *old
		done.done = true
		return &done, m.RestoreEnd(tx, e)
	}
	rows, err := DecodeRows(s.Rows)
	if err != nil {
		return nil, err
	}
	return &restoreRow{backup: s.Backup, next: old.next + 1, sum: old.sum.Add(s.Rows)}, m.RestoreRows(tx, e, rows)
}

// Codes of a step's result.
const (
	stepDone byte = iota
	stepNotEmpty
	stepRefused
)

func encodeStepResult(s RestoreState, err error) []byte {
	switch {
	case errors.Is(err, ErrNotEmpty):
		return append([]byte{stepNotEmpty}, err.Error()...)
	case err != nil:
		return append([]byte{stepRefused}, err.Error()...)
	}
	return binary.AppendUvarint([]byte{stepDone, boolByte(s.Done)}, s.Next)
}

// stepError is a refusal as the log tells it.
type stepError struct {
	kind error
	text string
}

func (e stepError) Error() string { return e.text }
func (e stepError) Unwrap() error { return e.kind }

// DecodeRestoreResult reads what applying a step returned.
func DecodeRestoreResult(b []byte) (RestoreState, error) {
	r := wire.NewReader(b)
	switch code := r.Byte(math.MaxUint8); code {
	case stepNotEmpty:
		return RestoreState{}, stepError{ErrNotEmpty, string(r.Rest())}
	case stepRefused:
		return RestoreState{}, stepError{ErrRestoreRefused, string(r.Rest())}
	case stepDone:
		s := RestoreState{Done: r.Byte(1) == 1, Next: r.Uvarint(math.MaxUint64)}
		return s, r.Done()
	default:
		return RestoreState{}, fmt.Errorf("raftfsm: result %d of a host command is unknown to this build", code)
	}
}

// Restore takes one step of a group's restore, wherever its leader is. A step may be repeated
// whatever became of it. ErrNotEmpty means that the group holds other data; ErrRestoreRefused
// that the step does not fit; nothing was changed then.
func (h *Host) Restore(ctx context.Context, id GroupID, step RestoreStep) (RestoreState, error) {
	s, err := h.seat(id)
	if err != nil {
		return RestoreState{}, err
	}
	if len(step.Rows) > chunkBytesMax {
		return RestoreState{}, s.fail("restore", OutcomeDefinite, ErrTooLarge)
	}
	cmd := step.Command()
	var data []byte
	err = h.atLeader(ctx, s, "restore", true, func(ctx context.Context, g *group) error {
		r, err := g.proposeHost(ctx, cmd)
		data = r.Data
		return err
	}, func(ctx context.Context, l *link) error {
		r, err := s.ask(ctx, l, "restore", kindRestore, cmd.Data)
		data = r.payload
		return err
	})
	if err != nil {
		return RestoreState{}, err
	}
	state, err := DecodeRestoreResult(data)
	if err != nil {
		return state, s.fail("restore", OutcomeDefinite, err)
	}
	return state, nil
}

// proposeHost is propose for a command of the host, which has an entry of its own.
func (g *group) proposeHost(ctx context.Context, cmd Command) (Result, error) {
	switch _, err := g.leading(); {
	case err != nil:
		return Result{}, g.fail("restore", OutcomeDefinite, err)
	case len(cmd.Data) > stepBytesMax:
		return Result{}, g.fail("restore", OutcomeDefinite, ErrTooLarge)
	// Rows may be in any layout that this build knows. A restore that has begun is in every member's log.
	case g.replica.restored.Load() == nil && !g.host.AwaitLevel(ctx, LevelCurrent):
		return Result{}, g.fail("restore", OutcomeDefinite, ErrVersion)
	case g.guard.full.Load():
		return Result{}, g.fail("restore", OutcomeDefinite, ErrDiskFull)
	}
	p := &proposal{ctx: ctx, cmd: cmd, done: make(chan proposed, 1)}
	select {
	case g.inFlight <- struct{}{}:
	case <-ctx.Done():
		return Result{}, g.fail("restore", OutcomeDefinite, ctx.Err())
	case <-g.ctx.Done():
		return Result{}, g.fail("restore", OutcomeDefinite, ErrShutdown)
	}
	g.submit([]*proposal{p})
	select {
	case r := <-p.done:
		return r.res, r.err
	case <-ctx.Done():
		return Result{}, g.fail("restore", OutcomeUnknown, ctx.Err())
	case <-g.ctx.Done():
		return Result{}, g.fail("restore", OutcomeUnknown, ErrShutdown)
	}
}
