package ingest

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"time"

	"github.com/maestro-conductor/maestro/index"
)

// A CloudEvent (specification 1.0, JSON format) becomes an event:
//
//	id            SOURCE#ID, since ids of CloudEvents are unique in their source; the SHA-256
//	              of both where that is longer than an id may be, or the source contains '#'
//	time          time, or the server's stamp
//	extensions    tenant, region, execution, task, pack, rule, decision, reason and runner fill
//	              the fields of these names; documentkind fills the kind
//	attributes    source, type, subject, dataschema, datacontenttype and the other extensions by
//	              their names; the data as data.NAME.NAME where it is JSON
//
// One whose data is an attestation is read as that, so that its digests and runner are found;
// its envelope is then left out. Other data, binary or text, is not indexed.

// convertCloudEvent reads one event in the JSON format.
func convertCloudEvent(out *output, entry string, v *value) {
	if v.kind != kindObject {
		out.refuse(entry, "", refusal(ReasonCloudEventMalformed, "", "expected an object, this is %s", v.kind))
		return
	}
	e := cloudEvent{root: v}
	if fault := e.read(); fault != nil {
		out.refuse(entry, e.d.ID, fault)
		return
	}
	if looksInToto(e.data) {
		at := "data"
		if entry != "" {
			at = entry + ".data"
		}
		convertInToto(out, at, e.data)
		return
	}
	out.document(entry, e.d)
}

// cloudEvent reads one event.
type cloudEvent struct {
	root *value
	data *value // nil when there is none, or none that is JSON
	d    index.Document
}

// extensionFields are the extensions with a field of the document.
var extensionFields = map[string]string{
	"tenant": "tenant", "region": "region", "execution": "execution", "task": "task", "pack": "pack",
	"rule": "rule", "decision": "decision", "reason": "reason", "runner": "runner", "documentkind": "kind",
}

func (e *cloudEvent) read() *index.DocumentError {
	e.d = index.Document{Kind: index.KindEvent, TimeStamped: true}
	var source, id string
	for _, name := range []string{"specversion", "id", "source", "type"} {
		text := textOf(e.root.get(name))
		switch {
		case text == "":
			return refusal(ReasonCloudEventMalformed, name, "a CloudEvent needs this attribute, a text that is not empty")
		case name == "specversion" && text != "1.0":
			return refusal(ReasonCloudEventMalformed, name, "%q is not known; CloudEvents of version 1.0 are read", shorten(text))
		case name == "id":
			id = text
		case name == "source":
			source = text
		}
	}
	e.d.ID = eventID(source, id)
	for i := range e.root.members {
		if fault := e.member(e.root.members[i].name, &e.root.members[i].value); fault != nil {
			return fault
		}
	}
	if e.data != nil && !looksInToto(e.data) {
		flat := mapped{mapping: &Mapping{}}
		flat.flatten("data", e.data)
		if flat.fault != nil {
			return flat.fault
		}
		e.d.Attributes = append(e.d.Attributes, flat.d.Attributes...)
	}
	return nil
}

// eventID joins source and id. A source without '#' ends at the first one.
func eventID(source, id string) string {
	joined := source + "#" + id
	if len(joined) <= index.MaxIDBytes && !strings.Contains(source, "#") {
		return joined
	}
	sum := sha256.Sum256([]byte(source + "\x00" + id))
	return hex.EncodeToString(sum[:])
}

func (e *cloudEvent) member(name string, v *value) (fault *index.DocumentError) {
	switch name {
	case "specversion", "id":
		return nil
	case "data":
		return e.setData(v)
	case "data_base64":
		return e.binary(v)
	case "time":
		if v.kind == kindNull {
			return nil
		}
		at, fault := parseTime(name, v, time.RFC3339)
		if fault != nil {
			return fault
		}
		e.d.TimeStamped = false
		e.d.Time, fault = nanoseconds(name, at)
		return fault
	}
	text, ok := v.scalar()
	switch {
	case v.kind == kindNull:
		return nil
	case !ok:
		return refusal(ReasonCloudEventMalformed, name, "an attribute of a CloudEvent is a text, a number or a boolean, this is %s", v.kind)
	case extensionFields[name] != "":
		*textField(&e.d, extensionFields[name]) = text
	default:
		e.d.Attributes = append(e.d.Attributes, index.Attribute{Name: name, Value: text})
	}
	return nil
}

// setData takes the member data, which is JSON whatever its content type says.
func (e *cloudEvent) setData(v *value) *index.DocumentError {
	switch {
	case e.root.get("data_base64") != nil:
		return refusal(ReasonCloudEventMalformed, "data", "the event has data and data_base64; it may have one of them")
	case v.kind == kindObject || v.kind == kindArray:
		e.data = v
	}
	return nil
}

// binary takes data_base64 where the content type says that it is JSON.
func (e *cloudEvent) binary(v *value) *index.DocumentError {
	if v.kind == kindNull {
		return nil
	}
	raw, ok := decodeBase64(v.text)
	if !ok || v.kind != kindString {
		return refusal(ReasonCloudEventMalformed, "data_base64", "the data is not base64")
	}
	if !isJSONType(textOf(e.root.get("datacontenttype"))) {
		return nil
	}
	data, fault := parseJSON(raw)
	if fault != nil {
		fault.Field = "data_base64"
		return fault
	}
	if data.kind == kindObject || data.kind == kindArray {
		e.data = data
	}
	return nil
}

// isJSONType tells whether a media type says JSON; the default of CloudEvents is that.
func isJSONType(media string) bool {
	base, _, _ := strings.Cut(media, ";")
	base = strings.ToLower(strings.TrimSpace(base))
	return base == "" || base == "application/json" || base == "text/json" || strings.HasSuffix(base, "+json")
}

// looksCloudEvent reports whether v is an event in the JSON format.
func looksCloudEvent(v *value) bool { return v.get("specversion") != nil && v.get("source") != nil }
