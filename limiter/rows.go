package limiter

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/maestro-conductor/maestro/internal/wire"
)

// Tables: the first byte of a row's key.
const (
	tableBucket byte = 'b' // uid of the limit, tenant, subject -> bucket
	tableConfig byte = 'c' // nothing -> version of the limits, next uid
	tableEmpty  byte = 'e' // nothing -> when a restore emptied all counters
	tableLimit  byte = 'l' // limit id -> limit with its rates
	tablePart   byte = 'p' // part -> the steps of an incomplete change
	tableStaged byte = 's' // nothing -> versions of an incomplete change, parts present
	tableCursor byte = 'w' // nothing -> where the sweep goes on
)

const rowVersion = 1

// config is what a group knows besides the limits themselves.
type config struct {
	version uint32
	nextUID uint64
}

func appendBucketKey(b []byte, uid uint64, tenant, subject string) []byte {
	b = append(b, tableBucket)
	b = binary.BigEndian.AppendUint64(b, uid)
	b = append(b, byte(len(tenant)))
	b = append(b, tenant...)
	return append(b, subject...)
}

// uidOfKey is the limit that a bucket's row belongs to.
func uidOfKey(key []byte) (uint64, error) {
	if len(key) < 10 {
		return 0, fmt.Errorf("limiter: bucket row %x: the key is too short; the data folder is damaged", key)
	}
	return binary.BigEndian.Uint64(key[1:]), nil
}

func appendBucket(b []byte, v bucket) []byte {
	b = append(b, rowVersion)
	b = binary.AppendUvarint(b, v.gen)
	b = binary.AppendUvarint(b, v.unit)
	b = binary.AppendUvarint(b, uint64(v.t))
	b = binary.AppendUvarint(b, v.used.lo)
	return binary.AppendUvarint(b, v.used.hi)
}

func decodeBucket(b []byte) (bucket, error) {
	r := wire.NewReader(b)
	r.Byte(rowVersion)
	v := bucket{
		gen:  r.Uvarint(math.MaxUint64),
		unit: r.Uvarint(math.MaxUint64),
		t:    int64(r.Uvarint(math.MaxInt64)),
	}
	v.used.lo = r.Uvarint(math.MaxUint64)
	v.used.hi = r.Uvarint(math.MaxUint64)
	if err := r.Done(); err != nil || v.unit == 0 || b[0] != rowVersion {
		return bucket{}, errRow("bucket")
	}
	return v, nil
}

func encodeConfig(c config) []byte {
	b := []byte{rowVersion}
	b = binary.AppendUvarint(b, uint64(c.version))
	return binary.AppendUvarint(b, c.nextUID)
}

func decodeConfig(b []byte) (config, error) {
	r := wire.NewReader(b)
	v := r.Byte(rowVersion)
	c := config{version: uint32(r.Uvarint(math.MaxUint32)), nextUID: r.Uvarint(math.MaxUint64)}
	if err := r.Done(); err != nil || v != rowVersion {
		return config{}, errRow("config")
	}
	return c, nil
}

func limitKey(id string) []byte { return append([]byte{tableLimit}, id...) }

func encodeLimitRow(l *limitState) []byte {
	b := appendLimit([]byte{rowVersion}, l.Limit)
	b = binary.AppendUvarint(b, l.uid)
	b = binary.AppendUvarint(b, l.firstGen)
	b = binary.AppendUvarint(b, uint64(len(l.gens)))
	for _, g := range l.gens {
		b = binary.AppendUvarint(b, uint64(g.start))
		b = binary.AppendUvarint(b, g.rate.refill)
		b = binary.AppendUvarint(b, g.rate.unit)
	}
	return b
}

func decodeLimitRow(b []byte) (*limitState, error) {
	r := wire.NewReader(b)
	v := r.Byte(rowVersion)
	l := readLimit(r)
	uid, firstGen := r.Uvarint(math.MaxUint64), r.Uvarint(math.MaxUint64)
	var gens []generation
	for n := r.Count(generationsMax); n > 0; n-- {
		g := generation{
			start: int64(r.Uvarint(math.MaxInt64)),
			rate:  rate{refill: r.Uvarint(math.MaxUint64), unit: r.Uvarint(math.MaxUint64)},
		}
		if g.rate.refill == 0 || g.rate.unit == 0 {
			return nil, errRow("limit")
		}
		gens = append(gens, g)
	}
	if err := r.Done(); err != nil || v != rowVersion || len(gens) == 0 {
		return nil, errRow("limit")
	}
	return newLimitState(l, uid, firstGen, gens), nil
}

// staged describes a change of which some parts have arrived.
type staged struct {
	from, to uint32
	parts    uint32
}

func partKey(part uint32) []byte {
	return binary.BigEndian.AppendUint32([]byte{tablePart}, part)
}

func encodeStaged(s staged) []byte {
	b := []byte{rowVersion}
	b = binary.AppendUvarint(b, uint64(s.from))
	b = binary.AppendUvarint(b, uint64(s.to))
	return binary.AppendUvarint(b, uint64(s.parts))
}

func decodeStaged(b []byte) (staged, error) {
	r := wire.NewReader(b)
	v := r.Byte(rowVersion)
	s := staged{
		from:  uint32(r.Uvarint(math.MaxUint32)),
		to:    uint32(r.Uvarint(math.MaxUint32)),
		parts: uint32(r.Uvarint(partsMax)),
	}
	if err := r.Done(); err != nil || v != rowVersion {
		return staged{}, errRow("staged change")
	}
	return s, nil
}

func errRow(what string) error {
	return fmt.Errorf("limiter: malformed row of a %s; the data folder is damaged or newer than this build", what)
}
