package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/maestro-conductor/maestro/pkgstore/stepexec"
)

// A package file runs once its signature is verified; a folder runs as it is.
func TestPkgRun(t *testing.T) {
	inFolder(t)
	t.Setenv("COSIGN_PASSWORD", "letmein")
	works(t, "pkg", "init", "myflow")
	if out := works(t, "pkg", "test", "myflow", "--allow-unisolated"); !strings.Contains(out, "example minimal: met\n") {
		t.Errorf("test prints %s", out)
	}
	const file = "myflow-0.1.0.mwpkg.tgz"
	works(t, "pkg", "build", "myflow")
	works(t, "pkg", "keygen", "--out", "k")
	refused(t, "(signature_missing)", "pkg", "run", file, "--key", "k.pub", "--allow-unisolated")
	works(t, "pkg", "run", file, "--unverified", "--allow-unisolated", "--example", "minimal")
	works(t, "pkg", "sign", "--key", "k.key", file)
	out := works(t, "pkg", "run", file, "--key", "k.pub", "--allow-unisolated", "--input", "who=you", "-o", "json")
	var report stepexec.Report
	if err := json.Unmarshal([]byte(out), &report); err != nil || report.Status != "succeeded" || report.Outputs["greeting"] != "Hello, you!" {
		t.Errorf("run prints %s (%v)", out, err)
	}
	for words, args := range map[string][]string{
		"is a folder, which nobody has signed":         {"myflow", "--key", "k.pub"},
		`has no example "none"; it has minimal`:        {"myflow", "--example", "none"},
		"write NAME=VALUE":                             {"myflow", "--input", "who"},
		"where NAME is an input of the type secretRef": {"myflow", "--secret", "who=k.pub"},
	} {
		if _, stderr, status := maestro(t, "", append([]string{"pkg", "run"}, args...)...); status != statusUsage || !strings.Contains(stderr, words) {
			t.Errorf("%v ends with %d: %s", args, status, stderr)
		}
	}
	refused(t, "(value_invalid)", "pkg", "run", "myflow", "--allow-unisolated", "--input", "nobody=1")
}

// What fails is told with the end of its log, and no secret is in what is printed or left.
func TestPkgRunTellsFailuresAndNoSecrets(t *testing.T) {
	inFolder(t)
	works(t, "pkg", "init", "myflow")
	manifest := `apiVersion: maestro.dev/pkg/v1
kind: WorkflowPackage
metadata: {name: myflow, version: 0.1.0, title: A test, description: A package of a test., license: Apache-2.0}
engine: ">=0.1.0"
inputs:
  count: {type: integer, required: true}
  password: {type: secretRef}
resources: {timeout: 1m}
capabilities: {commands: [sh], secrets: [password]}
workflow:
  steps:
    - id: fail
      run: [sh, greet.sh]
      env: {COUNT: "${inputs.count}", PASSWORD: "${inputs.password}"}
examples: [examples/minimal.yaml]
`
	for name, text := range map[string]string{
		"manifest.yaml":         manifest,
		"greet.sh":              "echo \"$COUNT and $PASSWORD\"\necho kept >\"$MAESTRO_ARTIFACTS/kept.txt\"\nexit 4\n",
		"examples/minimal.yaml": "title: It fails\ninputs: {count: 1}\nexpect: {status: succeeded}\n",
	} {
		if err := os.WriteFile(filepath.Join("myflow", name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile("secret", []byte("correct-horse\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir("out", 0o755); err != nil {
		t.Fatal(err)
	}
	stdout, stderr, status := maestro(t, "", "pkg", "run", "myflow", "--allow-unisolated", "--input", "count=2", "--secret", "password=secret", "--artifacts", "out")
	if status != statusError || !strings.Contains(stdout, "The log of fail ends:\n  2 and ***\n") || !strings.Contains(stdout, "failed: step fail failed: the program ended with status 4") {
		t.Errorf("run ends with %d and prints\n%s%s", status, stdout, stderr)
	}
	if strings.Contains(stdout+stderr, "horse") {
		t.Errorf("the secret is printed:\n%s%s", stdout, stderr)
	}
	if text, err := os.ReadFile("out/kept.txt"); err != nil || string(text) != "kept\n" {
		t.Errorf("%q %v", text, err)
	}
	stdout, _, status = maestro(t, "", "pkg", "test", "myflow", "--allow-unisolated")
	if status != statusError || !strings.Contains(stdout, "example minimal: NOT MET\n  the run is failed; the example expects succeeded\n") {
		t.Errorf("test ends with %d and prints\n%s", status, stdout)
	}
}
