package templates

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/sigstore/sigstore/pkg/signature"

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

// Every example is run, without a network, at each level of isolation that this machine permits, and ends as it says.
func TestExamples(t *testing.T) {
	isolated := sandbox.Probe(t.Context())
	if isolated != nil && os.Getenv("MAESTRO_TEST_ISOLATION") == "required" {
		t.Fatal(isolated)
	}
	for _, one := range All() {
		t.Run(one.Name, func(t *testing.T) {
			p := build(t, one)
			for i, e := range p.Examples {
				name := strings.TrimSuffix(path.Base(p.Manifest.Examples[i]), ".yaml")
				t.Run(name+" isolated", func(t *testing.T) {
					if isolated != nil {
						t.Skip(isolated)
					}
					runExample(t, p, e, stepexec.Options{})
				})
				t.Run(name, func(t *testing.T) { runExample(t, p, e, stepexec.Options{NoIsolation: true}) })
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

// A build is the same each time, and what it signs verifies with its key and no other.
func TestPackagesAreBuiltAndSigned(t *testing.T) {
	signer, trust := keyPair(t)
	_, stranger := keyPair(t)
	packages, err := Packages(signer)
	if err != nil {
		t.Fatal(err)
	}
	if len(packages) != 20 {
		t.Errorf("there are %d templates", len(packages))
	}
	again, err := Packages(signer)
	if err != nil {
		t.Fatal(err)
	}
	for i, p := range packages {
		ref := p.Manifest.Ref()
		if want := Publisher + "/" + All()[i].Name; ref.Name != want {
			t.Errorf("the package in %s is called %s", want, ref.Name)
		}
		if again[i].Digest != p.Digest {
			t.Errorf("%s: another build has another digest", ref)
		}
		data, err := p.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		opened, err := mwpkg.Open(data)
		if err != nil {
			t.Fatalf("%s: %v", ref, err)
		}
		if _, err := opened.Verify(trust, time.Now()); err != nil {
			t.Errorf("%s: %v", ref, err)
		}
		if _, err := opened.Verify(stranger, time.Now()); !errors.Is(err, &mwpkg.Error{Code: mwpkg.CodeKeyUnknown}) {
			t.Errorf("%s with another key: %v", ref, err)
		}
	}
}

func keyPair(t *testing.T) (signature.Signer, *mwpkg.Trust) {
	t.Helper()
	none := func() ([]byte, error) { return []byte{}, nil }
	private, public, err := mwpkg.GenerateKey([]byte{})
	if err != nil {
		t.Fatal(err)
	}
	signer, err := mwpkg.LoadSigner(private, none)
	if err != nil {
		t.Fatal(err)
	}
	key, err := mwpkg.NewKey(public)
	if err != nil {
		t.Fatal(err)
	}
	key.Publisher = Publisher
	return signer, &mwpkg.Trust{Keys: []mwpkg.Key{key}}
}

// tools are programs that not every machine has: a README says when its template needs one.
var tools = []string{"cosign", "crane", "curl", "find", "gzip", "kubectl", "openssl", "pg_restore", "psql", "tar", "xargs"}

// Each README explains every input and output, the tools, failure and the way back; each template
// has the shared library as it is, uses every script that it has, and its scripts are read by sh.
func TestTemplatesAreComplete(t *testing.T) {
	var library []byte
	for _, one := range All() {
		p := build(t, one)
		readme := text(t, p, mwpkg.ReadmePath)
		for name := range p.Manifest.Inputs {
			if !strings.Contains(readme, "| `"+name+"` |") || p.Manifest.Inputs[name].Description == "" {
				t.Errorf("%s: the README does not explain the input %s", one.Name, name)
			}
		}
		for name := range p.Manifest.Outputs {
			if !strings.Contains(readme, "- `"+name+"` (") {
				t.Errorf("%s: the README does not explain the output %s", one.Name, name)
			}
		}
		for _, heading := range []string{"When to use it", "Inputs", "Capabilities", "What happens on failure", "How to roll back", "The examples"} {
			if !strings.Contains(readme, "\n## "+heading+"\n") {
				t.Errorf("%s: the README does not say: %s", one.Name, heading)
			}
		}
		lib := []byte(text(t, p, "steps/lib.sh"))
		if library == nil {
			library = lib
		}
		if !bytes.Equal(lib, library) {
			t.Errorf("%s: steps/lib.sh differs from that of the other templates", one.Name)
		}
		checkScripts(t, one.Name, p, readme)
	}
}

func checkScripts(t *testing.T, name string, p *mwpkg.Package, readme string) {
	t.Helper()
	_, needs, _ := strings.Cut(readme, "\n- Tools on the runner: ")
	needs, _, _ = strings.Cut(needs, "\n")
	var all strings.Builder
	for _, s := range p.Manifest.Workflow.Steps {
		fmt.Fprintln(&all, s.Run)
	}
	for _, f := range p.Files {
		if strings.HasSuffix(f.Path, ".sh") {
			all.Write(f.Data)
		}
	}
	for _, f := range p.Files {
		if !strings.HasSuffix(f.Path, ".sh") {
			continue
		}
		if !strings.Contains(all.String(), f.Path) {
			t.Errorf("%s: nothing uses %s", name, f.Path)
		}
		cmd := exec.Command("sh", "-n")
		cmd.Stdin = bytes.NewReader(f.Data)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %s: %v\n%s", name, f.Path, err, out)
		}
		if f.Path == "steps/lib.sh" {
			continue
		}
		for _, tool := range tools {
			used := regexp.MustCompile(`(?m)(^|need .*|[|;(]|then|else|do|&&|\|\|)[ \t]*` + tool + `( |$)`).Match(f.Data)
			if used && !strings.Contains(needs, tool) {
				t.Errorf("%s: %s uses %s, which the README does not name", name, f.Path, tool)
			}
		}
	}
}

func text(t *testing.T, p *mwpkg.Package, path string) string {
	t.Helper()
	data, ok := p.File(path)
	if !ok {
		t.Fatalf("%s has no %s", p.Manifest.Ref(), path)
	}
	return string(data)
}
