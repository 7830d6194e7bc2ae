package client

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestContextRoundTrip(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "folder")
	if c, err := LoadContext(dir); err != nil || len(c.Endpoints) != 0 {
		t.Fatalf("no file: %+v, %v", c, err)
	}
	want := Context{Endpoints: []string{"https://a:1", "https://b:2"}, CA: "/ca.pem", TokenFile: "token", Tenant: "acme"}
	must(t, want.Save(dir))
	got, err := LoadContext(dir)
	must(t, err)
	if got.CA != "/ca.pem" || got.TokenFile != filepath.Join(dir, "token") || got.Tenant != "acme" || len(got.Endpoints) != 2 {
		t.Errorf("got %+v", got)
	}
	must(t, os.WriteFile(filepath.Join(dir, "token"), []byte("secret\n"), 0o600))
	if token, err := got.ReadToken(); err != nil || token != "secret" {
		t.Errorf("token %q, %v", token, err)
	}
	info, err := os.Stat(ContextPath(dir))
	must(t, err)
	if info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", info.Mode().Perm())
	}
}

func TestContextProblems(t *testing.T) {
	for _, tc := range []struct{ name, yaml, want string }{
		{"unknown key", "endpoint: [a]", `unknown key "endpoint"; did you mean "endpoints"?`},
		{"two tokens", "token: a\ntoken_file: b", "both token and token_file"},
		{"not YAML", "{", "did not find expected node content"},
	} {
		dir := t.TempDir()
		must(t, os.WriteFile(ContextPath(dir), []byte(tc.yaml), 0o600))
		if _, err := LoadContext(dir); !errors.Is(err, ErrContext) || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %v", tc.name, err)
		}
	}
	c := Context{TokenFile: filepath.Join(t.TempDir(), "none")}
	if _, err := c.ReadToken(); !errors.Is(err, ErrContext) {
		t.Errorf("missing token file: %v", err)
	}
}

func TestConfigDir(t *testing.T) {
	t.Setenv("MAESTRO_CONFIG_DIR", "/from/env")
	if dir, err := ConfigDir(""); err != nil || dir != "/from/env" {
		t.Errorf("environment: %q, %v", dir, err)
	}
	if dir, err := ConfigDir("/from/flag"); err != nil || dir != "/from/flag" {
		t.Errorf("flag: %q, %v", dir, err)
	}
	t.Setenv("MAESTRO_CONFIG_DIR", "")
	t.Setenv("XDG_CONFIG_HOME", "/home/x/.config")
	if dir, err := ConfigDir(""); err != nil || dir != "/home/x/.config/maestro" {
		t.Errorf("default: %q, %v", dir, err)
	}
}
