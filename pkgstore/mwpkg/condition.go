package mwpkg

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// Condition is the parsed If of a step:
//
//	or    = and { "||" and }        and = not { "&&" not }
//	not   = "!" not | "(" or ")" | value [ ("==" | "!=") value ]
//	value = "inputs." NAME | "steps." ID ".ok" | "steps." ID ".failed" | "steps." ID ".skipped"
//	      | "steps." ID "." OUTPUT | text in double quotes | number | "true" | "false"
//
// There are no functions and no other operators. Outputs of steps are text; a text and a number or
// boolean are equal when the text is how that is written.
type Condition struct {
	root node
	refs []reference
}

// Values are what conditions and placeholders refer to.
type Values struct {
	// Inputs are resolved inputs.
	Inputs map[string]any
	// Steps are the steps that have ended.
	Steps map[string]StepResult
}

// StepResult is how a step ended.
type StepResult struct {
	// Status is succeeded, failed or skipped.
	Status  string
	Outputs map[string]string
}

// reference names an input, or what a step left: an output, or one of the words of stepWords.
type reference struct {
	step string // empty for an input
	name string
}

// stepWords are what a condition may ask of every step; no output is called so.
var stepWords = map[string]string{"ok": StatusSucceeded, "failed": StatusFailed, "skipped": StatusSkipped}

var referenceRe = regexp.MustCompile(`^(?:inputs\.([A-Za-z][A-Za-z0-9_]*)|steps\.([a-z][a-z0-9_-]*)\.([A-Za-z][A-Za-z0-9_]*))$`)

func parseReference(text string) (reference, bool) {
	m := referenceRe.FindStringSubmatch(text)
	if m == nil {
		return reference{}, false
	}
	return reference{m[2], m[1] + m[3]}, true
}

func (r reference) String() string {
	if r.step == "" {
		return "inputs." + r.name
	}
	return "steps." + r.step + "." + r.name
}

// value is what r stands for: a bool, int64, float64, string or []any, or nil for one that is absent.
func (r reference) value(v Values) any {
	if r.step == "" {
		return v.Inputs[r.name]
	}
	result := v.Steps[r.step]
	if status, ok := stepWords[r.name]; ok {
		return result.Status == status
	}
	if out, ok := result.Outputs[r.name]; ok {
		return out
	}
	return nil
}

// node is a part of a condition.
type node struct {
	op   string // "||", "&&", "!", "==", "!=", "ref", "const"
	args []node
	ref  reference
	text any
}

func (n node) eval(v Values) any {
	switch n.op {
	case "ref":
		return n.ref.value(v)
	case "const":
		return n.text
	case "!":
		return !truth(n.args[0].eval(v))
	case "&&":
		return truth(n.args[0].eval(v)) && truth(n.args[1].eval(v))
	case "||":
		return truth(n.args[0].eval(v)) || truth(n.args[1].eval(v))
	}
	a, b := n.args[0].eval(v), n.args[1].eval(v)
	equal := a != nil && b != nil && written(a) == written(b)
	return equal == (n.op == "==")
}

// truth is what a value is as a condition by itself: true, or the text "true".
func truth(v any) bool { return v == true || v == "true" }

// written is how a value stands in an argument or variable.
func written(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case float64:
		return strconv.FormatFloat(v, 'f', -1, 64)
	case []any:
		return marshalArray(v)
	}
	return fmt.Sprint(v)
}

// Eval says whether the condition holds. A value that is absent is false, and equal to nothing.
func (c *Condition) Eval(v Values) bool { return truth(c.root.eval(v)) }

// AsksSteps says whether the condition refers to steps. It then decides alone whether its step runs once the
// steps that it needs have ended; any other condition counts only when those have succeeded.
func (c *Condition) AsksSteps() bool {
	for _, r := range c.refs {
		if r.step != "" {
			return true
		}
	}
	return false
}

// maxCondition bounds the text of a condition, in bytes, and with it how deep it can nest.
const maxCondition = 512

// ParseCondition reads a condition; an empty one always holds.
func ParseCondition(text string) (*Condition, error) {
	if len(text) > maxCondition {
		return nil, refuse(CodeExpression, "", "the condition has %d bytes; at most %d are read", len(text), maxCondition)
	}
	if strings.TrimSpace(text) == "" {
		return &Condition{root: node{op: "const", text: true}}, nil
	}
	p := conditionParser{rest: text}
	p.next()
	root, ok := p.or()
	if !ok || p.token != "" || p.rest != "" {
		return nil, refuse(CodeExpression, "", "%s is no condition at its character %d", quoted(text), len(text)-len(p.rest)-len(p.token)+1).
			hint(`conditions are made of inputs.NAME, steps.ID.ok, steps.ID.failed, steps.ID.skipped, steps.ID.OUTPUT, texts, numbers, == != ! && || ( )`)
	}
	return &Condition{root, p.refs}, nil
}

type conditionParser struct {
	rest, token string
	refs        []reference
}

var conditionToken = regexp.MustCompile(`^(\|\||&&|==|!=|!|\(|\)|"[^"\\\x00-\x1f]*"|-?[0-9]+(?:\.[0-9]+)?|[A-Za-z][A-Za-z0-9_.-]*)`)

// next moves to the next token; it is empty at the end and where none can be read.
func (p *conditionParser) next() {
	p.rest = strings.TrimLeft(p.rest, " \t\n")
	p.token = conditionToken.FindString(p.rest)
	p.rest = p.rest[len(p.token):]
}

func (p *conditionParser) or() (node, bool)  { return p.chain("||", p.and) }
func (p *conditionParser) and() (node, bool) { return p.chain("&&", p.not) }

func (p *conditionParser) chain(op string, part func() (node, bool)) (node, bool) {
	left, ok := part()
	for ok && p.token == op {
		p.next()
		var right node
		if right, ok = part(); ok {
			left = node{op: op, args: []node{left, right}}
		}
	}
	return left, ok
}

func (p *conditionParser) not() (node, bool) {
	switch p.token {
	case "!":
		p.next()
		n, ok := p.not()
		return node{op: "!", args: []node{n}}, ok
	case "(":
		p.next()
		n, ok := p.or()
		if ok = ok && p.token == ")"; ok {
			p.next()
		}
		return n, ok
	}
	left, ok := p.value()
	if op := p.token; ok && (op == "==" || op == "!=") {
		p.next()
		var right node
		right, ok = p.value()
		left = node{op: op, args: []node{left, right}}
	}
	return left, ok
}

func (p *conditionParser) value() (node, bool) {
	t := p.token
	n := node{op: "const"}
	switch {
	case t == "":
		return n, false
	case t == "true" || t == "false":
		n.text = t == "true"
	case t[0] == '"':
		n.text = t[1 : len(t)-1]
	case t[0] == '-' || '0' <= t[0] && t[0] <= '9':
		f, err := strconv.ParseFloat(t, 64)
		if err != nil {
			return n, false
		}
		n.text = f
	default:
		r, ok := parseReference(t)
		if !ok {
			return n, false
		}
		n = node{op: "ref", ref: r}
		p.refs = append(p.refs, r)
	}
	p.next()
	return n, true
}
