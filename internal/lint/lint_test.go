// Package lint holds the rules about the source that the compiler does not know: which room
// may import which, and what a state machine must not do.
package lint

import (
	"fmt"
	"go/ast"
	"go/types"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"golang.org/x/tools/go/packages"
)

const module = "github.com/maestro-conductor/maestro/"

// rooms are the top-level folders and what each may import of the others, besides its own
// sub-packages and internal/.
var rooms = map[string][]string{
	"cmd":      {"node", "api", "index", "limiter", "pkgstore", "policies", "raftfsm"},
	"bench":    {"api", "index", "limiter", "pkgstore", "raftfsm"},
	"jepsen":   {"api", "index", "limiter"},
	"interop":  {"api", "pkgstore", "policies"},
	"node":     {"api", "index", "limiter", "pkgstore", "raftfsm"},
	"api":      {"index", "limiter", "pkgstore", "policies", "raftfsm"},
	"index":    {"raftfsm"},
	"limiter":  {"raftfsm"},
	"pkgstore": {"raftfsm"},
	"policies": {},
	"raftfsm":  {},
	"internal": {},
}

// guests are packages that stand above a room and may import it.
var guests = map[string][]string{
	"internal/backup":          {"api", "raftfsm"},
	"internal/client":          {"api", "index"},
	"internal/devregion":       {"api", "limiter", "index", "node", "pkgstore"},
	"internal/pkgtest":         {"pkgstore"},
	"internal/ratelimitheader": {"limiter"},
	"limiter/client":           {"api"},
	"limiter/sidecar":          {"api"},
}

func load(t *testing.T, mode packages.LoadMode, patterns ...string) []*packages.Package {
	t.Helper()
	dir, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	pkgs, err := packages.Load(&packages.Config{Mode: mode, Dir: dir}, patterns...)
	if err != nil {
		t.Fatal(err)
	}
	if packages.PrintErrors(pkgs) > 0 {
		t.Fatal("the module does not load")
	}
	return pkgs
}

// Dependencies point one way: cmd -> node -> api -> domains -> raftfsm, and a domain never
// imports another.
func TestImportArrows(t *testing.T) {
	for _, p := range load(t, packages.NeedName|packages.NeedImports, "./...") {
		from, ok := strings.CutPrefix(p.PkgPath, module)
		if !ok {
			continue
		}
		room, _, _ := strings.Cut(from, "/")
		allowed, known := rooms[room]
		if !known {
			t.Errorf("%s: the room %s is not on the map; add it to rooms and to docs/ARCHITECTURE.md", from, room)
			continue
		}
		if g, ok := guests[from]; ok {
			allowed = g
		}
		for path := range p.Imports {
			to, ok := strings.CutPrefix(path, module)
			if !ok {
				continue
			}
			target, _, _ := strings.Cut(to, "/")
			if target == room || target == "internal" || slices.Contains(allowed, target) {
				continue
			}
			t.Errorf("%s imports %s: %s may import %v", from, to, room, allowed)
		}
	}
}

// docs/ARCHITECTURE.md lists every room, and no other, and the pages it points to exist.
func TestArchitecturePageIsTrue(t *testing.T) {
	page, err := os.ReadFile("../../docs/ARCHITECTURE.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(page), "\n## Rooms\n")
	table, _, _ := strings.Cut(rest, "\n## ")
	listed := map[string]bool{"docs": true} // not Go
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z]+)` \\|").FindAllStringSubmatch(table, -1) {
		listed[m[1]] = true
		if _, known := rooms[m[1]]; !known && m[1] != "docs" {
			t.Errorf("the page lists the room %s, which does not exist", m[1])
		}
	}
	for room := range rooms {
		if !listed[room] {
			t.Errorf("the page does not list the room %s", room)
		}
	}
	for _, m := range regexp.MustCompile(`\]\(([^)#]+)\)`).FindAllStringSubmatch(string(page), -1) {
		if _, err := os.Stat(filepath.Join("../../docs", m[1])); err != nil {
			t.Errorf("the page points to %s: %v", m[1], err)
		}
	}
}

// machines are the packages with state machines, and their files, or file:function, that are
// not part of one: the services on the callers' side, where clocks and randomness may be.
var machines = map[string][]string{
	"limiter":   {"service.go", "holder.go", "hold.go", "globals.go", "failure.go", "holder_blanket.go:awaitBlanket"},
	"index":     {"service.go", "service_search.go", "scatter.go", "missing.go", "lookup.go", "explain.go", "lineage.go", "ingest.go", "cursor.go", "seal.go", "hedge.go", "lead.go:pause", "retain.go", "freezer.go"},
	"node/meta": {"service.go", "catalogservice.go", "tokens.go", "token.go:mintToken", "settings.go:EnsureSettings", "limits.go:limitsSince", "membership.go:ReadMembership"},
}

// hostMachine are the files of raftfsm that take part in applying entries; the others are the
// host around them.
var hostMachine = []string{"entry.go", "machine.go", "replica.go", "store.go"}

// forbidden are functions whose result differs between replicas.
var forbidden = []string{
	"time.Now", "time.Since", "time.Until", "time.After", "time.Tick", "time.NewTimer", "time.NewTicker",
	"os.Getenv", "os.Hostname", "os.Getpid", "os.ReadFile",
}

var forbiddenPackages = []string{"math/rand", "math/rand/v2", "crypto/rand"}

// A machine depends on nothing but its state and its entries. Iteration over a map is
// allowed where a comment on the line says "any order" and why.
func TestMachinesAreDeterministic(t *testing.T) {
	mode := packages.NeedName | packages.NeedSyntax | packages.NeedTypes | packages.NeedTypesInfo | packages.NeedFiles
	rooms := maps.Clone(machines)
	rooms["raftfsm"] = nil
	for room, edges := range rooms {
		for _, p := range load(t, mode, "./"+room) {
			for _, f := range p.Syntax {
				name := filepath.Base(p.Fset.Position(f.Pos()).Filename)
				if slices.Contains(edges, name) || room == "raftfsm" && !slices.Contains(hostMachine, name) {
					continue
				}
				for _, problem := range nondeterminism(p, f, name, edges) {
					t.Error(problem)
				}
			}
		}
	}
}

func nondeterminism(p *packages.Package, f *ast.File, name string, edges []string) []string {
	var out []string
	comments := map[int]string{}
	for _, g := range f.Comments {
		for _, c := range g.List {
			comments[p.Fset.Position(c.Pos()).Line] += c.Text
		}
	}
	report := func(n ast.Node, format string, args ...any) {
		pos := p.Fset.Position(n.Pos())
		out = append(out, fmt.Sprintf("%s:%d: %s", filepath.Base(pos.Filename), pos.Line, fmt.Sprintf(format, args...)))
	}
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncDecl:
			return !slices.Contains(edges, name+":"+n.Name.Name)
		case *ast.SelectorExpr:
			fn, ok := p.TypesInfo.Uses[n.Sel].(*types.Func)
			if !ok || fn.Pkg() == nil {
				break
			}
			if slices.Contains(forbidden, fn.Pkg().Path()+"."+fn.Name()) || slices.Contains(forbiddenPackages, fn.Pkg().Path()) {
				report(n, "%s.%s in a state machine", fn.Pkg().Path(), fn.Name())
			}
		case *ast.RangeStmt:
			tv, ok := p.TypesInfo.Types[n.X]
			if !ok {
				break
			}
			if _, isMap := tv.Type.Underlying().(*types.Map); isMap && !strings.Contains(comments[p.Fset.Position(n.Pos()).Line], "any order") {
				report(n, "iteration over a map in a state machine; sort the keys, or say on the line why any order will do")
			}
		}
		return true
	})
	return out
}
