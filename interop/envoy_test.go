//go:build interop

package interop

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/maestro-conductor/maestro/internal/testport"
)

// envoy is a running Envoy with the configuration of the documentation, but for its addresses.
type envoy struct {
	t   *testing.T
	url string
}

// startEnvoy runs Envoy between callers and service until the test ends. failOpen makes it let requests
// pass while the region cannot answer.
func startEnvoy(t *testing.T, r *region, service string, failOpen bool) *envoy {
	t.Helper()
	binary := os.Getenv("ENVOY")
	if binary == "" {
		t.Fatal("ENVOY names no binary; run make interop")
	}
	listen, admin := testport.Address(t), testport.Address(t)
	data, err := os.ReadFile(filepath.Join(examples, "envoy.yaml"))
	must(t, err)
	nodes := r.addresses()
	config := string(data)
	for old, replacement := range map[string]string{
		address("127.0.0.1:10000"): address(listen), address("127.0.0.1:8080"): address(service),
		address("127.0.0.1:7400"): address(nodes[0]), address("127.0.0.1:7410"): address(nodes[1]), address("127.0.0.1:7420"): address(nodes[2]),
		"filename: .maestro/certs/ca.pem": "filename: " + r.State().CA,
	} {
		if strings.Count(config, old) != 1 {
			t.Fatalf("the example does not hold %q once", old)
		}
		config = strings.Replace(config, old, replacement, 1)
	}
	if failOpen {
		config = strings.Replace(config, "failure_mode_deny: true", "failure_mode_deny: false", 1)
	}
	config += "admin: {address: {socket_address: {" + address(admin) + "}}\n"
	file := filepath.Join(t.TempDir(), "envoy.yaml")
	must(t, os.WriteFile(file, []byte(config), 0o600))
	log, err := os.Create(filepath.Join(filepath.Dir(file), "log"))
	must(t, err)
	cmd := exec.Command(binary, "-c", file, "--use-dynamic-base-id", "--concurrency", "1", "--disable-hot-restart")
	cmd.Env = append(os.Environ(), "MAESTRO_TOKEN="+r.token)
	cmd.Stdout, cmd.Stderr = log, log
	must(t, cmd.Start())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait() // it is told to end
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // fails when it has ended, which is the aim
		<-ended
		_ = log.Close()
		if t.Failed() {
			text, _ := os.ReadFile(log.Name())
			t.Logf("Envoy's log:\n%s", text)
		}
	})
	await(t, "Envoy to know healthy nodes", func() bool {
		select {
		case <-ended:
			t.Fatal("Envoy has ended")
		default:
		}
		resp, err := http.Get("http://" + admin + "/clusters")
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		return err == nil && strings.Count(string(text), "health_flags::healthy") == 1+len(nodes)
	})
	return &envoy{t: t, url: "http://" + listen}
}

// address is how the example writes an address, to the end of the mapping.
func address(hostPort string) string {
	host, port, _ := strings.Cut(hostPort, ":")
	return fmt.Sprintf("address: %s, port_value: %s}", host, port)
}

// get asks through Envoy; headers are names and values.
func (e *envoy) get(path string, headers ...string) *http.Response {
	e.t.Helper()
	req, err := http.NewRequestWithContext(e.t.Context(), http.MethodGet, e.url+path, nil)
	must(e.t, err)
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	must(e.t, err)
	_, err = io.Copy(io.Discard, resp.Body)
	must(e.t, err)
	must(e.t, resp.Body.Close())
	return resp
}

// as asks with a tenant and an API key.
func (e *envoy) as(tenant, key string) *http.Response {
	e.t.Helper()
	return e.get("/", "x-tenant", tenant, "x-api-key", key)
}

// always tells whether a key gets such answers, whichever node is asked.
func (e *envoy) always(key string, ok func(*http.Response) bool) bool {
	e.t.Helper()
	for range 9 { // Envoy asks the three nodes in turn
		if !ok(e.as("acme", key)) {
			return false
		}
	}
	return true
}

func (e *envoy) want(what string, resp *http.Response, status int) {
	e.t.Helper()
	if resp.StatusCode != status {
		e.t.Errorf("%s: status %d, want %d; headers %v", what, resp.StatusCode, status, resp.Header)
	}
}

// startService runs what Envoy guards.
func startService(t *testing.T) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.URL.Path) }))
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

// policy is that of the example's limit for API keys.
const policy = `"edge-keys";q=5;w=300`

// A real Envoy, configured as documented, enforces the region's limits, follows its mode, and does what
// its failure mode says when the region is gone.
func TestEnvoy(t *testing.T) {
	r := startRegion(t)
	service := startService(t)
	e, open := startEnvoy(t, r, service, false), startEnvoy(t, r, service, true)

	// A node may answer a moment before its own replica knows how long a limit's window is.
	await(t, "every node to know the limits", func() bool {
		return e.always("warm", func(resp *http.Response) bool { return resp.Header.Get("RateLimit-Policy") == policy })
	})
	for i := range 5 {
		resp := e.as("acme", "ana")
		e.want(fmt.Sprintf("request %d of the burst", i+1), resp, http.StatusOK)
		if got, want := resp.Header.Get("RateLimit"), fmt.Sprintf(`"edge-keys";r=%d`, 4-i); got != want {
			t.Errorf("request %d: RateLimit %s, want %s", i+1, got, want)
		}
		if got := resp.Header.Get("RateLimit-Policy"); got != policy {
			t.Errorf("request %d: RateLimit-Policy %s, want %s", i+1, got, policy)
		}
		if got := resp.Header.Values("Retry-After"); len(got) != 0 {
			t.Errorf("request %d: Retry-After %v", i+1, got)
		}
	}
	resp := e.as("acme", "ana")
	e.want("the one after the burst", resp, http.StatusTooManyRequests)
	wait := resp.Header.Values("Retry-After")
	if len(wait) != 1 {
		t.Errorf("Retry-After %v, want one", wait)
	} else if got, want := resp.Header.Get("RateLimit"), `"edge-keys";r=0;t=`+wait[0]; got != want {
		t.Errorf("RateLimit %s, want %s", got, want)
	}
	e.want("another key", e.as("acme", "bob"), http.StatusOK)
	e.want("the key of another tenant", e.as("globex", "ana"), http.StatusOK)
	e.want("the first key, through another Envoy", open.as("acme", "ana"), http.StatusTooManyRequests)

	e.want("a tenant that cannot be", e.as("ACME!", "ana"), http.StatusTooManyRequests)
	e.want("a request that names nobody", e.get("/"), http.StatusOK)

	// Exports take five of ten, and a request of the key besides: both or none.
	export := func(key string) *http.Response { return e.get("/export", "x-tenant", "acme", "x-api-key", key) }
	e.want("the first export", export("cyd"), http.StatusOK)
	e.want("an export of a key without requests", export("ana"), http.StatusTooManyRequests)
	e.want("the second export, of which the denied one has taken nothing", export("cyd"), http.StatusOK)
	resp = export("cyd")
	e.want("the third export", resp, http.StatusTooManyRequests)
	if got := resp.Header.Get("RateLimit"); !strings.HasPrefix(got, `"edge-exports";r=0;t=`) || !strings.HasSuffix(got, `, "edge-keys";r=3`) {
		t.Errorf("of the export that was denied nothing is taken: RateLimit %s", got)
	}

	r.setMode("off")
	began := time.Now()
	await(t, "the mode off to let everything pass", func() bool {
		return e.always("ana", func(resp *http.Response) bool { return resp.StatusCode == http.StatusOK })
	})
	t.Logf("the mode off held everywhere after %v at most", time.Since(began).Round(time.Millisecond))
	r.setMode("enforce")
	await(t, "limits to be enforced again", func() bool {
		return e.always("ana", func(resp *http.Response) bool { return resp.StatusCode == http.StatusTooManyRequests })
	})

	r.stop()
	e.want("without the region", e.as("acme", "eve"), http.StatusServiceUnavailable)
	open.want("without the region, failing open", open.as("acme", "eve"), http.StatusOK)
}
