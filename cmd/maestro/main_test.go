package main

import (
	"bytes"
	"context"
	"flag"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/maestro-conductor/maestro/internal/sandbox"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// asMaestro makes the test binary behave as maestro, so that the nodes of a region are real
// processes.
const asMaestro = "RUN_AS_MAESTRO"

func TestMain(m *testing.M) {
	sandbox.Init()
	if os.Getenv(asMaestro) != "" && len(os.Args) > 1 && os.Args[1] == "node" {
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
		defer stop()
		os.Exit(run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
	}
	os.Exit(m.Run())
}

// maestro runs one command line and returns what it printed and its exit status.
func maestro(t *testing.T, stdin string, args ...string) (stdout, stderr string, status int) {
	t.Helper()
	var out, errs bytes.Buffer
	status = run(t.Context(), args, strings.NewReader(stdin), &out, &errs)
	return out.String(), errs.String(), status
}

// isolate keeps the developer's own context out of a test.
func isolate(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	t.Setenv("MAESTRO_CONFIG_DIR", dir)
	t.Setenv("MAESTRO_TOKEN", "")
	return dir
}

// TestCommandLines runs each "$ maestro ..." line of testdata/cli.txt and compares what it
// prints and its exit status with what follows.
func TestCommandLines(t *testing.T) {
	dir := isolate(t)
	path := filepath.Join("testdata", "cli.txt")
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var got strings.Builder
	for _, line := range strings.Split(string(data), "\n") {
		if strings.HasPrefix(line, "# ") {
			got.WriteString(line + "\n")
		}
		command, ok := strings.CutPrefix(line, "$ maestro")
		if !ok {
			continue
		}
		stdout, stderr, status := maestro(t, "", strings.Fields(command)...)
		text := strings.ReplaceAll(stdout+stderr, dir, "CONFIG")
		got.WriteString(line + "\n" + text + "status " + strconv.Itoa(status) + "\n\n")
	}
	if *update {
		if err := os.WriteFile(path, []byte(got.String()), 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	if got.String() != string(data) {
		t.Errorf("%s differs; look at the difference after: go test ./cmd/maestro -run TestCommandLines -update\n%s", path, got.String())
	}
}

func TestEveryCommandHasHelp(t *testing.T) {
	isolate(t)
	for _, c := range []string{
		"dev", "node", "certs create", "cluster init", "cluster status", "cluster add", "cluster remove", "cluster replace", "cluster transfer", "check", "limit set", "limit list", "limit get", "limit usage", "limit delete", "limit top", "limit mode",
		"limit reserve", "limit commit", "limit cancel", "limit refund", "limit acquire", "limit release", "index write", "index retention set", "index retention list", "index retention remove", "index disposition verify",
		"ingest", "search", "export", "lineage", "token create", "token list", "token revoke", "version", "completion",
	} {
		stdout, stderr, status := maestro(t, "", append(strings.Fields(c), "--help")...)
		if status != statusDone || stderr != "" || !strings.Contains(stdout, "maestro "+c) {
			t.Errorf("%s --help: status %d, stderr %q, stdout %q", c, status, stderr, stdout)
		}
	}
}

func TestCompletionScripts(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		stdout, _, status := maestro(t, "", "completion", shell)
		if status != statusDone || !strings.Contains(stdout, "maestro") {
			t.Errorf("%s: status %d", shell, status)
		}
	}
	stdout, _, _ := maestro(t, "", "__complete", "limit", "s")
	if !strings.Contains(stdout, "set") {
		t.Errorf("completing limit s: %q", stdout)
	}
}

func TestCertsCreate(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "certs")
	if out, errs, status := maestro(t, "", "certs", "create", "--dir", dir, "--node", "node-1=127.0.0.1,localhost"); status != statusDone || strings.Count(out, "created") != 4 {
		t.Fatalf("first: %d %q %q", status, out, errs)
	}
	if out, errs, status := maestro(t, "", "certs", "create", "--dir", dir, "--node", "node-2=localhost", "-o", "json"); status != statusDone ||
		out != `{"created":["`+dir+`/node-2.pem"]}`+"\n" && !strings.Contains(out, "node-2.pem") {
		t.Fatalf("one more node: %d %q %q", status, out, errs)
	}
	// A region of before gets what it lacks.
	if err := os.Remove(filepath.Join(dir, "disposition.key")); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, "disposition.pub")); err != nil {
		t.Fatal(err)
	}
	if out, errs, status := maestro(t, "", "certs", "create", "--dir", dir); status != statusDone || strings.Count(out, "created") != 1 || !strings.Contains(out, "disposition.key") {
		t.Fatalf("the key: %d %q %q", status, out, errs)
	}
	for _, args := range [][]string{{"--node", "node-1=localhost"}, nil} {
		if _, errs, status := maestro(t, "", append([]string{"certs", "create", "--dir", dir}, args...)...); status != statusError || !strings.Contains(errs, "already exists") {
			t.Errorf("%q again: %d %q", args, status, errs)
		}
	}
	if _, errs, status := maestro(t, "", "certs", "create", "--dir", dir, "--node", "Node"); status != statusUsage || !strings.Contains(errs, "NAME=HOST") {
		t.Errorf("a bad node: %d %q", status, errs)
	}
}

func TestParseTime(t *testing.T) {
	for in, want := range map[string]string{
		"2026-01-31": "2026-01-31T00:00:00Z", "2026-01-31T10:00:00+01:00": "2026-01-31T09:00:00Z", "2026-01-31 10:00:00": "2026-01-31T10:00:00Z",
	} {
		got, err := parseTime("--since", in)
		if err != nil || got.AsTime().Format("2006-01-02T15:04:05Z") != want {
			t.Errorf("%q: %v, %v", in, got, err)
		}
	}
	week, err := parseTime("--since", "7d")
	if err != nil {
		t.Fatal(err)
	}
	day, err := parseTime("--since", "24h")
	if err != nil || !week.AsTime().Before(day.AsTime()) {
		t.Errorf("7d is %v, 24h is %v (%v)", week, day, err)
	}
	for _, bad := range []string{"yesterday", "-5h", "-5d", "2026-13-01"} {
		if _, err := parseTime("--since", bad); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}
