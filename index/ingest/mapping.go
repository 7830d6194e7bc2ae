package ingest

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/maestro-conductor/maestro/index"
)

// Mapping says which field of foreign JSON is which field of a document. ParseMapping reads
// one; it does not change afterwards and can be used by several goroutines.
type Mapping struct {
	// records is the path of the list inside each JSON value; empty when each value, or
	// each element of an array, is a record itself.
	records string
	// texts holds the sources of the plain text fields, by the field's name.
	texts      map[string]*source
	time       *source
	timeLayout string
	digests    []digestSource
	cost       *source
	currency   string
	// allAttributes takes what no other field took; attributes lists paths.
	allAttributes bool
	attributes    []string
	// taken holds the paths that other fields use whole.
	taken map[string]bool
}

// source is where a value comes from: a constant, or a path into the record with an optional
// split of the text found there.
type source struct {
	constant string
	from     string
	split    string
	// part is the part of the split that counts, from the end when negative; nil means all.
	part *int
}

type digestSource struct {
	source
	direction string
	// algorithm is for values that do not name theirs; name is the path of the artifact's name.
	algorithm string
	name      string
}

// convert reads the documents of one JSON value.
func (m *Mapping) convert(out *output, entry string, v *value) {
	if m.records == "" {
		each(m.convertRecord)(out, entry, v)
		return
	}
	list := lookup(v, m.records)
	if list == nil || list.kind != kindArray {
		out.refuse(entry, "", refusal(ReasonFieldMalformed, m.records, "the mapping expects the list of records here; this value has none"))
		return
	}
	for i := range list.list {
		m.convertRecord(out, fmt.Sprintf("%s[%d]", m.records, i), &list.list[i])
	}
}

func (m *Mapping) convertRecord(out *output, entry string, v *value) {
	if v.kind != kindObject {
		out.refuse(entry, "", refusal(ReasonFieldMalformed, "", "a record is an object, this is %s", v.kind))
		return
	}
	r := mapped{mapping: m, record: v}
	if r.read(); r.fault != nil {
		out.refuse(entry, r.d.ID, r.fault)
		return
	}
	out.document(entry, r.d)
}

// mapped reads one record; the first fault ends the reading.
type mapped struct {
	mapping *Mapping
	record  *value
	d       index.Document
	fault   *index.DocumentError
}

func (r *mapped) read() {
	m := r.mapping
	for _, name := range textFields {
		*textField(&r.d, name) = r.text(m.texts[name])
	}
	r.time()
	for i := range m.digests {
		r.digests(&m.digests[i])
	}
	r.cost()
	if m.allAttributes {
		r.flatten("", r.record)
	}
	for _, path := range m.attributes {
		if v := lookup(r.record, path); v != nil {
			r.flatten(path, v)
		}
	}
}

func (r *mapped) fail(fault *index.DocumentError) {
	if r.fault == nil {
		r.fault = fault
	}
}

// text reads a source; it is empty where the record does not have the field.
func (r *mapped) text(s *source) string {
	texts := r.all(s)
	if len(texts) == 0 {
		return ""
	}
	return texts[0]
}

// all reads the texts of a source: several where an array is found or a split takes all parts.
func (r *mapped) all(s *source) []string {
	if s == nil {
		return nil
	}
	if s.from == "" {
		return []string{s.constant}
	}
	v := lookup(r.record, s.from)
	if v == nil {
		return nil
	}
	text, ok := v.scalar()
	if !ok {
		r.fail(refusal(ReasonFieldMalformed, s.from, "expected a text, number or boolean, this is %s; name a field inside it", v.kind))
		return nil
	}
	if s.split == "" {
		return []string{text}
	}
	return r.parts(s, strings.Split(text, s.split))
}

func (r *mapped) parts(s *source, parts []string) []string {
	if s.part == nil {
		return parts
	}
	at := *s.part
	if at < 0 {
		at += len(parts)
	}
	if at < 0 || at >= len(parts) {
		r.fail(refusal(ReasonFieldMalformed, s.from, "split at %q the text has %d parts, so there is no index %d", s.split, len(parts), *s.part))
		return nil
	}
	return parts[at : at+1]
}

func (r *mapped) time() {
	s := r.mapping.time
	text := r.text(s)
	if text == "" {
		r.d.TimeStamped = true
		return
	}
	t, fault := parseTime(s.from, &value{kind: kindString, text: text}, r.mapping.timeLayout)
	if fault == nil {
		r.d.Time, fault = nanoseconds(s.from, t)
	}
	if fault != nil {
		r.fail(fault)
	}
}

func (r *mapped) cost() {
	s := r.mapping.cost
	text := r.text(s)
	if text == "" {
		return
	}
	micros, ok := parseScaled(text, 6)
	if !ok {
		r.fail(refusal(index.ReasonCostMalformed, s.from, "%q is not a decimal number with at most 6 decimals", shorten(text)))
		return
	}
	r.d.CostMicros, r.d.Currency = micros, r.mapping.currency
}

// digests reads a text, or each element of an array of texts.
func (r *mapped) digests(s *digestSource) {
	list := []string(nil)
	if v := lookup(r.record, s.from); v != nil && v.kind == kindArray {
		for i := range v.list {
			element := s.source
			element.from = s.from + "." + strconv.Itoa(i)
			list = append(list, r.all(&element)...)
		}
	} else {
		list = r.all(&s.source)
	}
	name, _ := lookup(r.record, s.name).scalar()
	for _, text := range list {
		if text == "" {
			continue
		}
		if s.algorithm != "" {
			text = index.FormatDigest(s.algorithm, text)
		}
		algorithm, hexValue, err := index.ParseDigest(text)
		if err != nil {
			r.fail(refusal(index.ReasonDigestMalformed, s.from, "%v", err))
			return
		}
		r.d.Digests = append(r.d.Digests, index.Digest{Algorithm: algorithm, Value: hexValue, Direction: s.direction, Name: name})
	}
}

// flatten makes attributes of everything under v, named by dotted paths with positions for
// the elements of arrays. It passes over nulls, and over what other fields took whole.
func (r *mapped) flatten(path string, v *value) {
	if r.mapping.allAttributes && r.mapping.taken[path] {
		return
	}
	// One more than a document may have is enough for it to be refused.
	if r.fault != nil || len(r.d.Attributes) > index.MaxAttributes {
		return
	}
	prefix := path
	if prefix != "" {
		prefix += "."
	}
	switch v.kind {
	case kindNull:
	case kindObject:
		for i := range v.members {
			r.flatten(prefix+v.members[i].name, &v.members[i].value)
		}
	case kindArray:
		for i := range v.list {
			r.flatten(prefix+strconv.Itoa(i), &v.list[i])
		}
	default:
		r.d.Attributes = append(r.d.Attributes, index.Attribute{Name: path, Value: v.text})
	}
}

// lookup follows a dotted path through objects and, by position, arrays. Names that contain
// dots themselves are found too: the longest name that fits is taken. It returns nil where
// there is nothing, or null.
func lookup(v *value, path string) *value {
	if v == nil || path == "" {
		return nil
	}
	if v.kind == kindArray {
		first, rest, more := strings.Cut(path, ".")
		at, err := strconv.Atoi(first)
		if err != nil || at < 0 || at >= len(v.list) {
			return nil
		}
		if !more {
			return notNull(&v.list[at])
		}
		return lookup(&v.list[at], rest)
	}
	for end := len(path); end > 0; end = strings.LastIndexByte(path[:end], '.') {
		member := v.get(path[:end])
		switch {
		case member == nil:
		case end == len(path):
			return member
		default:
			if found := lookup(member, path[end+1:]); found != nil {
				return found
			}
		}
	}
	return nil
}

func notNull(v *value) *value {
	if v.kind == kindNull {
		return nil
	}
	return v
}
