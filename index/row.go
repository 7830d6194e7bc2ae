package index

import (
	"fmt"
	"math"
	"strings"

	"github.com/maestro-conductor/maestro/index/internal/segment"
)

// A sealed document is written again from the columns of its segment. What they do not hold
// (reasons, names of digests, values too long for a term) is the rest: a document without
// all the others. Few documents that no Normalize made are the rest as a whole.
const (
	restPart  = 1 // the fields here replace those of the columns
	restWhole = 2 // the document
)

// costMin is the least cost of a column.
const costMin = math.MinInt64 + 1

// textFields are d's fields of segment.TextGroups.
func textFields(d *Document) [len(segment.TextGroups)]*string {
	return [...]*string{
		&d.ID, &d.Tenant, &d.Kind, &d.Region, &d.Execution, &d.Task, &d.Pack, &d.Rule, &d.Decision, &d.Runner, &d.Currency,
	}
}

// appendRest appends what the columns do not hold of d, nothing when they hold all.
func appendRest(b []byte, d *Document) []byte {
	if !columnar(d) {
		return AppendDocument(append(b, restWhole), d)
	}
	rest, any := Document{Reason: d.Reason}, d.Reason != ""
	to := textFields(&rest)
	for i, v := range textFields(d) {
		if len(*v) > valueBytesMax {
			*to[i], any = *v, true
		}
	}
	for i := range d.Digests {
		if d.Digests[i].Name != "" {
			rest.Digests = digestNamesOf(d)
			any = true
			break
		}
	}
	for _, a := range d.Attributes {
		if len(a.Value) > valueBytesMax {
			rest.Attributes, any = append(rest.Attributes, a), true
		}
	}
	if !any {
		return b
	}
	return AppendDocument(append(b, restPart), &rest)
}

func digestNamesOf(d *Document) []Digest {
	names := make([]Digest, len(d.Digests))
	for i := range names {
		names[i].Name = d.Digests[i].Name
	}
	return names
}

// columnar tells whether columns can hold d: always, when Normalize made it and its values are
// of sensible length.
func columnar(d *Document) bool {
	if d.CostMicros < costMin || d.Currency == "" && d.CostMicros != 0 {
		return false
	}
	for i := range d.Digests {
		g := &d.Digests[i]
		known := g.Direction == DirectionInput || g.Direction == DirectionOutput || g.Direction == DirectionSubject
		if !known || strings.IndexByte(g.Value, ':') >= 0 || len(g.Value)+1+len(g.Algorithm) > valueBytesMax {
			return false
		}
	}
	for i := 1; i < len(d.Attributes); i++ {
		if d.Attributes[i-1].Name >= d.Attributes[i].Name {
			return false
		}
	}
	return true
}

// rowReader writes documents of a segment again, as they were stored.
type rowReader struct {
	*segment.Reader
	row segment.Row
	buf []byte
}

// read returns a document's row, which must not be changed: a document costs a read for each of its
// random texts, and those that are asked for are often asked for again.
func (r *rowReader) read(local uint32) ([]byte, error) {
	if row := r.Kept(local); row != nil {
		return row, nil
	}
	row, err := r.write(local)
	if err != nil {
		return nil, fmt.Errorf("index: document %d of a segment: %w", local, err)
	}
	if len(row) <= keptRowMax {
		r.Keep(local, row)
	}
	return row, nil
}

// keptRowMax is how large a row is that is kept.
const keptRowMax = 4 << 10

// write writes a document again.
func (r *rowReader) write(local uint32) ([]byte, error) {
	if err := r.Row(local, &r.row); err != nil {
		return nil, err
	}
	if rest := r.row.Rest; len(rest) > 0 && rest[0] == restWhole {
		return append([]byte(nil), rest[1:]...), nil
	}
	d, err := r.document()
	if err != nil {
		return nil, err
	}
	r.buf = AppendDocument(r.buf[:0], &d)
	return append([]byte(nil), r.buf...), nil
}

// document is the row as a document.
func (r *rowReader) document() (Document, error) {
	row := &r.row
	d := Document{Time: row.Time, TimeStamped: row.Stamped, DurationMs: row.Duration, CostMicros: row.Cost}
	fields := textFields(&d)
	for i, v := range row.Texts {
		*fields[i] = v
	}
	if len(row.Digests) > 0 {
		d.Digests = make([]Digest, len(row.Digests))
		for i, g := range row.Digests {
			to := &d.Digests[i]
			to.Value, to.Algorithm, _ = strings.Cut(g.Value, ":")
			to.Direction = [...]string{DirectionInput, DirectionOutput, DirectionSubject}[g.Direction%segment.Directions]
		}
	}
	if len(row.Attributes) > 0 {
		d.Attributes = make([]Attribute, len(row.Attributes))
		for i, a := range row.Attributes {
			d.Attributes[i].Name, d.Attributes[i].Value, _ = strings.Cut(a, "\x00")
		}
	}
	if len(row.Rest) == 0 {
		return d, nil
	}
	rest, err := DecodeDocument(row.Rest[1:])
	if err != nil || row.Rest[0] != restPart || len(rest.Digests) > len(d.Digests) {
		return d, fmt.Errorf("%w: rest of the document", segment.ErrCorrupt)
	}
	d.Reason = rest.Reason
	for i, v := range textFields(&rest) {
		if *v != "" {
			*fields[i] = *v
		}
	}
	for i := range rest.Digests {
		d.Digests[i].Name = rest.Digests[i].Name
	}
	for _, long := range rest.Attributes {
		for i := range d.Attributes {
			if d.Attributes[i].Name == long.Name {
				d.Attributes[i].Value = long.Value
			}
		}
	}
	return d, nil
}
