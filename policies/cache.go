package policies

import (
	"slices"
	"sync"

	"github.com/open-policy-agent/opa/v1/ast"
)

// ruleCache remembers values of rules during one evaluation. Packs have a few dozen, which a list
// holds in less time and memory than the evaluator's own trees of maps; it is used again and again.
type ruleCache struct {
	entries []ruleValue
	// frames are the lengths of the list when a rule replaced input or data, under which nothing before it counts.
	frames []int
}

type ruleValue struct {
	hash  int
	ref   ast.Ref
	value *ast.Term // nil when the rule has no value
}

var ruleCaches = sync.Pool{New: func() any { return new(ruleCache) }}

// reset forgets all values, which may hold an input.
func (c *ruleCache) reset() {
	clear(c.entries)
	c.entries, c.frames = c.entries[:0], c.frames[:0]
}

func (c *ruleCache) from() int {
	if n := len(c.frames); n > 0 {
		return c.frames[n-1]
	}
	return 0
}

func (c *ruleCache) Push() { c.frames = append(c.frames, len(c.entries)) }

func (c *ruleCache) Pop() {
	from := c.from()
	clear(c.entries[from:])
	c.entries, c.frames = c.entries[:from], c.frames[:len(c.frames)-1]
}

func (c *ruleCache) find(ref ast.Ref) (hash int, found *ruleValue) {
	hash = ref.Hash()
	for i := c.from(); i < len(c.entries); i++ {
		if e := &c.entries[i]; e.hash == hash && e.ref.Equal(ref) {
			return hash, e
		}
	}
	return hash, nil
}

// Get is nil and true for a rule that is known to have no value.
func (c *ruleCache) Get(ref ast.Ref) (value *ast.Term, undefined bool) {
	if _, e := c.find(ref); e != nil {
		return e.value, e.value == nil
	}
	return nil, false
}

func (c *ruleCache) Put(ref ast.Ref, value *ast.Term) {
	hash, e := c.find(ref)
	if e != nil {
		e.value = value
		return
	}
	c.entries = append(c.entries, ruleValue{hash, slices.Clone(ref), value})
}

// Keys are the refs of all values, of which partial evaluation, which packs have no use for, asks.
func (c *ruleCache) Keys() []ast.Ref {
	var refs []ast.Ref
	for _, e := range c.entries[c.from():] {
		refs = append(refs, e.ref)
	}
	return refs
}

// noBaseCache remembers nothing: data is held as the evaluator's values already.
type noBaseCache struct{}

func (noBaseCache) Get(ast.Ref) ast.Value  { return nil }
func (noBaseCache) Put(ast.Ref, ast.Value) {}
