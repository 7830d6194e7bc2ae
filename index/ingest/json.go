package ingest

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/maestro-conductor/maestro/index"
)

// maxValues bounds the values in one record: each takes some hundred bytes of memory, however
// few bytes of JSON it has.
const maxValues = 1 << 20

// kind is the JSON type of a value.
type kind uint8

const (
	kindNull kind = iota
	kindBool
	kindNumber
	kindString
	kindArray
	kindObject
)

// names as they stand in messages.
var kindNames = [...]string{"null", "a boolean", "a number", "a string", "an array", "an object"}

func (k kind) String() string { return kindNames[k] }

// value is a JSON value that keeps what encoding/json's usual types lose: the literal text
// of numbers and the order of an object's members.
type value struct {
	kind kind
	// text is the content of a string, the literal of a number, or true or false.
	text    string
	list    []value
	members []member
}

type member struct {
	name  string
	value value
}

// get returns a member of an object, nil where v is none, has no such member, or the member
// is null: null and absent mean the same in every format read here.
func (v *value) get(name string) *value {
	if v == nil || v.kind != kindObject {
		return nil
	}
	for i := range v.members {
		if v.members[i].name == name {
			if v.members[i].value.kind == kindNull {
				return nil
			}
			return &v.members[i].value
		}
	}
	return nil
}

// path follows names through nested objects.
func (v *value) path(names ...string) *value {
	for _, name := range names {
		v = v.get(name)
	}
	return v
}

// scalar returns the text of a string, number or boolean.
func (v *value) scalar() (string, bool) {
	if v == nil || v.kind == kindNull || v.kind == kindArray || v.kind == kindObject {
		return "", false
	}
	return v.text, true
}

// parseJSON reads one JSON value. It refuses what two readers could read differently:
// invalid UTF-8, and objects with the same name twice.
func parseJSON(b []byte) (*value, *index.DocumentError) {
	if !utf8.Valid(b) {
		return nil, refusal(index.ReasonTextMalformed, "", "the JSON is not valid UTF-8")
	}
	if err := validJSON(b); err != nil {
		return nil, err
	}
	p := parser{rest: string(b)}
	var v value
	p.value(&v)
	if p.fault != nil {
		return nil, p.fault
	}
	return &v, nil
}

func validJSON(b []byte) *index.DocumentError {
	if json.Valid(b) {
		return nil
	}
	var raw json.RawMessage
	err := json.Unmarshal(b, &raw)
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		return refusal(ReasonRecordMalformed, "", "not valid JSON: %v, after %d bytes", err, syntax.Offset)
	}
	return refusal(ReasonRecordMalformed, "", "not valid JSON: %v", err)
}

// parser builds values from JSON that is known to be valid: it decides nothing that
// encoding/json has not decided already. Texts are parts of the one string that holds it all.
type parser struct {
	rest   string
	depth  int
	values int
	fault  *index.DocumentError
}

// peek returns the next byte that is not white space.
func (p *parser) peek() byte {
	p.rest = strings.TrimLeft(p.rest, " \t\r\n")
	return p.rest[0]
}

func (p *parser) value(v *value) {
	if p.values++; p.values > maxValues {
		p.fault = refusal(ReasonRecordTooLarge, "", "the record has more than the %d JSON values allowed; split it, one document to a line", maxValues)
		return
	}
	switch p.peek() {
	case '{', '[':
		p.composite(v)
	case '"':
		v.kind, v.text = kindString, p.string()
	case 'n':
		v.kind = kindNull
		p.word()
	case 't', 'f':
		v.kind, v.text = kindBool, p.word()
	default:
		v.kind, v.text = kindNumber, p.word()
	}
}

// word takes a number, true, false or null.
func (p *parser) word() string {
	end := 0
	for end < len(p.rest) && isWord(p.rest[end]) {
		end++
	}
	word := p.rest[:end]
	p.rest = p.rest[end:]
	return word
}

func (p *parser) string() string {
	end, escaped := 1, false
	for ; p.rest[end] != '"'; end++ {
		if p.rest[end] == '\\' {
			escaped = true
			end++
		}
	}
	quoted := p.rest[:end+1]
	p.rest = p.rest[end+1:]
	if !escaped {
		return quoted[1:end]
	}
	var text string
	if err := json.Unmarshal([]byte(quoted), &text); err != nil {
		p.fault = refusal(ReasonRecordMalformed, "", "not valid JSON: %v", err)
	}
	return text
}

func (p *parser) composite(v *value) {
	if p.depth++; p.depth > maxDepth {
		p.fault = refusal(ReasonRecordMalformed, "", "the JSON value is nested more than %d deep", maxDepth)
		return
	}
	v.kind = kindArray
	if p.rest[0] == '{' {
		v.kind = kindObject
	}
	p.rest = p.rest[1:]
	seen := names{}
	for c := p.peek(); c != '}' && c != ']'; c = p.peek() {
		if c == ',' {
			p.rest = p.rest[1:]
		}
		if v.kind == kindArray {
			v.list = append(v.list, value{})
			p.value(&v.list[len(v.list)-1])
		} else {
			p.member(v, &seen)
		}
		if p.fault != nil {
			return
		}
	}
	p.rest = p.rest[1:]
	p.depth--
}

func (p *parser) member(v *value, seen *names) {
	p.peek()
	name := p.string()
	if seen.has(v.members, name) {
		p.fault = refusal(ReasonRecordMalformed, shorten(name), "the field is there twice in one object, so its value is ambiguous")
		return
	}
	p.peek()
	p.rest = p.rest[1:] // the colon
	v.members = append(v.members, member{name: name})
	p.value(&v.members[len(v.members)-1].value)
}

// names finds repeated names: by looking at each while they are few, then with a set.
type names struct {
	set map[string]struct{}
}

// has reports whether name is among the members, and otherwise notes that it will be.
func (n *names) has(members []member, name string) bool {
	const few = 16
	if len(members) < few {
		return slices.ContainsFunc(members, func(m member) bool { return m.name == name })
	}
	if n.set == nil {
		n.set = make(map[string]struct{}, 2*few)
		for _, m := range members {
			n.set[m.name] = struct{}{}
		}
	}
	_, found := n.set[name]
	n.set[name] = struct{}{}
	return found
}

// appendCanonical writes v in one way whatever its source looked like: members sorted by
// name, no white space, numbers as they were written.
func appendCanonical(b []byte, v *value) []byte {
	switch v.kind {
	case kindNull:
		return append(b, "null"...)
	case kindBool, kindNumber:
		return append(b, v.text...)
	case kindString:
		return appendString(b, v.text)
	case kindArray:
		b = append(b, '[')
		for i := range v.list {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendCanonical(b, &v.list[i])
		}
		return append(b, ']')
	}
	b = append(b, '{')
	sorted := slices.Clone(v.members)
	slices.SortFunc(sorted, func(a, b member) int { return strings.Compare(a.name, b.name) })
	for i := range sorted {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(appendString(b, sorted[i].name), ':')
		b = appendCanonical(b, &sorted[i].value)
	}
	return append(b, '}')
}

// appendString escapes what RFC 8785 escapes and nothing else.
func appendString(b []byte, s string) []byte {
	const digits = "0123456789abcdef"
	b = append(b, '"')
	for i := range len(s) {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c >= 0x20:
			b = append(b, c)
		case c == '\b':
			b = append(b, '\\', 'b')
		case c == '\f':
			b = append(b, '\\', 'f')
		case c == '\n':
			b = append(b, '\\', 'n')
		case c == '\r':
			b = append(b, '\\', 'r')
		case c == '\t':
			b = append(b, '\\', 't')
		default:
			b = append(b, '\\', 'u', '0', '0', digits[c>>4], digits[c&15])
		}
	}
	return append(b, '"')
}
