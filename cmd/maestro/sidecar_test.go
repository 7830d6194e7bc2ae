package main

import (
	"context"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
)

// Without its region a sidecar does as it was told, on a socket, and ends when asked to.
func TestSidecarWithoutItsRegion(t *testing.T) {
	isolate(t)
	if _, stderr, status := maestro(t, "", "sidecar", "--listen", "0.0.0.0:0", "--endpoint", "https://127.0.0.1:1"); status != statusUsage || !strings.Contains(stderr, "loopback") {
		t.Errorf("an address that others reach: status %d, %s", status, stderr)
	}
	if _, _, status := maestro(t, "", "sidecar", "--listen", "", "--endpoint", "https://127.0.0.1:1"); status != statusUsage {
		t.Errorf("nothing to serve on: status %d", status)
	}
	socket := filepath.Join(t.TempDir(), "s")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan int, 1)
	go func() {
		ended <- run(ctx, []string{"sidecar", "--listen", "", "--socket", socket, "--tenant", "acme", "--on-failure", "open", "--endpoint", "https://127.0.0.1:1"}, strings.NewReader(""), io.Discard, io.Discard)
	}()
	c := http.Client{Transport: &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return net.Dial("unix", socket) }}}
	defer c.CloseIdleConnections()
	ask := func(method, path, body string) (int, string) {
		var resp *http.Response
		eventually(t, "the sidecar listens", func() bool {
			r, err := http.NewRequestWithContext(t.Context(), method, "http://sidecar"+path, strings.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Content-Type", "application/json")
			resp, err = c.Do(r)
			return err == nil
		})
		answer, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(answer)
	}
	const limiter = "/mc.limiter.v1.Limiter/"
	if status, body := ask(http.MethodPost, limiter+"Check", `{"key":"k","cost":1}`); status != http.StatusOK || !strings.Contains(body, `"source":"failure"`) || !strings.Contains(body, `"allow":true`) {
		t.Errorf("check: %d %s", status, body)
	}
	if status, body := ask(http.MethodPost, limiter+"CheckBatch", `{"checks":[{"cost":1},{"cost":2}]}`); status != http.StatusOK || strings.Count(body, `"source":"failure"`) != 2 {
		t.Errorf("batch: %d %s", status, body)
	}
	if status, body := ask(http.MethodPost, limiter+"CheckBatch", `{"checks":[{"cost":1,"request_id":"r"}]}`); status != http.StatusOK || strings.Count(body, `"source":"failure"`) != 1 {
		t.Errorf("batch with a request id: %d %s", status, body)
	}
	if _, body := ask(http.MethodGet, "/metrics", ""); !strings.Contains(body, `mc_sidecar_checks_total{by="fail_open"} 4`) {
		t.Errorf("metrics: %s", body)
	}
	for path, want := range map[string]int{"/healthz": http.StatusOK, "/readyz": http.StatusServiceUnavailable} {
		if status, body := ask(http.MethodGet, path, ""); status != want {
			t.Errorf("%s: %d %s", path, status, body)
		}
	}
	if _, body := ask(http.MethodGet, "/readyz", ""); !strings.Contains(body, "no node of the region lends") {
		t.Errorf("/readyz: %s", body)
	}
	cancel()
	if status := <-ended; status != statusDone {
		t.Errorf("ended with status %d", status)
	}
}
