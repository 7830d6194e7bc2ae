package limiter

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// FileBytesMax bounds a file of limits.
const FileBytesMax = 4 << 20

// ParseLimits reads limits from YAML:
//
//	limits:
//	  - id: acme-api
//	    scope: tenant
//	    selector: acme
//	    tokenBucket: {rate: 100/s, burst: 20}
//	    window: {limit: 10000, length: 1h}
//	    calendar: {limit: 1000000, period: month, timeZone: Europe/Berlin}
//	    concurrency: {limit: 10, ttl: 60s}
//
// It is strict: unknown or repeated keys, several documents, aliases and values of another
// type are refused. The error is what is wrong, up to 20 things, as joined *InvalidError with
// lines.
func ParseLimits(file []byte) ([]Limit, error) {
	if len(file) > FileBytesMax {
		return nil, &InvalidError{Field: "file", Message: fmt.Sprintf("must be at most %d bytes", FileBytesMax)}
	}
	dec := yaml.NewDecoder(bytes.NewReader(file))
	var doc, second yaml.Node
	err := dec.Decode(&doc)
	if errors.Is(err, io.EOF) {
		return nil, &InvalidError{Line: 1, Field: "limits", Message: "is missing: the file is empty"}
	}
	if err == nil {
		if err = dec.Decode(&second); err == nil {
			return nil, &InvalidError{Line: second.Line, Field: "file", Message: "must hold one document only"}
		}
	}
	if !errors.Is(err, io.EOF) {
		return nil, &InvalidError{Field: "file", Message: "is not YAML: " + strings.TrimPrefix(err.Error(), "yaml: ")}
	}
	var p parser
	limits := p.file(doc.Content[0])
	if len(p.errs) > 0 {
		return nil, p.err()
	}
	return limits, nil
}

// parser collects everything that is wrong.
type parser struct{ errs []*InvalidError }

func (p *parser) fail(line int, field, format string, args ...any) {
	p.errs = append(p.errs, &InvalidError{Line: line, Field: field, Message: fmt.Sprintf(format, args...)})
}

// err is what is wrong, by line.
func (p *parser) err() error {
	slices.SortStableFunc(p.errs, func(a, b *InvalidError) int { return cmp.Compare(a.Line, b.Line) })
	return joinInvalid("limits", p.errs)
}

func (p *parser) file(n *yaml.Node) []Limit {
	fields, ok := p.mapping(n, "file", "", "limits")
	if !ok {
		return nil
	}
	list := fields["limits"]
	if list == nil {
		p.fail(n.Line, "limits", "is missing")
		return nil
	}
	if list.Kind != yaml.SequenceNode {
		p.fail(list.Line, "limits", "must be a list")
		return nil
	}
	limits := make([]Limit, 0, len(list.Content))
	lineOf := make(map[string]int, len(list.Content))
	for i, item := range list.Content {
		l := p.limit(item, fmt.Sprintf("limits[%d]", i))
		if first, ok := lineOf[l.ID]; ok && l.ID != "" {
			p.fail(item.Line, fmt.Sprintf("limits[%d].id", i), "%q is the id of the limit at line %d already", l.ID, first)
		} else {
			lineOf[l.ID] = item.Line
		}
		limits = append(limits, l)
	}
	return limits
}

// limit reads one limit and checks it; a field that could not be read is reported once.
func (p *parser) limit(n *yaml.Node, path string) Limit {
	fields, ok := p.mapping(n, path, path+".", "id", "scope", "selector", "tokenBucket", "window", "calendar",
		"concurrency", "enforcement", "canary", "oversize", "onFailure", "access", "overrides", "expires")
	if !ok {
		return Limit{}
	}
	// lines has the fields that were read; the others are in p.errs already.
	lines := map[string]int{}
	var l Limit
	l.ID = p.text(fields["id"], n.Line, path, "id", lines)
	l.Scope = p.text(fields["scope"], n.Line, path, "scope", lines)
	if l.Selector = p.optional(fields["selector"], path, "selector", lines); fields["selector"] == nil && l.Scope != ScopeGlobal {
		p.fail(n.Line, path+".selector", "is missing")
	}
	if fields["tokenBucket"] == nil && fields["window"] == nil && fields["calendar"] == nil && fields["concurrency"] == nil && fields["access"] == nil {
		lines[""] = n.Line
	}
	if b, parts := p.part(fields, path, "tokenBucket", lines, "rate", "burst"); parts != nil {
		l.TokenBucket.Rate = p.text(parts["rate"], b.Line, path, "tokenBucket.rate", lines)
		l.TokenBucket.Burst = p.count(parts["burst"], b.Line, path, "tokenBucket.burst", lines)
	}
	if b, parts := p.part(fields, path, "window", lines, "limit", "length"); parts != nil {
		l.Window.Limit = p.count(parts["limit"], b.Line, path, "window.limit", lines)
		l.Window.Length = p.text(parts["length"], b.Line, path, "window.length", lines)
	}
	if b, parts := p.part(fields, path, "calendar", lines, "limit", "period", "timeZone", "anchor"); parts != nil {
		l.Calendar.Limit = p.count(parts["limit"], b.Line, path, "calendar.limit", lines)
		l.Calendar.Period = p.text(parts["period"], b.Line, path, "calendar.period", lines)
		l.Calendar.TimeZone = p.optional(parts["timeZone"], path, "calendar.timeZone", lines)
		l.Calendar.Anchor = p.optional(parts["anchor"], path, "calendar.anchor", lines)
	}
	if b, parts := p.part(fields, path, "concurrency", lines, "limit", "ttl"); parts != nil {
		l.Concurrency.Limit = p.count(parts["limit"], b.Line, path, "concurrency.limit", lines)
		if l.Concurrency.TTL = p.optional(parts["ttl"], path, "concurrency.ttl", lines); parts["ttl"] == nil {
			l.Concurrency.TTL = SlotTTLUsual
		}
	}
	l.Enforcement = p.optional(fields["enforcement"], path, "enforcement", lines)
	l.Oversize = p.optional(fields["oversize"], path, "oversize", lines)
	l.OnFailure = p.optional(fields["onFailure"], path, "onFailure", lines)
	l.Access = p.optional(fields["access"], path, "access", lines)
	l.Overrides = p.optional(fields["overrides"], path, "overrides", lines)
	l.Canary = p.percent(fields["canary"], path+".canary", lines)
	l.Expires = p.time(fields["expires"], path+".expires", lines)
	l = l.WithoutUsual()
	for _, problem := range append(problemsOf(l), zoneProblems(l)...) {
		if line, ok := lines[problem.field]; ok {
			p.fail(line, problem.path(path), "%s", problem.message)
		}
	}
	return l
}

// part splits a part of a limit that is there.
func (p *parser) part(fields map[string]*yaml.Node, path, name string, lines map[string]int, known ...string) (*yaml.Node, map[string]*yaml.Node) {
	n := fields[name]
	if n == nil {
		return nil, nil
	}
	parts, ok := p.mapping(n, path+"."+name, path+"."+name+".", known...)
	if !ok {
		return nil, nil
	}
	lines[name] = n.Line
	return n, parts
}

// mapping splits a mapping into its values and refuses keys that are unknown or repeated.
func (p *parser) mapping(n *yaml.Node, field, prefix string, known ...string) (map[string]*yaml.Node, bool) {
	if n.Kind == yaml.AliasNode {
		p.fail(n.Line, field, "must be written out; aliases are not read")
		return nil, false
	}
	if n.Kind != yaml.MappingNode {
		p.fail(n.Line, field, "must be a mapping with the keys %s", strings.Join(known, ", "))
		return nil, false
	}
	out := make(map[string]*yaml.Node, len(known))
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		switch {
		case k.Kind != yaml.ScalarNode || !slices.Contains(known, k.Value):
			p.fail(k.Line, prefix+k.Value, "is not known here; the keys are %s", strings.Join(known, ", "))
		case out[k.Value] != nil:
			p.fail(k.Line, prefix+k.Value, "is given twice; first at line %d", out[k.Value].Line)
		default:
			out[k.Value] = v
		}
	}
	return out, true
}

// text reads a scalar that is text. line is where its mapping begins.
func (p *parser) text(n *yaml.Node, line int, path, field string, lines map[string]int) string {
	if n == nil {
		p.fail(line, path+"."+field, "is missing")
		return ""
	}
	if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!str" {
		p.fail(n.Line, path+"."+field, "must be text; if it is meant as text, put it in quotes")
		return ""
	}
	lines[field] = n.Line
	return n.Value
}

// percent reads a share such as "5%"; a missing one is 0.
func (p *parser) percent(n *yaml.Node, path string, lines map[string]int) uint32 {
	if n == nil {
		return 0
	}
	digits, ok := strings.CutSuffix(n.Value, "%")
	v, err := strconv.ParseUint(digits, 10, 32)
	if n.Kind != yaml.ScalarNode || !ok || err != nil || v < 1 || v > 100 {
		p.fail(n.Line, path, "must be a whole share from 1%% to 100%%")
		return 0
	}
	lines["canary"] = n.Line
	return uint32(v)
}

// time reads a moment; a missing one is 0.
func (p *parser) time(n *yaml.Node, path string, lines map[string]int) int64 {
	if n == nil {
		return 0
	}
	at, err := parseExpires(n.Value) // of a mapping or sequence it is empty
	if err != nil {
		p.fail(n.Line, path, "%s", err)
		return 0
	}
	lines["expires"] = n.Line
	return at
}

// optional is text that may be missing.
func (p *parser) optional(n *yaml.Node, path, field string, lines map[string]int) string {
	if n == nil {
		return ""
	}
	return p.text(n, n.Line, path, field, lines)
}

// count reads a scalar that is a whole number of at most 32 bits.
func (p *parser) count(n *yaml.Node, line int, path, field string, lines map[string]int) uint32 {
	if n == nil {
		p.fail(line, path+"."+field, "is missing")
		return 0
	}
	v, err := strconv.ParseUint(n.Value, 10, 32)
	if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!int" || err != nil {
		p.fail(n.Line, path+"."+field, "must be a whole number from 0 to 4294967295")
		return 0
	}
	lines[field] = n.Line
	return uint32(v)
}
