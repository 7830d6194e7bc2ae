package meta

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/maestro-conductor/maestro/internal/wire"
	"github.com/maestro-conductor/maestro/raftfsm"
)

// table names a table on disk and in commands.
type table byte

const (
	tableLimits   table = 1
	tableTokens   table = 2
	tableSettings table = 3
	// The tables from here on came with the second version of the codec.
	tableNodes     table = 4
	tablePlacement table = 5
	tableLast            = tablePlacement
	// The tables of the catalog have commands and queries of their own.
	tablePackages table = 6
	tableInstalls table = 7
	tableKeys     table = 8
)

// codec is the version in which commands and queries of a table are written: the first one
// that knows the table, so that older builds go on understanding what they know.
func (t table) codec() byte {
	switch {
	case t >= tablePackages:
		return codecCatalog
	case t >= tableNodes:
		return codecMembers
	}
	return codecFirst
}

// Bounds of a record.
const (
	keyBytesMax   = 128
	nameBytesMax  = 63 // of an owner and an origin
	valueBytesMax = 4 << 10
	// rowValueBytesMax bounds a value in a row: those of the catalog are larger than what changes carry.
	rowValueBytesMax = 16 << 10
)

// Row spaces: the first byte of a row's key.
const (
	spaceChunk     byte = 'b' // blob id, u32 chunk -> that part of an archive
	spaceChange    byte = 'c' // table, table version, key -> nothing: the records in the order of their last change
	spaceTombstone byte = 'd' // table, table version, key -> nothing: the deleted ones alone
	spaceFolded    byte = 'f' // namespace, 0, folded name -> the name that was first
	spaceClock     byte = 'h' // nothing -> clock
	spaceBlob      byte = 'i' // blob id -> blob that a package has
	spaceDigest    byte = 'k' // content digest, namespace -> NAME@VERSION
	spaceBytes     byte = 'n' // namespace, or nothing for all -> bytes of blobs
	spaceOwned     byte = 'o' // table, namespace -> live records that it has in the table of the catalog
	spaceRecord    byte = 'r' // table, key -> record
	spaceRestoring byte = 's' // nothing -> nothing: the catalog is being restored
	spaceTable     byte = 't' // table -> counters of the table
	spaceUpload    byte = 'u' // blob id -> blob that arrives, or that no package has any more
	spaceStaged    byte = 'x' // key of a row that is being restored -> the row
)

const (
	rowVersion  = 1
	rowVersion2 = 2 // of counters of a table in which something is apart
)

// timestamp is a hybrid logical clock: the wall clock of the leader as far as it goes
// forward, and a counter for what happens while it does not. (Kulkarni et al., "Logical
// Physical Clocks", 2014.)
type timestamp struct {
	wall    int64 // nanoseconds since 1970 UTC
	logical uint32
}

// next is the stamp of a change when the leader's clock says wall.
func (t timestamp) next(wall int64) timestamp {
	switch {
	case wall > t.wall:
		return timestamp{wall: wall}
	case t.logical == math.MaxUint32:
		return timestamp{wall: t.wall + 1}
	}
	return timestamp{wall: t.wall, logical: t.logical + 1}
}

// record is one row of a table.
type record struct {
	key   string
	value []byte
	// owner is the tenant whose the record is, or * for the platform.
	owner string
	// origin is the region where it was last changed.
	origin string
	// version counts the changes of this record, from 1.
	version uint64
	// tableVersion is the table's version that its last change made.
	tableVersion uint32
	stamp        timestamp
	// deleted records are kept for a while, so that readers learn of the deletion.
	deleted bool
	// sealed is add-only: no later change takes it away.
	sealed bool
}

// counters describe a table.
type counters struct {
	// version grows by one with every command that changes the table.
	version uint32
	// live and tombstones count its records.
	live, tombstones uint32
	// floor is the version from which changes are known completely: records that were deleted
	// at or before it may have left no trace.
	floor uint32
	// apart counts those of the live records that have a bound of their own.
	apart uint32
}

func recordKey(t table, key string) []byte {
	return append([]byte{spaceRecord, byte(t)}, key...)
}

func changeKey(space byte, t table, version uint32, key string) []byte {
	b := binary.BigEndian.AppendUint32([]byte{space, byte(t)}, version)
	return append(b, key...)
}

// splitChangeKey is the inverse of changeKey.
func splitChangeKey(b []byte) (version uint32, key string, err error) {
	if len(b) < 6 {
		return 0, "", errRow("change")
	}
	return binary.BigEndian.Uint32(b[2:]), string(b[6:]), nil
}

const (
	flagDeleted = 1 << iota
	flagSealed
	flagsAll = flagDeleted | flagSealed
)

func appendRecord(b []byte, r record) []byte {
	var flags byte
	if r.deleted {
		flags |= flagDeleted
	}
	if r.sealed {
		flags |= flagSealed
	}
	b = append(b, rowVersion, flags)
	b = binary.AppendUvarint(b, r.version)
	b = binary.AppendUvarint(b, uint64(r.tableVersion))
	b = appendStamp(b, r.stamp)
	b = wire.AppendString(b, r.owner)
	b = wire.AppendString(b, r.origin)
	return wire.AppendString(b, r.value)
}

func decodeRecord(key string, b []byte) (record, error) {
	r := wire.NewReader(b)
	v, flags := r.Byte(rowVersion), r.Byte(flagsAll)
	rec := record{
		key:          key,
		deleted:      flags&flagDeleted != 0,
		sealed:       flags&flagSealed != 0,
		version:      r.Uvarint(math.MaxUint64),
		tableVersion: uint32(r.Uvarint(math.MaxUint32)),
		stamp:        readStamp(r),
		owner:        r.String(nameBytesMax),
		origin:       r.String(nameBytesMax),
		value:        []byte(r.String(rowValueBytesMax)),
	}
	if err := r.Done(); err != nil || v != rowVersion {
		return record{}, errRow("record " + key)
	}
	return rec, nil
}

func appendStamp(b []byte, t timestamp) []byte {
	b = binary.AppendUvarint(b, uint64(t.wall))
	return binary.AppendUvarint(b, uint64(t.logical))
}

func readStamp(r *wire.Reader) timestamp {
	return timestamp{wall: int64(r.Uvarint(math.MaxInt64)), logical: uint32(r.Uvarint(math.MaxUint32))}
}

func encodeClock(t timestamp) []byte { return appendStamp([]byte{rowVersion}, t) }

func decodeClock(b []byte) (timestamp, error) {
	r := wire.NewReader(b)
	v, t := r.Byte(rowVersion), readStamp(r)
	if err := r.Done(); err != nil || v != rowVersion {
		return timestamp{}, errRow("clock")
	}
	return t, nil
}

// encodeCounters keeps the layout that builds of every level read while nothing is apart.
func encodeCounters(c counters) []byte {
	b := []byte{rowVersion}
	for _, v := range [...]uint32{c.version, c.live, c.tombstones, c.floor} {
		b = binary.AppendUvarint(b, uint64(v))
	}
	if c.apart > 0 {
		b[0] = rowVersion2
		b = binary.AppendUvarint(b, uint64(c.apart))
	}
	return b
}

func decodeCounters(b []byte) (counters, error) {
	r := wire.NewReader(b)
	v := r.Byte(rowVersion2)
	var c counters
	for _, field := range [...]*uint32{&c.version, &c.live, &c.tombstones, &c.floor} {
		*field = uint32(r.Uvarint(math.MaxUint32))
	}
	if v == rowVersion2 {
		c.apart = uint32(r.Uvarint(math.MaxUint32))
	}
	if err := r.Done(); err != nil || v == 0 || (v == rowVersion2) != (c.apart > 0) || c.apart > c.live {
		return counters{}, errRow("table")
	}
	return c, nil
}

func errRow(what string) error {
	return fmt.Errorf("meta: malformed row of a %s; the data folder is damaged or newer than this build", what)
}

// getter reads one row; *raftfsm.Tx is one.
type getter interface {
	Get(key []byte) ([]byte, error)
}

// getRow reads and decodes one row; a missing one is the zero value.
func getRow[T any](g getter, key []byte, decode func([]byte) (T, error)) (row T, found bool, err error) {
	v, err := g.Get(key)
	if errors.Is(err, raftfsm.ErrNotFound) {
		return row, false, nil
	}
	if err != nil {
		return row, false, fmt.Errorf("meta: %w", err)
	}
	row, err = decode(v)
	return row, err == nil, err
}

func getRecord(g getter, t table, key string) (record, bool, error) {
	return getRow(g, recordKey(t, key), func(v []byte) (record, error) { return decodeRecord(key, v) })
}
