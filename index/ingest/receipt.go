package ingest

import (
	"fmt"
	"math"
	"time"

	"github.com/maestro-conductor/maestro/index"
)

// convertReceipt reads the JSON form of mc.provenance.v1.Document by the rules of protojson:
// field names in camel or snake case, null for unset, 64-bit integers as numbers or strings,
// unknown fields refused.
func convertReceipt(out *output, entry string, v *value) {
	var r receipt
	r.read(v)
	if r.fault != nil {
		out.refuse(entry, r.d.ID, r.fault)
		return
	}
	out.document(entry, r.d)
}

// receipt collects a document; the first fault ends the reading.
type receipt struct {
	d     index.Document
	fault *index.DocumentError
	// at is the path of the object being read, with a dot behind; empty for the document.
	at string
}

// fields calls set for each member of the object at path. set reports whether it knows the
// name.
func (r *receipt) fields(path string, v *value, set func(name string, v *value) bool) {
	if v.kind != kindObject {
		r.fail(ReasonFieldMalformed, path, "expected an object, this is %s", v.kind)
		return
	}
	outer := r.at
	if path != "" {
		r.at += path + "."
	}
	for i := range v.members {
		if m := &v.members[i]; r.fault == nil && !set(m.name, &m.value) {
			r.fail(ReasonFieldUnknown, m.name, "documents have no such field; put it among the attributes")
		}
	}
	r.at = outer
}

func (r *receipt) fail(reason, name, format string, args ...any) {
	if r.fault == nil {
		r.fault = refusal(reason, r.at+shorten(name), format, args...)
	}
}

// once fails when a field is there in both its spellings.
func (r *receipt) once(spelled *bool, name string) {
	if *spelled {
		r.fail(ReasonFieldMalformed, name, "the field is there in camel case and in snake case; write it once")
	}
	*spelled = true
}

func (r *receipt) read(v *value) {
	r.d.TimeStamped = true
	spelled, stamped, spelledStamped := false, false, false
	r.fields("", v, func(name string, v *value) bool {
		switch name {
		case "time":
			r.time(name, v)
		case "digests":
			r.digests(name, v)
		case "cost":
			r.cost(name, v)
		case "timeStamped", "time_stamped":
			r.once(&spelledStamped, name)
			stamped = r.boolean(name, v)
		case "durationMs", "duration_ms":
			r.once(&spelled, name)
			r.duration(name, v)
		case "attributes":
			r.attributes(name, v)
		default:
			target := textField(&r.d, name)
			if target != nil {
				*target = r.text(name, v)
			}
			return target != nil
		}
		return true
	})
	r.d.TimeStamped = r.d.TimeStamped || stamped
}

func (r *receipt) boolean(name string, v *value) bool {
	if v.kind != kindBool && v.kind != kindNull {
		r.fail(ReasonFieldMalformed, name, "expected true or false, this is %s", v.kind)
	}
	return v.kind == kindBool && v.text == "true"
}

func (r *receipt) text(name string, v *value) string {
	if v.kind != kindString && v.kind != kindNull {
		r.fail(ReasonFieldMalformed, name, "expected a string, this is %s", v.kind)
	}
	return v.text
}

func (r *receipt) time(name string, v *value) {
	if v.kind == kindNull {
		return
	}
	if r.text(name, v); r.fault != nil {
		return
	}
	t, fault := parseTime(name, v, time.RFC3339)
	if fault == nil {
		r.d.Time, fault = nanoseconds(name, t)
	}
	r.d.TimeStamped, r.fault = false, fault
}

func (r *receipt) digests(name string, v *value) {
	if v.kind == kindNull {
		return
	}
	if v.kind != kindArray {
		r.fail(ReasonFieldMalformed, name, "expected an array, this is %s", v.kind)
		return
	}
	r.d.Digests = make([]index.Digest, len(v.list))
	for i := range v.list {
		g := &r.d.Digests[i]
		r.fields(fmt.Sprintf("%s[%d]", name, i), &v.list[i], func(name string, v *value) bool {
			switch name {
			case "digest":
				g.Value = r.text(name, v)
			case "direction":
				g.Direction = r.text(name, v)
			case "name":
				g.Name = r.text(name, v)
			default:
				return false
			}
			return true
		})
	}
}

func (r *receipt) cost(name string, v *value) {
	if v.kind == kindNull {
		return
	}
	spelled := false
	r.fields(name, v, func(name string, v *value) bool {
		switch name {
		case "microUnits", "micro_units":
			r.once(&spelled, name)
			r.d.CostMicros = r.integer(name, v, math.MinInt64, math.MaxInt64)
		case "currency":
			r.d.Currency = r.text(name, v)
		default:
			return false
		}
		return true
	})
}

func (r *receipt) duration(name string, v *value) {
	r.d.DurationMs = uint32(r.integer(name, v, 0, math.MaxUint32))
}

func (r *receipt) integer(name string, v *value, least, most int64) int64 {
	if v.kind == kindNull {
		return 0
	}
	n, ok := int64(0), false
	if v.kind == kindNumber || v.kind == kindString {
		n, ok = parseScaled(v.text, 0)
	}
	if !ok || n < least || n > most {
		r.fail(ReasonFieldMalformed, name, "expected an integer from %d to %d, this is %s %s", least, most, v.kind, shorten(v.text))
		return 0
	}
	return n
}

func (r *receipt) attributes(name string, v *value) {
	if v.kind == kindNull {
		return
	}
	r.fields(name, v, func(name string, v *value) bool {
		if v.kind != kindString {
			r.fail(ReasonFieldMalformed, name, "expected a string, this is %s; attributes are texts", v.kind)
		}
		r.d.Attributes = append(r.d.Attributes, index.Attribute{Name: name, Value: v.text})
		return true
	})
}
