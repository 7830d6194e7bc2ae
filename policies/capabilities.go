package policies

import (
	"slices"

	"github.com/open-policy-agent/opa/v1/ast"
)

// allowed are the built-in functions that packs may use: pure ones, whose result is not much larger than
// what they are given. So there is no clock, randomness, network, environment, parser or format, and
// nothing that repeats, pads or multiplies text, but for those that bounded holds, which are bounded.
var allowed = []string{
	"abs", "and", "array.slice", "assign", "ceil", "concat", "contains", "count", "endswith", "eq", "equal", "floor", "gt", "gte",
	"indexof", "internal.member_2", "internal.member_3", "intersection", "is_array", "is_boolean", "is_null", "is_number", "is_object",
	"is_set", "is_string", "lower", "lt", "lte", "max", "min", "minus", "mul", "neq", "net.cidr_contains", "object.get", "object.keys",
	"or", "plus", "regex.match", "rem", "round", "semver.compare", "semver.is_valid", "sort", "split", "sprintf", "startswith",
	"strings.any_prefix_match", "strings.any_suffix_match", "substring", "sum", "trim", "trim_prefix", "trim_space", "trim_suffix",
	"type_name", "union", "upper",
}

// capabilities are what the compiler lets packs use.
func capabilities() *ast.Capabilities {
	c := ast.CapabilitiesForThisVersion()
	c.Builtins = slices.DeleteFunc(slices.Clone(c.Builtins), func(b *ast.Builtin) bool { return !slices.Contains(allowed, b.Name) })
	c.AllowNet = []string{}
	return c
}
