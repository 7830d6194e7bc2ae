package policies

import (
	"bytes"
	"context"
	"encoding/json"
	"math"
	"path"
	"strconv"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/storage"
	"github.com/open-policy-agent/opa/v1/storage/inmem"
	"github.com/open-policy-agent/opa/v1/topdown"
)

// violationSet is the name of the set of a pack that holds its denials.
const violationSet = "violation"

// Pack is a pack that is ready to evaluate. It is not changed once made, and may be used by many at once.
type Pack struct {
	ref    PackRef
	rules  map[string]Rule
	source *Source

	compiler *ast.Compiler
	query    ast.Body
	store    storage.Store
	txn      storage.Transaction
	builtins map[string]*topdown.Builtin
}

// PackRef names a revision of a pack.
type PackRef struct {
	Name string `json:"name"`
	// Revision grows with each pack of a name; 0 is a folder that was not built.
	Revision uint64 `json:"revision"`
	// Digest is the identity of the content.
	Digest string `json:"digest"`
}

// Ref names the pack.
func (p *Pack) Ref() PackRef { return p.ref }

// Rules are the deny rules of the pack by their id.
func (p *Pack) Rules() map[string]Rule { return p.rules }

// Compile makes a pack ready. It says nothing of who made it: that is Verify's.
func Compile(s *Source) (*Pack, error) {
	p := &Pack{ref: PackRef{Name: s.Name(), Digest: s.Digest()}, source: s, builtins: boundedBuiltins()}
	var err error
	if p.ref.Revision, err = parseRevision(s.Manifest.Revision); err != nil {
		return nil, err
	}
	modules, err := parseModules(s.Files, s.Manifest.Roots[0])
	if err != nil {
		return nil, err
	}
	if p.rules, err = lint(s.Name(), modules); err != nil {
		return nil, err
	}
	data, err := s.data()
	if err != nil {
		return nil, err
	}
	p.store = inmem.NewFromObjectWithOpts(data, inmem.OptRoundTripOnWrite(false), inmem.OptReturnASTValuesOnRead(true))
	ctx := context.Background()
	if p.txn, err = p.store.NewTransaction(ctx); err != nil {
		return nil, refuse(CodeData, dataFile, "%v", err)
	}
	p.compiler = ast.NewCompiler().WithCapabilities(capabilities()).WithStrict(true).
		WithDefaultRegoVersion(ast.RegoV1).
		WithPathConflictsCheck(storage.NonEmpty(ctx, p.store, p.txn))
	if p.compiler.Compile(modules); p.compiler.Failed() {
		return nil, compileError(p.compiler.Errors)
	}
	for _, m := range p.compiler.Modules {
		replaceBounded(m)
	}
	ref := ast.Ref{ast.DefaultRootDocument}
	for _, name := range strings.Split(s.Manifest.Roots[0], "/") {
		ref = append(ref, ast.StringTerm(name))
	}
	ref = append(ref, ast.StringTerm(violationSet))
	p.query = ast.NewBody(ast.Equality.Expr(ast.VarTerm(resultVar), ast.NewTerm(ref)))
	return p, nil
}

// oddNumber finds a number that no float64 comes near, which the evaluator cannot hold.
func oddNumber(v any) (string, bool) {
	switch v := v.(type) {
	case json.Number:
		f, err := v.Float64()
		return v.String(), err != nil || math.IsInf(f, 0) || len(v) > maxDigits
	case map[string]any:
		for _, inner := range v { // any of them will do
			if n, ok := oddNumber(inner); ok {
				return n, true
			}
		}
	case []any:
		for _, inner := range v {
			if n, ok := oddNumber(inner); ok {
				return n, true
			}
		}
	}
	return "", false
}

func parseRevision(text string) (uint64, error) {
	if text == "" {
		return 0, nil
	}
	n, err := strconv.ParseUint(text, 10, 63)
	if err != nil || n == 0 || strconv.FormatUint(n, 10) != text {
		return 0, refuse(CodeManifest, manifestFile, "the revision %s is no number from 1 on", quoted(text)).
			hint("maestro policy build --revision N and opa build --revision N set it")
	}
	return n, nil
}

// parseModules parses the rules of files.
func parseModules(files []File, root string) (map[string]*ast.Module, error) {
	options := ast.ParserOptions{ProcessAnnotation: true, RegoVersion: ast.RegoV1, Capabilities: capabilities()}
	modules := map[string]*ast.Module{}
	for _, f := range files {
		if path.Ext(f.Path) != regoSuffix {
			continue
		}
		m, err := ast.ParseModuleWithOpts(f.Path, string(f.Data), options)
		if err != nil {
			return nil, refuse(CodeModule, f.Path, "%v", err)
		}
		if m == nil {
			return nil, refuse(CodeModule, f.Path, "the file is empty")
		}
		at, err := storage.NewPathForRef(m.Package.Path)
		if err != nil || !within(strings.TrimPrefix(at.String(), "/"), root) {
			return nil, refuse(CodeModule, f.Path, "%s lies outside of the pack's root %s", m.Package, root)
		}
		modules[f.Path] = m
	}
	if len(modules) == 0 {
		return nil, refuse(CodeModule, "", "the pack has no rules")
	}
	return modules, nil
}

// within is true for root and what lies under it.
func within(name, root string) bool {
	return name == root || strings.HasPrefix(name, root+"/")
}

func compileError(errs ast.Errors) error {
	for _, e := range errs {
		// The compiler has no other words for what the capabilities leave out.
		if strings.Contains(e.Message, "undefined function") {
			return refuse(CodeCapability, "", "%v", e).hint("packs use pure functions only; docs/policies.md lists them")
		}
	}
	return refuse(CodeModule, "", "%v", errs)
}

// data is what rules see under data. All of it lies under the root.
func (s *Source) data() (map[string]any, error) {
	out := map[string]any{}
	for _, f := range s.Files {
		if f.Path != dataFile {
			continue
		}
		dec := json.NewDecoder(bytes.NewReader(f.Data))
		dec.UseNumber()
		if err := dec.Decode(&out); err != nil || out == nil {
			return nil, refuse(CodeData, f.Path, "the data are no JSON object: %v", err)
		}
		if n, ok := oddNumber(out); ok {
			return nil, refuse(CodeData, f.Path, "the number %s has too many digits or too large an exponent", quoted(n))
		}
	}
	level := out
	names := strings.Split(s.Manifest.Roots[0], "/")
	for i, name := range names {
		for k := range level {
			if k != name {
				return nil, refuse(CodeData, dataFile, "the key %s lies outside of the pack's root %s", quoted(strings.Join(append(names[:i:i], k), "/")), s.Manifest.Roots[0])
			}
		}
		inner, there := level[name]
		if !there {
			break
		}
		next, ok := inner.(map[string]any)
		if !ok {
			return nil, refuse(CodeData, dataFile, "%s is no object", strings.Join(names[:i+1], "/"))
		}
		level = next
	}
	return out, nil
}
