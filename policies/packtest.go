package policies

import (
	"context"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/storage"
	"github.com/open-policy-agent/opa/v1/storage/inmem"
	"github.com/open-policy-agent/opa/v1/tester"
)

// TestTimeout bounds one test of a pack.
const TestTimeout = 5 * time.Second

// TestResult is what became of one test of a pack.
type TestResult struct {
	Name string `json:"name"`
	File string `json:"file"`
	Line int    `json:"line"`
	Pass bool   `json:"pass"`
	// Error says why a test ended without a result.
	Error string `json:"error,omitempty"`
}

// Test compiles the pack and runs its tests, the rules of *_test.rego whose names begin with test_. Tests may use more functions
// than packs.
func Test(ctx context.Context, s *Source) (*Pack, []TestResult, error) {
	p, err := Compile(s)
	if err != nil {
		return nil, nil, err
	}
	modules := map[string]*ast.Module{}
	for _, f := range append(append([]File{}, s.Files...), s.Tests...) {
		if f.Path == manifestFile || f.Path == dataFile {
			continue
		}
		m, err := ast.ParseModuleWithOpts(f.Path, string(f.Data), ast.ParserOptions{ProcessAnnotation: true, RegoVersion: ast.RegoV1})
		if err != nil {
			return nil, nil, refuse(CodeModule, f.Path, "%v", err)
		}
		modules[f.Path] = m
	}
	data, err := s.data()
	if err != nil {
		return nil, nil, err
	}
	store := inmem.NewFromObject(data)
	txn, err := store.NewTransaction(ctx, storage.TransactionParams{Write: true})
	if err != nil {
		return nil, nil, refuse(CodeData, dataFile, "%v", err)
	}
	defer store.Abort(ctx, txn)
	results, err := tester.NewRunner().SetStore(store).SetModules(modules).RaiseBuiltinErrors(true).SetTimeout(TestTimeout).SetParallel(1).RunTests(ctx, txn)
	if err != nil {
		return nil, nil, refuse(CodeModule, "", "%v", err)
	}
	var out []TestResult
	for r := range results {
		t := TestResult{Name: r.Package + "." + r.Name, Pass: r.Pass(), File: r.Location.File, Line: r.Location.Row}
		if r.Error != nil {
			t.Error = r.Error.Error()
		}
		out = append(out, t)
	}
	return p, out, nil
}
