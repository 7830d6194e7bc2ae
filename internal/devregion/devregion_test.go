package devregion

import (
	"encoding/json"
	"errors"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/maestro-conductor/maestro/internal/certs"
)

// lay prepares a region without running it.
func lay(t *testing.T, o Options) *Region {
	t.Helper()
	r, err := prepare(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.lock.Close() })
	return r
}

func TestDevJSONShape(t *testing.T) {
	dir := t.TempDir()
	lay(t, Options{Dir: dir})
	data, err := os.ReadFile(filepath.Join(dir, "dev.json"))
	if err != nil {
		t.Fatal(err)
	}
	var s map[string]any
	if err := json.Unmarshal(data, &s); err != nil {
		t.Fatal(err)
	}
	if s["ca"] != filepath.Join(dir, "certs", "ca.pem") || s["token_file"] != filepath.Join(dir, "admin.token") {
		t.Errorf("ca %v, token_file %v", s["ca"], s["token_file"])
	}
	region := s["regions"].([]any)[0].(map[string]any)
	if region["name"] != "local" || len(region["nodes"].([]any)) != 3 {
		t.Fatalf("region %v", region)
	}
	for _, n := range region["nodes"].([]any) {
		node := n.(map[string]any)
		if !strings.HasPrefix(node["api"].(string), "https://127.0.0.1:") || !strings.HasPrefix(node["admin"].(string), "http://127.0.0.1:") {
			t.Errorf("node %v", node)
		}
		if node["data"] != filepath.Join(dir, node["id"].(string), "data") || node["pid"].(float64) != 0 {
			t.Errorf("node %v", node)
		}
	}
}

func TestASecondStartKeepsEverything(t *testing.T) {
	dir := t.TempDir()
	first := lay(t, Options{Dir: dir})
	before := first.State()
	ca, err := os.ReadFile(certs.CAPath(first.certsDir()))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := prepare(Options{Dir: dir}); !errors.Is(err, ErrInUse) {
		t.Fatalf("a second supervisor: %v, want ErrInUse", err)
	}
	if err := first.lock.Close(); err != nil {
		t.Fatal(err)
	}
	second := lay(t, Options{Dir: dir})
	if after := second.State(); !reflect.DeepEqual(before, after) {
		t.Errorf("before %+v\nafter  %+v", before, after)
	}
	if again, err := os.ReadFile(certs.CAPath(first.certsDir())); err != nil || !slices.Equal(ca, again) {
		t.Errorf("the CA changed (%v)", err)
	}
}

func TestStartRefuses(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	existing := t.TempDir()
	if err := lay(t, Options{Dir: existing}).lock.Close(); err != nil {
		t.Fatal(err)
	}
	broken := t.TempDir()
	if err := os.WriteFile(StatePath(broken), []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name string
		o    Options
		want string
	}{
		{"a bad name", Options{Dir: t.TempDir(), Name: "US West"}, "lower-case letters"},
		{"a port that is taken", Options{Dir: t.TempDir(), PortBase: taken.Addr().(*net.TCPAddr).Port}, "--port-base 0"},
		{"a port out of range", Options{Dir: t.TempDir(), PortBase: 65530}, "--port-base 65530"},
		{"other ports than before", Options{Dir: existing, PortBase: 1024}, "keeps its ports"},
		{"another name than before", Options{Dir: existing, Name: "eu"}, `holds the region "local", not "eu"`},
		{"a foreign dev.json", Options{Dir: broken}, "does not describe one region"},
	} {
		_, err := prepare(tc.o)
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %v, want %q", tc.name, err, tc.want)
		}
		if _, err := prepare(tc.o); errors.Is(err, ErrInUse) {
			t.Errorf("%s: the folder stayed locked", tc.name)
		}
	}
}

func TestANodeThatCannotRunEndsTheStart(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "broken")
	if err := os.WriteFile(binary, []byte("#!/bin/sh\necho cannot run: no luck >&2\nexit 7\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	_, err := Start(t.Context(), Options{Dir: dir, Binary: binary})
	if !errors.Is(err, ErrStart) || !strings.Contains(err.Error(), "cannot run: no luck") {
		t.Fatalf("got %v", err)
	}
	lock, err := lockFolder(dir)
	if err != nil {
		t.Fatalf("the folder stayed locked: %v", err)
	}
	_ = lock.Close()
}

func TestAProcessComesBackUntilItIsStopped(t *testing.T) {
	dir := t.TempDir()
	binary := filepath.Join(dir, "sleeper")
	if err := os.WriteFile(binary, []byte("#!/bin/sh\nexec sleep 600\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	pids := make(chan int, 10)
	p := startProcess("node-1", binary, dir, func(pid int) error {
		if pid != 0 {
			pids <- pid
		}
		return nil
	}, func(string) {})
	first := <-pids
	if err := p.signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	second := <-pids
	if first == second {
		t.Errorf("the same process %d again", first)
	}
	p.stop()
	p.stop() // twice is once
	<-p.ended
	if err := syscall.Kill(second, 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("process %d outlived stop: %v", second, err)
	}
	if err := p.signal(syscall.SIGKILL); err == nil {
		t.Error("signalled a process that has ended")
	}
}

func TestNodesIgnoreTheSupervisorsEnvironment(t *testing.T) {
	got := nodeEnvironment([]string{"PATH=/bin", "MAESTRO_DATA_DIR=/x", "MAESTRO_LOG_LEVEL=debug"})
	if want := []string{"PATH=/bin", "MAESTRO_LOG_LEVEL=debug"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestRegionsOfOtherSizes(t *testing.T) {
	dir := t.TempDir()
	r, err := prepare(Options{Dir: dir, Nodes: 5})
	if err != nil {
		t.Fatal(err)
	}
	if n := len(r.State().Regions[0].Nodes); n != 5 || len(r.Context().Endpoints) != 5 {
		t.Errorf("%d nodes, endpoints %v", n, r.Context().Endpoints)
	}
	_ = r.lock.Close()
	if _, err := prepare(Options{Dir: dir, Nodes: 3}); !errors.Is(err, ErrStart) || !strings.Contains(err.Error(), "started with 5 nodes") {
		t.Errorf("as a region of three: %v", err)
	}
	if _, err := prepare(Options{Dir: t.TempDir(), Nodes: 4}); !errors.Is(err, ErrStart) {
		t.Errorf("a region of four: %v", err)
	}
	again, err := prepare(Options{Dir: dir})
	if err != nil || len(again.State().Regions[0].Nodes) != 5 {
		t.Fatalf("as it was: %v", err)
	}
	_ = again.lock.Close()
}

// A region whose first node was replaced goes on with its successor in its place, and never uses
// the name of the old one again.
func TestARetiredNodeStaysAway(t *testing.T) {
	dir := t.TempDir()
	binary := filepath.Join(dir, "sleeper")
	if err := os.WriteFile(binary, []byte("#!/bin/sh\nexec sleep 600\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	r := lay(t, Options{Dir: dir, Binary: binary})
	running := func(ids ...string) {
		for _, id := range ids {
			r.run(id)
		}
	}
	running("node-1", "node-2", "node-3")
	defer func() {
		for _, p := range r.nodes {
			p.stop()
			<-p.ended
		}
	}()
	id, err := r.freeID()
	if err != nil || id != "node-4" {
		t.Fatalf("the next node is %q, %v", id, err)
	}
	node := r.nodeState(id, "127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3")
	node.Spare = true
	if err := r.change(func(s *RegionState) { s.Nodes = append(s.Nodes, node) }); err != nil {
		t.Fatal(err)
	}
	if err := r.writeConfigs(); err != nil {
		t.Fatal(err)
	}
	running("node-4")
	if err := r.Retire("node-1", "node-9"); err == nil {
		t.Error("nobody is a successor")
	}
	if err := r.Retire("node-1", "node-4"); err != nil {
		t.Fatal(err)
	}
	if endpoints := r.Context().Endpoints; len(endpoints) != 3 || endpoints[2] != node.API {
		t.Errorf("endpoints %v", endpoints)
	}
	if err := r.Signal("node-1", syscall.SIGKILL); err == nil {
		t.Error("the retired node is kept")
	}
	if id, err := r.freeID(); err != nil || id != "node-5" {
		t.Errorf("the next node is %q, %v", id, err)
	}
}
