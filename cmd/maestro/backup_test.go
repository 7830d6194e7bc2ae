package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/maestro-conductor/maestro/internal/devregion"
)

// TestBackupOfARegion goes the way of an operator with real processes: back a region up, check
// the folder, lose the region, and restore it into another one.
func TestBackupOfARegion(t *testing.T) {
	if testing.Short() {
		t.Skip("runs whole regions of processes")
	}
	isolate(t)
	t.Setenv(asMaestro, "1")
	start := func(noSeed bool) (*devregion.Region, string) {
		t.Helper()
		r, err := devregion.Start(t.Context(), devregion.Options{Dir: t.TempDir(), Nodes: 1, NoSeed: noSeed})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = r.Stop() })
		return r, r.State().ConfigDir
	}
	run := func(want int, args ...string) (string, string) {
		t.Helper()
		out, errs, status := maestro(t, "", args...)
		if status != want {
			t.Fatalf("%q: status %d, want %d: %s %s", args, status, want, out, errs)
		}
		return out, errs
	}
	old, config := start(false)
	dir := filepath.Join(t.TempDir(), "backup")
	if out, errs := run(statusDone, "--config-dir", config, "cluster", "backup", "--to", dir); !strings.Contains(out, "index-0") || !strings.Contains(errs, "saved meta: ") {
		t.Errorf("backup: %s %s", out, errs)
	}
	if _, errs := run(statusError, "--config-dir", config, "cluster", "backup", "--to", dir); !strings.Contains(errs, "is not empty") {
		t.Errorf("backup over a backup: %s", errs)
	}
	out, _ := run(statusDone, "cluster", "verify", dir, "-o", "json")
	var m struct{ Region string }
	if err := json.Unmarshal([]byte(out), &m); err != nil || m.Region != "local" {
		t.Errorf("verify: %v %s", err, out)
	}
	if _, errs := run(statusError, "--config-dir", config, "cluster", "restore", "--from", dir); !strings.Contains(errs, "hint: restore into a new region") {
		t.Errorf("restore into the region itself: %s", errs)
	}
	documents, _ := run(statusDone, "--config-dir", config, "search", "--limit", "1000", "-o", "json")
	limits, _ := run(statusDone, "--config-dir", config, "limit", "get", "demo-exports", "-o", "yaml")
	token := old.State().TokenFile
	if err := old.Stop(); err != nil {
		t.Fatal(err)
	}

	_, config = start(true)
	if _, errs := run(statusDone, "--config-dir", config, "cluster", "restore", "--from", dir); !strings.Contains(errs, "restored meta: ") {
		t.Errorf("restore: %s", errs)
	}
	for _, as := range [][]string{{"--config-dir", config}, {"--config-dir", config, "--token-file", token}} {
		if got, _ := run(statusDone, append(as, "search", "--limit", "1000", "-o", "json")...); itemsOf(t, got) != itemsOf(t, documents) {
			t.Errorf("%v: other documents are found", as)
		}
		if got, _ := run(statusDone, append(as, "limit", "get", "demo-exports", "-o", "yaml")...); limitsOf(got) != limitsOf(limits) {
			t.Errorf("%v: the limit is %s, was %s", as, got, limits)
		}
	}

	file := filepath.Join(dir, "index-0.rows")
	if err := os.Truncate(file, 100); err != nil {
		t.Fatal(err)
	}
	if _, errs := run(statusError, "cluster", "verify", dir); !strings.Contains(errs, file) || !strings.Contains(errs, "hint: use another backup") {
		t.Errorf("verify a damaged backup: %s", errs)
	}
}

// limitsOf leaves out the version, which has risen.
func limitsOf(out string) string {
	limits, _, _ := strings.Cut(out, "\nversion:")
	return limits
}

// itemsOf is what a search found, without what differs from region to region.
func itemsOf(t *testing.T, out string) string {
	t.Helper()
	var found struct{ Items []json.RawMessage }
	if err := json.Unmarshal([]byte(out), &found); err != nil || len(found.Items) == 0 {
		t.Fatalf("%d items: %v", len(found.Items), err)
	}
	b, err := json.Marshal(found.Items)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
