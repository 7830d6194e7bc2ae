package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/maestro-conductor/maestro/internal/devregion"
)

// startDev runs maestro dev until the returned function stops it.
func startDev(t *testing.T, dir string) (stop func() int) {
	t.Helper()
	t.Setenv(asMaestro, "1")
	ctx, cancel := context.WithCancel(t.Context())
	out, w := io.Pipe()
	var errs bytes.Buffer
	ended := make(chan int, 1)
	go func() {
		ended <- run(ctx, []string{"dev", "--dir", dir, "--port-base", "0"}, strings.NewReader(""), w, &errs)
		_ = w.Close()
	}()
	stop = func() int {
		cancel()
		return <-ended
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if strings.HasPrefix(lines.Text(), "ready") {
			go func() { _, _ = io.Copy(io.Discard, out) }()
			return stop
		}
	}
	t.Fatalf("never ready, status %d: %s", stop(), errs.String())
	return nil
}

// eventually waits until done says so.
func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	deadline := time.After(2 * time.Minute)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-deadline:
			t.Fatalf("waited in vain until %s", what)
		case <-tick.C:
		}
	}
}

// TestDevRegion goes the way of somebody who meets maestro for the first time, with real
// processes: start, look, check, ingest, kill nodes, stop, start again.
func TestDevRegion(t *testing.T) {
	if testing.Short() {
		t.Skip("runs a whole region of processes")
	}
	isolate(t)
	dir := t.TempDir()
	stop := startDev(t, dir)

	if out, errs, status := maestro(t, "", "cluster", "status", "-o", "json"); status != statusDone || !strings.Contains(out, "node-3") {
		t.Errorf("cluster status: %d %s %s", status, out, errs)
	}
	if out, errs, status := maestro(t, "", "limit", "get", "demo-exports", "-o", "yaml"); status != statusDone || !strings.Contains(out, "rate: 6/m") {
		t.Errorf("limit get: %d %s %s", status, out, errs)
	}
	checkTemplates(t, dir)
	checkLimits(t)
	checkLineage(t)
	checkMode(t)
	denied := false
	for range 4 { // two of them exceed the burst, or one if the clock is slow
		out, errs, status := maestro(t, "", "check", "--tenant", "demo", "--key", "export", "-o", "json")
		if denied = denied || status == statusDenied; status != statusDenied && status != statusDone {
			t.Errorf("check: %d %s %s", status, out, errs)
		}
		if (status == statusDone) != strings.Contains(out, `"allow": true`) {
			t.Errorf("status %d for %s", status, out)
		}
	}
	if !denied {
		t.Error("four exports at once were allowed with a burst of 2")
	}
	ingested := func(stdin string, wantStatus int) (counts struct{ Indexed, Existing, Refused int }, errs string) {
		out, errs, status := maestro(t, stdin, "ingest", "--tenant", "acme", "-o", "json", "-")
		if err := json.Unmarshal([]byte(out), &counts); err != nil || status != wantStatus {
			t.Errorf("ingest: status %d, want %d; %q %s", status, wantStatus, out, errs)
		}
		return counts, errs
	}
	const documents = `{"kind":"receipt","id":"r1","execution":"e1","task":"build"}` + "\n" + `{"kind":"event","id":"r2","execution":"e1"}`
	if c, _ := ingested(documents, statusDone); c.Indexed != 2 {
		t.Errorf("first ingest: %+v", c)
	}
	if c, _ := ingested(documents, statusDone); c.Existing != 2 {
		t.Errorf("second ingest: %+v", c)
	}
	if c, errs := ingested(`{"kind":"nothing"}`, statusError); c.Refused != 1 || !strings.HasPrefix(errs, "refused: stdin: line 1: ") {
		t.Errorf("a bad document: %+v %s", c, errs)
	}
	checkTenantToken(t)
	resume := filepath.Join(t.TempDir(), "cursor")
	for run, want := range []int{2, 0} {
		out, errs, status := maestro(t, "", "export", "--tenant", "acme", "--resume", resume)
		if status != statusDone || strings.Count(out, "\n") != want {
			t.Errorf("export %d: status %d, %q, %s; want %d lines", run, status, out, errs, want)
		}
	}

	for _, n := range readState(t, dir).Regions[0].Nodes {
		if err := syscall.Kill(n.PID, syscall.SIGKILL); err != nil {
			t.Fatalf("kill %s: %v", n.ID, err)
		}
		if out, errs, status := maestro(t, "", "search", "--tenant", "acme", "execution:e1", "-o", "json"); status != statusDone || !strings.Contains(out, `"value": 2`) {
			t.Errorf("search after the death of %s: %d %s %s", n.ID, status, out, errs)
		}
		// Ready, not only running: the next death must not take the majority with it.
		eventually(t, n.ID+" is back", func() bool {
			for _, now := range readState(t, dir).Regions[0].Nodes {
				if now.ID == n.ID {
					return now.PID != 0 && now.PID != n.PID && isReady(now.Admin)
				}
			}
			return false
		})
	}
	if status := stop(); status != statusDone {
		t.Errorf("dev ended with %d", status)
	}
	for _, n := range readState(t, dir).Regions[0].Nodes {
		if n.PID != 0 {
			t.Errorf("%s is left running as %d", n.ID, n.PID)
		}
	}

	stop = startDev(t, dir)
	defer stop()
	if out, errs, status := maestro(t, "", "--config-dir", dir, "search", "--tenant", "acme"); status != statusDone || !strings.Contains(out, "2 of 2") {
		t.Errorf("search after a new start: %d %s %s", status, out, errs)
	}
}

// checkLimits sets the sample file and sees its limits at work.
func checkLimits(t *testing.T) {
	t.Helper()
	file := filepath.Join("..", "..", "docs", "examples", "limits.yaml")
	if out, errs, status := maestro(t, "", "limit", "set", "-f", file, "--dry-run"); status != statusDone || !strings.Contains(out, "10 would be created, 0 replaced") {
		t.Errorf("limit set --dry-run: %d %s %s", status, out, errs)
	}
	if out, errs, status := maestro(t, "", "limit", "set", "-f", file); status != statusDone || !strings.Contains(out, "10 created") {
		t.Errorf("limit set: %d %s %s", status, out, errs)
	}
	if out, _, status := maestro(t, "", "limit", "set", "-f", file, "--dry-run"); status != statusDone || !strings.HasPrefix(out, "0 would be created, 0 replaced, 10 unchanged") {
		t.Errorf("the same again: %d %s", status, out)
	}
	check := func(want int, tenant string, cost string) string {
		t.Helper()
		out, errs, status := maestro(t, "", "check", "--tenant", tenant, "--key", "export-1", "--cost", cost, "-o", "json")
		if status != want {
			t.Errorf("check of %s: %d %s %s", tenant, status, out, errs)
		}
		return out
	}
	check(statusDone, "acme", "6")
	if out := check(statusDenied, "acme", "6"); !strings.Contains(out, `"kind": "window"`) || !strings.Contains(out, `"limitId": "exports"`) {
		t.Errorf("a window of six: %s", out)
	}
	check(statusDone, "globex", "60")
	out, errs, status := maestro(t, "", "limit", "usage", "--tenant", "acme", "--key", "export-1")
	for _, want := range []string{"acme-total", "token_bucket", "calendar", "everyone-daily", "would allow", "exports"} {
		if status != statusDone || !strings.Contains(out, want) {
			t.Errorf("limit usage lacks %s: %d %s %s", want, status, out, errs)
		}
	}
	checkHolds(t)
	checkPlans(t)
	// Every group's leader learns the bounds of the calendars from the clocks of a majority.
	eventually(t, "the month's end is known", func() bool {
		maestro(t, "", "check", "--tenant", "acme") // usage is as of the last decision
		out, _, _ := maestro(t, "", "limit", "usage", "--tenant", "acme", "-o", "json")
		var usage struct {
			Levels []struct {
				Level   struct{ Kind string }
				ResetMs int
			}
		}
		if err := json.Unmarshal([]byte(out), &usage); err != nil {
			return false
		}
		for _, l := range usage.Levels {
			if l.Level.Kind == "calendar" && l.ResetMs <= 1000 {
				return false
			}
		}
		return len(usage.Levels) == 7
	})
}

// checkHolds reserves, gives back and holds, with the limits of the sample file.
func checkHolds(t *testing.T) {
	t.Helper()
	run := func(want int, args ...string) string {
		t.Helper()
		out, errs, status := maestro(t, "", append([]string{"limit"}, append(args, "--tenant", "acme", "-o", "json")...)...)
		if status != want {
			t.Fatalf("limit %s: %d %s %s", args, status, out, errs)
		}
		return strings.ReplaceAll(out, " ", "")
	}
	idOf := func(out string) string {
		t.Helper()
		var m struct{ ID string }
		if err := json.Unmarshal([]byte(out), &m); err != nil || m.ID == "" {
			t.Fatalf("no id in %s (%v)", out, err)
		}
		return m.ID
	}
	reservation := idOf(run(statusDone, "reserve", "--token", "ana", "--key", "model-a", "--cost", "5", "--ttl", "1h"))
	for range 2 { // the first one counts
		if out := run(statusDone, "commit", reservation, "--actual", "2"); !strings.Contains(out, `"refunded":3`) {
			t.Errorf("commit: %s", out)
		}
	}
	if out := run(statusDone, "cancel", reservation); !strings.Contains(out, `"actual":2`) {
		t.Errorf("cancel after commit: %s", out)
	}
	run(statusDenied, "reserve", "--key", "model-a", "--cost", "4000000")
	if _, errs, status := maestro(t, "", "limit", "cancel", strings.Repeat("0", 32), "--tenant", "acme"); status != statusError || !strings.Contains(errs, "no such reservation") {
		t.Errorf("cancel of nothing: %d %s", status, errs)
	}
	if _, errs, status := maestro(t, "", "check", "--tenant", "acme", "--token", "bob", "--cost", "3", "--request-id", "export-17"); status != statusDone {
		t.Errorf("check: %d %s", status, errs)
	}
	if out := run(statusDone, "refund", "export-17"); !strings.Contains(out, `"refunded":3`) {
		t.Errorf("refund: %s", out)
	}
	slot := idOf(run(statusDone, "acquire", "--weight", "10"))
	if out := run(statusDenied, "acquire"); !strings.Contains(out, `"kind":"concurrency"`) {
		t.Errorf("an eleventh build: %s", out)
	}
	if id := idOf(run(statusDone, "acquire", "--renew", slot)); id != slot {
		t.Errorf("renewed %s, want %s", id, slot)
	}
	for _, want := range []string{`"released":true`, `"released":false`} {
		if out := run(statusDone, "release", slot); !strings.Contains(out, want) {
			t.Errorf("release: %s, want %s", out, want)
		}
	}
}

// checkMode turns enforcement off for everybody, and on again, and looks at the busiest keys.
func checkMode(t *testing.T) {
	t.Helper()
	run := func(want int, args ...string) string {
		t.Helper()
		out, errs, status := maestro(t, "", args...)
		if status != want {
			t.Errorf("%v: %d %s %s", args, status, out, errs)
		}
		return out
	}
	denied := []string{"check", "--tenant", "acme", "--key", "export-1", "--cost", "6"}
	run(statusDenied, denied...)
	if out := run(statusDone, "limit", "top", "--denied"); !strings.Contains(out, "export-1") || !strings.Contains(out, "exports") {
		t.Errorf("limit top: %s", out)
	}
	run(statusUsage, "limit", "mode", "on")
	if out := run(statusDone, "limit", "mode", "off"); !strings.Contains(out, "NOT ENFORCED") || !strings.Contains(out, "it was enforce") {
		t.Errorf("limit mode off: %s", out)
	}
	eventually(t, "checks to pass", func() bool {
		out, _, status := maestro(t, "", denied...)
		return status == statusDone && strings.Contains(out, "NOT ENFORCED")
	})
	if out := run(statusDone, "limit", "mode"); !strings.HasPrefix(out, "off: ") {
		t.Errorf("limit mode: %s", out)
	}
	run(statusDone, "limit", "mode", "enforce")
	eventually(t, "checks to be denied", func() bool {
		_, _, status := maestro(t, "", denied...)
		return status == statusDenied
	})
}

// checkTenantToken makes a token of one tenant and tries its borders.
func checkTenantToken(t *testing.T) {
	t.Helper()
	out, errs, status := maestro(t, "", "token", "create", "--tenant", "acme", "--role", "reader", "-o", "json")
	var created struct{ Token string }
	if err := json.Unmarshal([]byte(out), &created); err != nil || status != statusDone || created.Token == "" {
		t.Fatalf("token create: %d %s %s", status, out, errs)
	}
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte(created.Token), 0o600); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the token is known everywhere", func() bool {
		out, _, status = maestro(t, "", "search", "--token-file", file)
		return status == statusDone
	})
	if !strings.Contains(out, "2 of 2") {
		t.Errorf("a reader of acme sees: %s", out)
	}
	if _, errs, status := maestro(t, "", "search", "--token-file", file, "--tenant", "demo"); status != statusError || !strings.Contains(errs, "error: ") {
		t.Errorf("another tenant's documents: %d %s", status, errs)
	}
	if _, errs, status := maestro(t, "", "check", "--token-file", file); status != statusError || !strings.Contains(errs, "hint: ") {
		t.Errorf("a check by a reader: %d %s", status, errs)
	}
}

func readState(t *testing.T, dir string) devregion.State {
	t.Helper()
	s, err := devregion.ReadState(dir)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestChangesOfMembers adds a node to a region of real processes, hands it a leadership, and
// begins to remove another one, as an operator would.
func TestChangesOfMembers(t *testing.T) {
	if testing.Short() {
		t.Skip("runs a whole region of processes")
	}
	isolate(t)
	t.Setenv(asMaestro, "1")
	region, err := devregion.Start(t.Context(), devregion.Options{Dir: t.TempDir(), NoSeed: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = region.Stop() })
	spare, err := region.StartSpare(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	run := func(want int, args ...string) (string, string) {
		t.Helper()
		out, errs, status := maestro(t, "", append([]string{"--config-dir", region.State().ConfigDir, "cluster"}, args...)...)
		if status != want {
			t.Errorf("%q: status %d, want %d: %s %s", args, status, want, out, errs)
		}
		return out, errs
	}
	if _, errs := run(statusError, "remove", "node-1"); !strings.Contains(errs, "hint: use `maestro cluster replace`") {
		t.Errorf("removing one of three: %s", errs)
	}
	out, errs := run(statusDone, "add", spare.ID, "--cluster", spare.Cluster)
	if !strings.Contains(out, "carries its share") || !strings.Contains(errs, "is a member now") {
		t.Errorf("add: %q %q", out, errs)
	}
	if out, _ := run(statusDone, "add", spare.ID, "--cluster", spare.Cluster, "--no-wait"); !strings.Contains(out, "is a member already") {
		t.Errorf("add again: %q", out)
	}
	out, _ = run(statusDone, "status")
	group := ""
	for _, line := range strings.Split(out, "\n") {
		if f := strings.Fields(line); len(f) == 7 && strings.HasPrefix(f[0], "index-") && strings.Contains(f[5], spare.ID) {
			group = f[0]
		}
	}
	if group == "" {
		t.Fatalf("no index group votes on %s: %s", spare.ID, out)
	}
	if out, _ := run(statusDone, "transfer", group, spare.ID); !strings.Contains(out, spare.ID+" leads "+group) {
		t.Errorf("transfer: %q", out)
	}
	if out, _ := run(statusDone, "remove", "node-1", "--no-wait", "-o", "json"); !strings.Contains(out, `"started":true`) {
		t.Errorf("remove: %q", out)
	}
	if _, errs := run(statusError, "remove", "node-1", "--wait", "1ms"); !strings.Contains(errs, "it goes on by itself") {
		t.Errorf("remove without patience: %q", errs)
	}
	if _, errs := run(statusError, "remove", "node-9"); !strings.Contains(errs, "no member has this name") {
		t.Errorf("remove nobody: %q", errs)
	}
}

func isReady(admin string) bool {
	resp, err := http.Get(admin + "/readyz")
	if err != nil {
		return false
	}
	_ = resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}
