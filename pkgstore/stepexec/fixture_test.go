package stepexec

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/fstest"

	"go.uber.org/goleak"

	"github.com/maestro-conductor/maestro/internal/sandbox"
	"github.com/maestro-conductor/maestro/pkgstore/mwpkg"
)

func TestMain(m *testing.M) {
	sandbox.Init()
	goleak.VerifyTestMain(m)
}

// source is a package in the making: parts of its manifest, and files.
type source struct {
	// steps, inputs, outputs and capabilities are YAML, indented as their list or mapping is.
	steps, inputs, outputs, capabilities, resources string
	// example has the lines of the example that every package needs, beside its title and expectation.
	example string
	files   map[string]string
}

func (s source) build() (*mwpkg.Package, error) {
	section := func(name, text string) string {
		if text == "" {
			return ""
		}
		return name + ":\n" + text + "\n"
	}
	if s.resources == "" {
		s.resources = "  timeout: 5m"
	}
	manifest := `apiVersion: maestro.dev/pkg/v1
kind: WorkflowPackage
metadata: {name: test, version: 1.0.0, title: A test, description: A package of a test., license: Apache-2.0}
engine: ">=0.1.0"
` + section("inputs", s.inputs) + section("outputs", s.outputs) + section("resources", s.resources) +
		"capabilities:\n  commands: [sh]\n" + s.capabilities + "\n" + section("workflow", "  steps:\n"+s.steps) + "examples: [examples/none.yaml]\n"
	fsys := fstest.MapFS{
		"manifest.yaml":      {Data: []byte(manifest)},
		"README.md":          {Data: []byte("# A test\n")},
		"examples/none.yaml": {Data: []byte("title: None\nexpect: {status: succeeded}\n" + s.example)},
	}
	for name, text := range s.files {
		fsys[name] = &fstest.MapFile{Data: []byte(text)}
	}
	return mwpkg.Build(fsys)
}

// step is the YAML of a step that runs a script in sh. More lines of it may follow.
func step(id, script string, more ...string) string {
	text := fmt.Sprintf("    - id: %s\n      run:\n        - sh\n        - -c\n        - |\n          set -eu\n%s\n", id, indent(script))
	for _, line := range more {
		text += "      " + line + "\n"
	}
	return text
}

func indent(text string) string {
	return "          " + strings.ReplaceAll(strings.TrimSpace(text), "\n", "\n          ")
}

// isolation says once whether this machine permits it.
var isolation = sync.OnceValue(func() error { return sandbox.Probe(context.Background()) })

// eachLevel runs f with options for full isolation, where this machine permits it, and for none.
func eachLevel(t *testing.T, f func(t *testing.T, o Options)) {
	t.Run("full", func(t *testing.T) {
		if err := isolation(); err != nil {
			if os.Getenv("MAESTRO_TEST_ISOLATION") == "required" {
				t.Fatal(err)
			}
			t.Skip(err)
		}
		f(t, Options{Dir: t.TempDir()})
	})
	t.Run("none", func(t *testing.T) {
		if runtime.GOOS != "linux" {
			t.Skip("limits and the end of all descendants need Linux")
		}
		f(t, Options{Dir: t.TempDir(), NoIsolation: true})
	})
}

// execute builds and runs s, and fails the test unless the run leaves nothing in its folder.
func execute(ctx context.Context, t *testing.T, s source, o Options) (*Report, error) {
	t.Helper()
	p, err := s.build()
	if err != nil {
		t.Fatal(err)
	}
	o.Package = p
	report, err := Run(ctx, o)
	if left, dirErr := os.ReadDir(o.Dir); dirErr != nil || len(left) > 0 {
		t.Errorf("the run left %v (%v)", left, dirErr)
	}
	return report, err
}

func mustRun(t *testing.T, s source, o Options) *Report {
	t.Helper()
	report, err := execute(t.Context(), t, s, o)
	if err != nil {
		t.Fatal(err)
	}
	return report
}

// outcome is a report as one line: the run, then its steps.
func outcome(r *Report) string {
	words := []string{r.Status}
	for _, s := range r.Steps {
		word := s.ID + "=" + s.Status
		if s.Reason != "" {
			word += "(" + s.Reason + ")"
		}
		words = append(words, word)
	}
	return strings.Join(words, " ")
}

func expect(t *testing.T, r *Report, want string) {
	t.Helper()
	if got := outcome(r); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
		for _, s := range r.Steps {
			for _, a := range s.Attempts {
				t.Logf("%s: %s\n%s", s.ID, a.Detail, a.Log)
			}
		}
	}
}

func logOf(t *testing.T, r *Report, id string) string {
	t.Helper()
	for _, s := range r.Steps {
		if s.ID == id && len(s.Attempts) > 0 {
			return s.Attempts[len(s.Attempts)-1].Log
		}
	}
	t.Fatalf("step %s has not run", id)
	return ""
}
