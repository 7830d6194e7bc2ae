package policies

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// loadBuiltIn compiles a pack that comes with Maestro.
func loadBuiltIn(t testing.TB, name string) *Pack {
	t.Helper()
	s, err := ReadSource(BuiltIn()[name])
	if err != nil {
		t.Fatal(err)
	}
	p, err := Compile(s)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// builtInSet is the three packs that come with Maestro.
func builtInSet(t testing.TB) *Set {
	t.Helper()
	var packs []*Pack
	for _, name := range sortedKeys(BuiltIn()) {
		packs = append(packs, loadBuiltIn(t, name))
	}
	s, err := NewSet(packs...)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestPacksPassTheirTests: every pack that comes with Maestro compiles, passes the lint and its own tests, and
// each of its rules is what some test expects.
func TestPacksPassTheirTests(t *testing.T) {
	for name, folder := range BuiltIn() {
		s, err := ReadSource(folder)
		if err != nil {
			t.Fatal(err)
		}
		p, results, err := Test(t.Context(), s)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if p.Ref().Name != name {
			t.Errorf("the pack of the folder of %s is %s", name, p.Ref().Name)
		}
		for id := range p.Rules() {
			if !strings.Contains(string(s.Tests[0].Data), `"`+id+`"`) {
				t.Errorf("no test of %s expects the rule %s", name, id)
			}
		}
		for _, r := range results {
			if !r.Pass {
				t.Errorf("%s:%d: %s fails: %s", r.File, r.Line, r.Name, r.Error)
			}
		}
	}
}

// TestEveryCodeIsOnThePage: docs/policies.md lists every code.
func TestEveryCodeIsOnThePage(t *testing.T) {
	source, err := os.ReadFile("code.go")
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile("../docs/policies.md")
	if err != nil {
		t.Fatal(err)
	}
	codes := regexp.MustCompile(`Code = "([a-z_]+)"`).FindAllSubmatch(source, -1)
	if len(codes) < 30 {
		t.Fatalf("only %d codes", len(codes))
	}
	for _, c := range codes {
		if !strings.Contains(string(page), "| `"+string(c[1])+"` |") {
			t.Errorf("the page does not list %s", c[1])
		}
	}
}
