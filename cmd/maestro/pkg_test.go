package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// inFolder runs a test in an empty folder of its own.
func inFolder(t *testing.T) {
	t.Helper()
	isolate(t)
	t.Chdir(t.TempDir())
}

// works runs a command line that has to succeed.
func works(t *testing.T, args ...string) string {
	t.Helper()
	stdout, stderr, status := maestro(t, "", args...)
	if status != statusDone {
		t.Fatalf("maestro %s ended with %d: %s", strings.Join(args, " "), status, stderr)
	}
	return stdout
}

// refused runs a command line that has to fail with these words.
func refused(t *testing.T, words string, args ...string) {
	t.Helper()
	_, stderr, status := maestro(t, "", args...)
	if status != statusError || !strings.Contains(stderr, words) {
		t.Errorf("maestro %s ended with %d, want %q: %s", strings.Join(args, " "), status, words, stderr)
	}
}

// A package is made, signed and verified with the commands of the page about packages, without a region.
func TestPkgFromInitToVerify(t *testing.T) {
	inFolder(t)
	t.Setenv("COSIGN_PASSWORD", "letmein")
	const file = "myflow-0.1.0.mwpkg.tgz"
	if out := works(t, "pkg", "init", "myflow"); !strings.Contains(out, filepath.Join("myflow", "manifest.yaml")) {
		t.Errorf("init prints %s", out)
	}
	refused(t, "is not empty", "pkg", "init", "myflow")
	works(t, "pkg", "build", "myflow")
	first, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	works(t, "pkg", "build", "myflow")
	if again, err := os.ReadFile(file); err != nil || !bytes.Equal(first, again) {
		t.Errorf("built again it differs: %v", err)
	}
	works(t, "pkg", "keygen", "--out", "k")
	if info, err := os.Stat("k.key"); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the private key: %v, %v", info, err)
	}
	refused(t, "there already", "pkg", "keygen", "--out", "k")
	refused(t, "(signature_missing)", "pkg", "verify", "--key", "k.pub", file)
	works(t, "pkg", "sign", "--key", "k.key", file)
	if out := works(t, "pkg", "verify", "--key", "k.pub", file, "-o", "json"); !strings.Contains(out, `"name": "myflow"`) {
		t.Errorf("verify prints %s", out)
	}
	if out := works(t, "pkg", "show", file); !strings.Contains(out, "(not verified)") || !strings.Contains(out, "greet.sh") {
		t.Errorf("show prints %s", out)
	}

	// A trust file narrows what a key is believed for.
	public, err := os.ReadFile("k.pub")
	if err != nil {
		t.Fatal(err)
	}
	trust := "version: 1\nkeys:\n  - publisher: acme\n    publicKey: |\n      " + strings.ReplaceAll(strings.TrimSpace(string(public)), "\n", "\n      ") + "\n"
	for name, text := range map[string]string{"acme.yaml": trust, "none.yaml": strings.Replace(trust, "publisher: acme", "publisher: ''", 1)} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	refused(t, "(key_out_of_scope)", "pkg", "verify", "--trust", "acme.yaml", file)
	works(t, "pkg", "verify", "--trust", "none.yaml", file)

	// Whatever is changed is noticed, and a refused package is left as it is.
	if err := os.Rename(file, "other-0.1.0.mwpkg.tgz"); err != nil {
		t.Fatal(err)
	}
	refused(t, "(filename_mismatch)", "pkg", "verify", "--key", "k.pub", "other-0.1.0.mwpkg.tgz")
	data, err := os.ReadFile("other-0.1.0.mwpkg.tgz")
	if err != nil {
		t.Fatal(err)
	}
	broken := append(data, '!')
	if err := os.WriteFile(file, broken, 0o600); err != nil {
		t.Fatal(err)
	}
	refused(t, "error: "+file+":", "pkg", "sign", "--key", "k.key", file)
	if left, err := os.ReadFile(file); err != nil || !bytes.Equal(left, broken) {
		t.Errorf("a package that was refused was changed: %v", err)
	}
	t.Setenv("COSIGN_PASSWORD", "letmeout")
	refused(t, "(key_password)", "pkg", "sign", "--key", "k.key", "other-0.1.0.mwpkg.tgz")
}

// Without --key the key of the CLI context signs and is trusted.
func TestPkgKeyOfTheContext(t *testing.T) {
	inFolder(t)
	t.Setenv("MAESTRO_KEY_PASSWORD", "")
	const file = "myflow-0.1.0.mwpkg.tgz"
	works(t, "pkg", "init", "acme/myflow")
	works(t, "pkg", "build", "myflow")
	refused(t, "maestro pkg keygen", "pkg", "sign", "acme-"+file)
	works(t, "pkg", "keygen")
	works(t, "pkg", "sign", "acme-"+file)
	works(t, "pkg", "verify", "acme-"+file)

	dir := os.Getenv("MAESTRO_CONFIG_DIR")
	if err := os.WriteFile(filepath.Join(dir, "context.yaml"), []byte("package_key: team\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	works(t, "pkg", "keygen")
	if _, err := os.Stat(filepath.Join(dir, "team.key")); err != nil {
		t.Error(err)
	}
	refused(t, "(key_unknown)", "pkg", "verify", "acme-"+file)
}

// A manifest with several mistakes is refused with all of them, and nothing is written.
func TestPkgBuildTellsEveryProblem(t *testing.T) {
	inFolder(t)
	works(t, "pkg", "init", "myflow")
	path := filepath.Join("myflow", "manifest.yaml")
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	text := strings.NewReplacer("version: 0.1.0", "version: v1", "commands: [sh]", "commands: []").Replace(string(data))
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	_, stderr, status := maestro(t, "", "pkg", "build", "myflow")
	if status != statusError || !strings.Contains(stderr, "(version_invalid)") || !strings.Contains(stderr, "(capability_undeclared)") {
		t.Errorf("status %d: %s", status, stderr)
	}
	if found, err := filepath.Glob("*.tgz"); err != nil || found != nil {
		t.Errorf("written: %v, %v", found, err)
	}
	if err := os.Symlink("/etc/passwd", filepath.Join("myflow", "link")); err != nil {
		t.Fatal(err)
	}
	refused(t, "(entry_type_refused)", "pkg", "build", "myflow")
}
