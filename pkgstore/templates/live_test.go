package templates

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/maestro-conductor/maestro/pkgstore/stepexec"
)

// These tests run the branches of templates that examples cannot: with curl and openssl against servers of this test, and with psql
// against the server that MAESTRO_TEST_POSTGRES names. They skip where a tool is missing.

type live struct {
	t       *testing.T
	options stepexec.Options
	dir     string // artifacts
}

func newLive(t *testing.T, name string, tools ...string) *live {
	t.Helper()
	for _, tool := range tools {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip(err)
		}
	}
	for _, one := range All() {
		if one.Name == name {
			dir := t.TempDir()
			return &live{t, stepexec.Options{Package: build(t, one), AllowNetwork: true, AllowUnisolated: true, Dir: t.TempDir(), Artifacts: dir}, dir}
		}
	}
	t.Fatalf("there is no template %s", name)
	return nil
}

// run runs the template; secrets are by input.
func (l *live) run(inputs map[string]any, secrets map[string]string) *stepexec.Report {
	l.t.Helper()
	o := l.options
	o.Inputs = inputs
	for name := range secrets {
		inputs[name] = name
	}
	o.Secret = func(_ context.Context, input, _ string) (string, error) { return secrets[input], nil }
	report, err := stepexec.Run(l.t.Context(), o)
	if err != nil {
		l.t.Fatal(err)
	}
	for _, s := range report.Steps {
		for _, a := range s.Attempts {
			l.t.Logf("step %s %s %s\n%s", s.ID, s.Status, s.Detail, a.Log)
		}
	}
	return report
}

func (l *live) expect(r *stepexec.Report, status string, outputs map[string]any) {
	l.t.Helper()
	if r.Status != status {
		l.t.Errorf("the run is %s: %s", r.Status, r.Detail)
	}
	for name, want := range outputs {
		if got := r.Outputs[name]; fmt.Sprint(got) != fmt.Sprint(want) {
			l.t.Errorf("output %s is %v, not %v", name, got, want)
		}
	}
}

func (l *live) artifact(name string) string {
	l.t.Helper()
	text, err := os.ReadFile(filepath.Join(l.dir, name))
	if err != nil {
		l.t.Fatal(err)
	}
	return string(text)
}

// requests are what a server was asked, as METHOD PATH.
type requests struct {
	mu   sync.Mutex
	seen []string
}

// serve answers with what answer says of the request's text and its number among equals.
func serve(t *testing.T, answer func(r *http.Request, body []byte, text string, n int) int) (*httptest.Server, *requests) {
	var q requests
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		text := r.Method + " " + r.URL.EscapedPath()
		q.mu.Lock()
		defer q.mu.Unlock()
		n := 1
		for _, s := range q.seen {
			if s == text {
				n++
			}
		}
		q.seen = append(q.seen, text)
		w.WriteHeader(answer(r, body, text, n))
	}))
	t.Cleanup(server.Close)
	return server, &q
}

func (q *requests) String() string {
	q.mu.Lock()
	defer q.mu.Unlock()
	return strings.Join(q.seen, "\n")
}

func TestWebhooksAreSignedAndTriedAgain(t *testing.T) {
	l := newLive(t, "webhook-fanout", "curl")
	// A key longer than a block of SHA-256, which HMAC hashes first.
	key := strings.Repeat("key-", 20)
	body, err := os.ReadFile("webhook-fanout/fixtures/event.json")
	if err != nil {
		t.Fatal(err)
	}
	mac := hmac.New(sha256.New, []byte(key))
	mac.Write(body)
	want := "sha256=" + hex.EncodeToString(mac.Sum(nil))
	hooks, asked := serve(t, func(r *http.Request, got []byte, text string, n int) int {
		if r.Header.Get("X-Signature-256") != want || r.Header.Get("X-Event-Id") != "evt-1" || string(got) != string(body) {
			t.Errorf("%s: %v %q", text, r.Header, got)
		}
		switch {
		case text == "POST /gone":
			return http.StatusGone
		case text == "POST /flaky" && n < 3:
			return http.StatusServiceUnavailable
		}
		return http.StatusNoContent
	})
	lists := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer of-the-list" {
			w.WriteHeader(http.StatusUnauthorized)
		}
		fmt.Fprintf(w, "fine\t%s/fine\nflaky\t%s/flaky\ngone\t%s/gone\n", hooks.URL, hooks.URL, hooks.URL)
	}))
	defer lists.Close()
	r := l.run(map[string]any{"event": "evt-1", "payload": "fixtures/event.json", "endpoints": lists.URL, "firstPauseSeconds": 0},
		map[string]string{"signingKey": key, "token": "of-the-list"})
	l.expect(r, "failed", map[string]any{"delivered": 2, "dead": 1})
	if got := asked.String(); got != "POST /fine\nPOST /flaky\nPOST /flaky\nPOST /flaky\nPOST /gone" {
		t.Errorf("asked:\n%s", got)
	}
	if got := l.artifact("dead-letters.tsv"); got != "gone\t"+hooks.URL+"/gone\n" {
		t.Errorf("%q", got)
	}
}

func TestBackfillStopsAndGoesOn(t *testing.T) {
	l := newLive(t, "backfill-range", "curl")
	job, asked := serve(t, func(r *http.Request, _ []byte, text string, n int) int {
		if day := strings.TrimPrefix(text, "POST /run/"); r.Header.Get("Idempotency-Key") != "backfill-"+day {
			t.Errorf("%s: %v", text, r.Header)
		}
		if strings.HasSuffix(text, "03-01") && n == 1 {
			return http.StatusInternalServerError
		}
		return http.StatusOK
	})
	inputs := func(checkpoint string) map[string]any {
		return map[string]any{"from": "2028-02-28", "to": "2028-03-01", "url": job.URL + "/run/{date}", "ratePerMinute": 600, "dryRun": false, "checkpoint": checkpoint}
	}
	r := l.run(inputs(""), nil)
	l.expect(r, "failed", map[string]any{"days": 3, "done": 2, "left": 1})
	done := l.artifact("checkpoint.txt")
	if done != "2028-02-28\n2028-02-29\n" {
		t.Errorf("%q", done)
	}
	checkpoint := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, done) }))
	defer checkpoint.Close()
	l.expect(l.run(inputs(checkpoint.URL), nil), "succeeded", map[string]any{"pending": 1, "done": 3, "left": 0})
	if got := asked.String(); got != "POST /run/2028-02-28\nPOST /run/2028-02-29\nPOST /run/2028-03-01\nPOST /run/2028-03-01" {
		t.Errorf("asked:\n%s", got)
	}
}

func TestRevocationsGoOnAfterFailures(t *testing.T) {
	l := newLive(t, "access-review", "curl")
	api, asked := serve(t, func(r *http.Request, _ []byte, text string, n int) int {
		if r.Header.Get("Authorization") != "Bearer of-the-api" {
			t.Errorf("%s: %v", text, r.Header)
		}
		switch {
		case strings.HasSuffix(r.URL.Path, "admin"):
			return http.StatusNotFound // gone already
		case strings.HasSuffix(r.URL.Path, "viewer") && n == 1:
			return http.StatusBadGateway
		}
		return http.StatusNoContent
	})
	r := l.run(map[string]any{
		"members": "fixtures/members.csv", "decisions": "fixtures/decisions.csv", "now": "2026-11-27", "failOnUndecided": false, "dryRun": false, "revokeUrl": api.URL,
	}, map[string]string{"token": "of-the-api"})
	l.expect(r, "succeeded", map[string]any{"revoke": 3})
	if got := r.Steps[2].Attempts; len(got) != 2 {
		t.Errorf("%d attempts", len(got))
	}
	if got := asked.String(); strings.Count(got, "DELETE /") != 6 || !strings.Contains(got, "DELETE /%70%61%79%6d%65%6e%74%73/%62%6f/%76%69%65%77%65%72") {
		t.Errorf("asked:\n%s", got)
	}
}

func TestLoadIsMadeAndMeasured(t *testing.T) {
	l := newLive(t, "load-test", "curl", "xargs")
	target, asked := serve(t, func(r *http.Request, _ []byte, _ string, n int) int {
		if r.Header.Get("Authorization") != "Bearer of-the-target" {
			t.Errorf("%v", r.Header)
		}
		if n == 1 {
			return http.StatusInternalServerError
		}
		return http.StatusOK
	})
	inputs := map[string]any{"url": target.URL, "requests": 100, "concurrency": 4, "p95Millis": 60000, "maxErrorPercent": 1}
	l.expect(l.run(inputs, map[string]string{"token": "of-the-target"}), "succeeded", map[string]any{"requests": 100, "errors": 1, "passed": true})
	if got := strings.Count(asked.String(), "GET /"); got != 100 {
		t.Errorf("%d requests", got)
	}
}

func TestCertificatesAreReadFromHosts(t *testing.T) {
	l := newLive(t, "cert-expiry-sweep", "openssl")
	host := httptest.NewTLSServer(http.NotFoundHandler())
	defer host.Close()
	address := strings.TrimPrefix(host.URL, "https://")
	// The certificate of httptest ends on 29 January 2084.
	inputs := map[string]any{"hosts": address + " 127.0.0.1:1", "now": "2084-01-15T00:00:00Z", "failOnCritical": false}
	l.expect(l.run(inputs, nil), "succeeded", map[string]any{"fine": 0, "expiring": 1, "critical": 0, "unreachable": 1})
}
