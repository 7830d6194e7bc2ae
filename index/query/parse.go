package query

import (
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Parse reads a query. A mistake is an *Error.
func Parse(text string) (Node, error) {
	if len(text) > TextBytesMax {
		return nil, &Error{Message: fmt.Sprintf("the query has %d bytes, more than %d", len(text), TextBytesMax), Suggestion: "split it into several searches"}
	}
	if !utf8.ValidString(text) {
		return nil, &Error{Message: "the query is not valid UTF-8"}
	}
	p := &parser{text: []rune(text)}
	p.space()
	if p.end() {
		return &All{}, nil
	}
	n, err := p.or(0)
	if err != nil {
		return nil, err
	}
	if !p.end() { // only a closing parenthesis stops or early
		return nil, p.fail(p.at, "this parenthesis closes nothing", "remove it, or put ( before")
	}
	return n, nil
}

// parser is a recursive descent over
//
//	or   = and { "OR" and }
//	and  = unary { [ "AND" ] unary }
//	unary = "NOT" unary | "-" unary | "(" or ")" | "*" | range | term | word
type parser struct {
	text  []rune
	at    int
	terms int
}

func (p *parser) fail(position int, message, suggestion string) error {
	return &Error{Position: position, Message: message, Suggestion: suggestion}
}

func (p *parser) end() bool { return p.at >= len(p.text) }

// peek is the next rune, or 0 at the end.
func (p *parser) peek() rune {
	if p.end() {
		return 0
	}
	return p.text[p.at]
}

func (p *parser) space() {
	for !p.end() && unicode.IsSpace(p.text[p.at]) {
		p.at++
	}
}

// breaksWord tells which runes end an unquoted word.
func breaksWord(r rune) bool { return r == '(' || r == ')' || unicode.IsSpace(r) }

// operator tells whether the word at the cursor is op, and steps over it.
func (p *parser) operator(op string) bool {
	end := p.at + len(op)
	if end > len(p.text) || string(p.text[p.at:end]) != op {
		return false
	}
	if end < len(p.text) && !breaksWord(p.text[end]) {
		return false
	}
	p.at = end
	p.space()
	return true
}

func (p *parser) or(depth int) (Node, error) {
	var nodes []Node
	for {
		n, err := p.and(depth)
		if err != nil {
			return nil, err
		}
		if o, ok := n.(*Or); ok { // (a OR b) OR c is a OR b OR c
			nodes = append(nodes, o.Nodes...)
		} else {
			nodes = append(nodes, n)
		}
		if !p.operator("OR") {
			break
		}
	}
	if len(nodes) == 1 {
		return nodes[0], nil
	}
	return &Or{Nodes: nodes}, nil
}

func (p *parser) and(depth int) (Node, error) {
	var nodes []Node
	for {
		n, err := p.unary(depth)
		if err != nil {
			return nil, err
		}
		if a, ok := n.(*And); ok {
			nodes = append(nodes, a.Nodes...)
		} else {
			nodes = append(nodes, n)
		}
		p.space()
		if p.operator("AND") {
			continue
		}
		at := p.at
		if p.end() || p.peek() == ')' || p.operator("OR") {
			p.at = at
			break
		}
	}
	if len(nodes) == 1 {
		return nodes[0], nil
	}
	return &And{Nodes: nodes}, nil
}

func (p *parser) unary(depth int) (Node, error) {
	start := p.at
	if depth > DepthMax {
		return nil, p.fail(start, fmt.Sprintf("parentheses and NOT nest deeper than %d", DepthMax), "")
	}
	if p.end() {
		return nil, p.fail(start, "a term is missing at the end", "write field:value or a word")
	}
	for _, op := range []string{"AND", "OR"} {
		if p.operator(op) {
			return nil, p.fail(start, op+" has nothing before it", fmt.Sprintf(`write a term before it, or "%s" in quotes to search the word`, op))
		}
	}
	if p.operator("NOT") {
		n, err := p.unary(depth + 1)
		return &Not{Node: n}, err
	}
	switch p.peek() {
	case '-':
		p.at++
		if p.end() || unicode.IsSpace(p.peek()) || p.peek() == ')' {
			return nil, p.fail(start, "- has no term behind it", "write -field:value without a space")
		}
		n, err := p.unary(depth + 1)
		return &Not{Node: n}, err
	case ')':
		return nil, p.fail(start, "a term is missing before )", "")
	case '(':
		p.at++
		p.space()
		n, err := p.or(depth + 1)
		if err != nil {
			return nil, err
		}
		if p.peek() != ')' {
			return nil, p.fail(start, "this parenthesis is not closed", "add ) at the end of the group")
		}
		p.at++
		return n, nil
	}
	p.terms++
	if p.terms > TermsMax {
		return nil, p.fail(start, fmt.Sprintf("the query has more than %d terms", TermsMax), "split it into several searches, or look up many digests at once")
	}
	return p.term()
}

// term reads a term with or without a field.
func (p *parser) term() (Node, error) {
	start := p.at
	field, name, err := p.field()
	if err != nil {
		return nil, err
	}
	switch field {
	case "":
		v, prefix, err := p.value("a word")
		if err != nil {
			return nil, err
		}
		if v == "" {
			if prefix {
				return &All{}, nil
			}
			return nil, p.fail(start, "the quotes are empty", "write a word between them")
		}
		return &Word{Value: v, Prefix: prefix, Position: start}, nil
	case Time, Cost:
		return p.ranged(field, start)
	}
	switch r := p.peek(); {
	case p.end() || breaksWord(r) && r != '(':
		return nil, p.fail(p.at, "the value is missing after "+string(p.text[start:p.at]), "write it right behind the colon, without a space")
	case r == '[' || r == '<' || r == '>':
		return nil, p.fail(p.at, "only time and cost have ranges", fmt.Sprintf("quote a value that begins with %c", r))
	case r == '(':
		return nil, p.fail(p.at, "a group cannot follow a colon", "write (field:a OR field:b)")
	}
	v, prefix, err := p.value(string(field))
	if err != nil {
		return nil, err
	}
	return &Term{Field: field, Name: name, Value: v, Prefix: prefix, Position: start}, nil
}

// field reads "name:" and steps over it; the field is "" and the cursor unmoved where a bare
// word stands.
func (p *parser) field() (f Field, name string, err error) {
	start := p.at
	i := start
	for i < len(p.text) && p.text[i] != ':' && p.text[i] != '"' && !breaksWord(p.text[i]) {
		i++
	}
	word := string(p.text[start:i])
	if word == "attr." && i < len(p.text) && p.text[i] == '"' {
		p.at = i
		if name, err = p.quoted(); err != nil {
			return "", "", err
		}
		if p.peek() != ':' {
			return "", "", p.fail(p.at, "a colon is missing after the attribute's name", `write attr."name":value`)
		}
		p.at++
		return Attr, name, p.attributeName(start, name)
	}
	if i == len(p.text) || p.text[i] != ':' {
		return "", "", nil
	}
	if isAlgorithm(word) {
		return Digest, "", nil // the algorithm is part of the value
	}
	p.at = i + 1
	if rest, ok := strings.CutPrefix(word, "attr."); ok {
		if strings.ContainsRune(rest, '*') {
			return "", "", p.fail(start, "an attribute's name takes no *", `name one attribute, or write attr."name with *":value`)
		}
		return Attr, rest, p.attributeName(start, rest)
	}
	if f = Field(word); slices.Contains(Fields, f) {
		return f, "", nil
	}
	suggestion := fmt.Sprintf(`quote the word to search it as text, or use attr.%s for an attribute`, word)
	if near := nearestField(word); near != "" {
		suggestion = fmt.Sprintf("did you mean %s:?", strings.TrimSuffix(near, "."))
		if near == "attr." {
			suggestion = "did you mean attr.NAME:?"
		}
	}
	return "", "", p.fail(start, fmt.Sprintf("there is no field %q", word), suggestion)
}

func (p *parser) attributeName(start int, name string) error {
	if name == "" {
		return p.fail(start, "the attribute has no name", "write attr.NAME:value")
	}
	return nil
}

// value reads a quoted or plain value and an optional * behind it.
func (p *parser) value(what string) (v string, prefix bool, err error) {
	start := p.at
	if p.peek() == '"' {
		if v, err = p.quoted(); err != nil {
			return "", false, err
		}
		if p.peek() == '*' {
			prefix = true
			p.at++
		}
		if !p.end() && !breaksWord(p.peek()) {
			return "", false, p.fail(p.at, "text follows the closing quote", `put a space between, or \" for a quote inside`)
		}
		return v, prefix, nil
	}
	for !p.end() && !breaksWord(p.peek()) {
		if p.peek() == '"' {
			return "", false, p.fail(p.at, "a quote stands inside "+what, `put the whole value in quotes, with \" for a quote inside`)
		}
		p.at++
	}
	v = string(p.text[start:p.at])
	v, prefix = strings.CutSuffix(v, "*")
	if i := strings.IndexByte(v, '*'); i >= 0 {
		return "", false, p.fail(start+utf8.RuneCountInString(v[:i]), "* is only possible at the end", "put the value in quotes to search the character *")
	}
	return v, prefix, nil
}

// quoted reads text between quotes.
func (p *parser) quoted() (string, error) {
	start := p.at
	var b strings.Builder
	for p.at++; !p.end(); p.at++ {
		switch r := p.text[p.at]; r {
		case '"':
			p.at++
			return b.String(), nil
		case '\\':
			p.at++
			if next := p.peek(); next != '"' && next != '\\' {
				return "", p.fail(p.at-1, `\ must stand before " or \`, `write \\ for a backslash`)
			}
			b.WriteRune(p.text[p.at])
		default:
			b.WriteRune(r)
		}
	}
	return "", p.fail(start, "this quote is not closed", `add " at the end of the value`)
}
