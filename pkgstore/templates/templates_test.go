package templates

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/maestro-conductor/maestro/internal/sandbox"
	"github.com/maestro-conductor/maestro/pkgstore/mwpkg"
	"github.com/maestro-conductor/maestro/pkgstore/stepexec"
)

func TestMain(m *testing.M) {
	sandbox.Init()
	os.Exit(m.Run())
}

func build(t *testing.T, one Template) *mwpkg.Package {
	t.Helper()
	p, err := mwpkg.Build(one.Files)
	if err != nil {
		var refused *mwpkg.Error
		if errors.As(err, &refused) {
			for _, problem := range refused.Problems {
				t.Log(problem)
			}
		}
		t.Fatal(err)
	}
	return p
}

// Every example is run, without a network and isolated as far as this machine permits, and ends as it says.
func TestExamples(t *testing.T) {
	for _, one := range All() {
		t.Run(one.Name, func(t *testing.T) {
			p := build(t, one)
			for i, e := range p.Examples {
				t.Run(strings.TrimSuffix(strings.TrimPrefix(p.Manifest.Examples[i], "examples/"), ".yaml"), func(t *testing.T) {
					runExample(t, p, e, stepexec.Options{AllowUnisolated: true})
				})
			}
		})
	}
}

func runExample(t *testing.T, p *mwpkg.Package, e mwpkg.Example, o stepexec.Options) {
	t.Helper()
	o.Package, o.Dir = p, t.TempDir()
	report, mismatches, err := stepexec.RunExample(context.WithoutCancel(t.Context()), o, e)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range mismatches {
		t.Error(m)
	}
	for _, s := range report.Steps {
		for _, a := range s.Attempts {
			if t.Failed() || a.Leftovers > 0 {
				t.Logf("step %s %s %s, %d left over:\n%s", s.ID, s.Status, s.Detail, a.Leftovers, a.Log)
			}
		}
	}
}
