package policies

import (
	"errors"
	"regexp"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/topdown"
)

const (
	// maxText bounds a text that a pack composes, in bytes.
	maxText = 4 << 10
	// maxDigits bounds the digits of a number that a pack multiplies.
	maxDigits = 64
	// maxParts bounds the parts of a text that a pack splits.
	maxParts = 256
	// boundedPrefix names the bounded functions; no function of OPA's begins so.
	boundedPrefix = "maestro_bounded"
)

// bounded are functions whose results grow faster than what they are given when they are fed with them again:
// forty lines that double a text would fill any memory. After the compiler has checked a pack, calls of
// them are replaced by calls of those below, which refuse what would become too large.
var bounded = map[string]func([]*ast.Term) error{
	"sprintf": boundSprintf,
	"concat":  boundText,
	"mul":     boundDigits,
	"split":   boundParts,
}

// boundedBuiltins are the functions by the names that replaced calls have.
func boundedBuiltins() map[string]*topdown.Builtin {
	out := map[string]*topdown.Builtin{}
	for name, check := range bounded {
		decl, call := ast.BuiltinMap[name], topdown.GetBuiltin(name)
		out[boundedRef(name).String()] = &topdown.Builtin{Decl: decl, Func: func(bctx topdown.BuiltinContext, args []*ast.Term, iter func(*ast.Term) error) error {
			// What stands behind the arguments is where the result goes.
			if err := check(args[:decl.Decl.Arity()]); err != nil {
				return err
			}
			return call(bctx, args, iter)
		}}
	}
	return out
}

func boundedRef(name string) ast.Ref {
	return ast.Ref{ast.VarTerm(boundedPrefix), ast.StringTerm(name)}
}

// replaceBounded changes the calls in a compiled module.
func replaceBounded(m *ast.Module) {
	ast.WalkExprs(m, func(e *ast.Expr) bool {
		terms, ok := e.Terms.([]*ast.Term)
		if !ok || len(terms) == 0 {
			return false
		}
		if ref, ok := terms[0].Value.(ast.Ref); ok {
			if _, ok := bounded[ref.String()]; ok {
				terms[0] = &ast.Term{Value: boundedRef(ref.String()), Location: terms[0].Location}
			}
		}
		return false
	})
}

var (
	errTextTooLarge   = errors.New("a text would have more than 4096 bytes")
	errDigits         = errors.New("a number would have more than 64 digits")
	errParts          = errors.New("a text would be split into more than 256 parts")
	errFormat         = errors.New("only %s, %d, %v, %q and %% may stand in a format")
	errFormatArgument = errors.New("only strings, numbers and booleans can be formatted")
)

var plainFormat = regexp.MustCompile(`^(?:[^%]|%[sdvq%])*$`)

func boundSprintf(args []*ast.Term) error {
	format, ok := args[0].Value.(ast.String)
	if !ok || !plainFormat.MatchString(string(format)) {
		return errFormat
	}
	return boundText(args)
}

// boundText adds up what is written into one text: all strings and numbers of the arguments.
func boundText(args []*ast.Term) error {
	size := 0
	add := func(t *ast.Term) error {
		switch v := t.Value.(type) {
		case ast.String:
			size += 4 * len(v) // quoting makes at most \xNN of a byte
		case ast.Number:
			size += len(v)
		case ast.Boolean:
			size += len("false")
		default:
			return errFormatArgument
		}
		return nil
	}
	for _, a := range args {
		var err error
		switch v := a.Value.(type) {
		case *ast.Array:
			err = v.Iter(func(t *ast.Term) error {
				size += len(", ")
				return add(t)
			})
		case ast.Set:
			err = v.Iter(add)
		default:
			err = add(a)
		}
		if err != nil {
			return err
		}
	}
	if n := delimiters(args); size+n > 4*maxText {
		return errTextTooLarge
	}
	return nil
}

// delimiters is what concat writes between the texts.
func delimiters(args []*ast.Term) int {
	delimiter, ok := args[0].Value.(ast.String)
	if !ok || len(args) < 2 {
		return 0
	}
	switch v := args[1].Value.(type) {
	case *ast.Array:
		return len(delimiter) * v.Len()
	case ast.Set:
		return len(delimiter) * v.Len()
	}
	return 0
}

func boundParts(args []*ast.Term) error {
	text, isText := args[0].Value.(ast.String)
	delimiter, ok := args[1].Value.(ast.String)
	if isText && ok && strings.Count(string(text), string(delimiter)) >= maxParts {
		return errParts
	}
	return nil
}

func boundDigits(args []*ast.Term) error {
	digits := 0
	for _, a := range args {
		if n, ok := a.Value.(ast.Number); ok {
			digits += len(n)
		}
	}
	if digits > maxDigits {
		return errDigits
	}
	return nil
}
