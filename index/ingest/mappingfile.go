package ingest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/maestro-conductor/maestro/index"
)

// MaxMappingBytes bounds a mapping file.
const MaxMappingBytes = 64 << 10

// MappingError lists everything that is wrong with a mapping file.
type MappingError struct {
	Problems []MappingProblem
}

// MappingProblem is one mistake in a mapping file.
type MappingProblem struct {
	// Line counts from 1; 0 means the whole file.
	Line    int
	Message string
}

// Error gives a line for each problem.
func (e *MappingError) Error() string {
	var b strings.Builder
	b.WriteString("mapping file: ")
	for i, p := range e.Problems {
		if i > 0 {
			b.WriteString("\nmapping file: ")
		}
		if p.Line > 0 {
			fmt.Fprintf(&b, "line %d: ", p.Line)
		}
		b.WriteString(p.Message)
	}
	return b.String()
}

// ParseMapping reads a mapping file:
//
//	records: Records                 # optional: path of the list inside each JSON value
//	kind: {const: event}             # a constant ...
//	id: {from: eventID}              # ... or a dotted path: detail.items.0.id
//	time: {from: at, layout: unix}   # RFC 3339 unless a layout is given
//	task: {from: arn, split: ":", index: 5}
//	digests: [{from: sha, algorithm: sha256, direction: output, name: file}]
//	cost: {from: cost_usd, currency: USD}
//	attributes: all                  # or a list of paths
//
// The fields are those of a document; kind is required. The error is a *MappingError with
// every mistake in the file.
func ParseMapping(content []byte) (*Mapping, error) {
	if len(content) > MaxMappingBytes {
		return nil, &MappingError{[]MappingProblem{{0, fmt.Sprintf("the file has %d bytes, more than the %d allowed", len(content), MaxMappingBytes)}}}
	}
	decoder := yaml.NewDecoder(bytes.NewReader(content))
	var root, second yaml.Node
	err := decoder.Decode(&root)
	if errors.Is(err, io.EOF) || err == nil && len(root.Content) == 0 {
		err = errors.New("the file is empty; name at least the kind, such as kind: {const: event}")
	}
	if err == nil {
		if err = decoder.Decode(&second); err == nil {
			err = fmt.Errorf("yaml: line %d: a second document begins; a mapping file has one", second.Line)
		}
		if errors.Is(err, io.EOF) {
			err = nil
		}
	}
	if err != nil {
		return nil, &MappingError{[]MappingProblem{{0, err.Error()}}}
	}
	p := mappingParser{m: &Mapping{texts: map[string]*source{}, taken: map[string]bool{}}}
	p.root(root.Content[0])
	if len(p.problems) > 0 {
		slices.SortStableFunc(p.problems, func(a, b MappingProblem) int { return a.Line - b.Line })
		return nil, &MappingError{p.problems}
	}
	return p.m, nil
}

// mappingParser walks the YAML tree and collects mistakes.
type mappingParser struct {
	m        *Mapping
	problems []MappingProblem
}

func (p *mappingParser) problem(n *yaml.Node, format string, args ...any) {
	p.problems = append(p.problems, MappingProblem{n.Line, fmt.Sprintf(format, args...)})
}

func (p *mappingParser) root(n *yaml.Node) {
	known := append([]string{"records", "time", "digests", "cost", "attributes"}, textFields...)
	found := p.fields(n, "the mapping", known, func(name string, v *yaml.Node) {
		switch name {
		case "records":
			p.m.records = p.path(name, v)
		case "time":
			p.time(v)
		case "digests":
			p.digests(v)
		case "cost":
			p.cost(v)
		case "attributes":
			p.attributes(v)
		default:
			s := new(source)
			p.source(name, v, s, true, nil)
			p.m.texts[name] = s
		}
	})
	if found && p.m.texts["kind"] == nil {
		p.problem(n, "kind is missing; name it, such as kind: {const: event}")
	}
	p.constants(n)
}

// constants checks what would otherwise be refused for every record.
func (p *mappingParser) constants(n *yaml.Node) {
	if kind := p.m.texts["kind"]; kind != nil && kind.constant != "" {
		switch kind.constant {
		case index.KindReceipt, index.KindEvent, index.KindDecision:
		default:
			p.problem(fieldOf(n, "kind"), "kind: %q is not a kind of document; use receipt, event or decision", shorten(kind.constant))
		}
	}
	if tenant := p.m.texts["tenant"]; tenant != nil && tenant.constant != "" && !index.ValidTenant(tenant.constant) {
		p.problem(fieldOf(n, "tenant"), "tenant: %q cannot name a tenant; use 1 to %d of a-z, 0-9, '.', '_' and '-'", shorten(tenant.constant), index.MaxTenantBytes)
	}
}

func fieldOf(n *yaml.Node, name string) *yaml.Node {
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == name {
			return n.Content[i+1]
		}
	}
	return n
}

// fields calls set for each field of a YAML mapping and reports whether n is one.
func (p *mappingParser) fields(n *yaml.Node, what string, known []string, set func(name string, v *yaml.Node)) bool {
	if n.Kind != yaml.MappingNode {
		p.problem(n, "%s: expected fields, such as {from: PATH} or {const: VALUE}", what)
		return false
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i]
		switch {
		case key.Kind != yaml.ScalarNode || !slices.Contains(known, key.Value):
			p.problem(key, "%s has no field %q; the fields are %s", what, shorten(key.Value), strings.Join(known, ", "))
		case seen[key.Value]:
			p.problem(key, "%s: the field %s is there twice", what, key.Value)
		default:
			seen[key.Value] = true
			set(key.Value, n.Content[i+1])
		}
	}
	return true
}

// source reads from, const, split and index, and leaves other fields of known to extra.
func (p *mappingParser) source(what string, n *yaml.Node, s *source, needsIndex bool, extra map[string]func(*yaml.Node)) {
	known := []string{"from", "const", "split", "index"}
	for _, name := range []string{"layout", "currency", "direction", "algorithm", "name"} {
		if extra[name] != nil {
			known = append(known, name)
		}
	}
	before := len(p.problems)
	if !p.fields(n, what, known, func(name string, v *yaml.Node) {
		switch name {
		case "from":
			s.from = p.path(what+".from", v)
		case "const":
			s.constant = p.text(what+".const", v)
		case "split":
			s.split = p.text(what+".split", v)
		case "index":
			s.part = p.index(what+".index", v)
		default:
			extra[name](v)
		}
	}) || len(p.problems) > before {
		return
	}
	switch {
	case (s.from == "") == (s.constant == ""):
		p.problem(n, "%s: give either from (a path) or const (a value)", what)
	case s.split != "" && s.from == "":
		p.problem(n, "%s: split needs from", what)
	case s.part != nil && s.split == "":
		p.problem(n, "%s: index needs split", what)
	case s.split != "" && s.part == nil && needsIndex:
		p.problem(n, "%s: split needs index, the part to take (0 is the first, -1 the last)", what)
	}
	if s.from != "" && s.split == "" {
		p.m.taken[s.from] = true
	}
}

// text reads a scalar that is not empty.
func (p *mappingParser) text(what string, n *yaml.Node) string {
	if n.Kind != yaml.ScalarNode || n.Tag == "!!null" || n.Value == "" {
		p.problem(n, "%s: expected a text that is not empty", what)
		return ""
	}
	return n.Value
}

func (p *mappingParser) path(what string, n *yaml.Node) string {
	path := p.text(what, n)
	if path != "" && slices.Contains(strings.Split(path, "."), "") {
		p.problem(n, "%s: %q is not a path; write names with single dots between them", what, shorten(path))
	}
	return path
}

func (p *mappingParser) index(what string, n *yaml.Node) *int {
	at, err := strconv.Atoi(n.Value)
	if err != nil || n.Kind != yaml.ScalarNode {
		p.problem(n, "%s: expected a whole number", what)
		return nil
	}
	return &at
}

func (p *mappingParser) time(n *yaml.Node) {
	p.m.time, p.m.timeLayout = new(source), time.RFC3339
	p.source("time", n, p.m.time, true, map[string]func(*yaml.Node){
		"layout": func(v *yaml.Node) { p.m.timeLayout = p.layout(v) },
	})
}

// layout takes a layout of package time if it shows at least a year, month and day.
func (p *mappingParser) layout(n *yaml.Node) string {
	layout := p.text("time.layout", n)
	switch layout {
	case "", layoutUnix, layoutUnixMilli:
		return layout
	case "rfc3339":
		return time.RFC3339
	}
	example := time.Date(2031, 11, 29, 0, 0, 0, 0, time.UTC)
	read, err := time.Parse(layout, example.Format(layout))
	if err != nil || !read.Equal(example) {
		p.problem(n, "time.layout: %q is not a layout; use rfc3339, unix, unix_ms, or write the time 2006-01-02 15:04:05 the way your times look", shorten(layout))
	}
	return layout
}

func (p *mappingParser) digests(n *yaml.Node) {
	if n.Kind != yaml.SequenceNode {
		p.problem(n, "digests: expected a list, such as [{from: digest, direction: output}]")
		return
	}
	for i, element := range n.Content {
		what := fmt.Sprintf("digests[%d]", i)
		var s digestSource
		p.source(what, element, &s.source, false, map[string]func(*yaml.Node){
			"direction": func(v *yaml.Node) { s.direction = p.text(what+".direction", v) },
			"algorithm": func(v *yaml.Node) { s.algorithm = p.text(what+".algorithm", v) },
			"name": func(v *yaml.Node) {
				s.name = p.path(what+".name", v)
				p.m.taken[s.name] = true
			},
		})
		switch s.direction {
		case index.DirectionInput, index.DirectionOutput, index.DirectionSubject:
		default:
			p.problem(element, "%s.direction: %q is not a direction; use input, output or subject", what, shorten(s.direction))
		}
		p.m.digests = append(p.m.digests, s)
	}
}

func (p *mappingParser) cost(n *yaml.Node) {
	p.m.cost, p.m.currency = new(source), "USD"
	p.source("cost", n, p.m.cost, true, map[string]func(*yaml.Node){
		"currency": func(v *yaml.Node) {
			p.m.currency = p.text("cost.currency", v)
			if len(p.m.currency) != 3 || strings.Trim(p.m.currency, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") != "" {
				p.problem(v, "cost.currency: %q is not an ISO 4217 code of three upper-case letters, such as USD", shorten(p.m.currency))
			}
		},
	})
}

func (p *mappingParser) attributes(n *yaml.Node) {
	switch {
	case n.Kind == yaml.ScalarNode && n.Value == "all":
		p.m.allAttributes = true
	case n.Kind == yaml.SequenceNode:
		for i, element := range n.Content {
			what := fmt.Sprintf("attributes[%d]", i)
			path := p.path(what, element)
			if slices.Contains(p.m.attributes, path) {
				p.problem(element, "%s: the path %q is there twice", what, shorten(path))
			}
			p.m.attributes = append(p.m.attributes, path)
		}
	default:
		p.problem(n, "attributes: expected all, or a list of paths")
	}
}
