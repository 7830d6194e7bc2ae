package node

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"

	clusterv1 "github.com/maestro-conductor/maestro/api/gen/mc/cluster/v1"
	"github.com/maestro-conductor/maestro/api/gen/mc/cluster/v1/clusterv1connect"
	limiterv1 "github.com/maestro-conductor/maestro/api/gen/mc/limiter/v1"
	"github.com/maestro-conductor/maestro/api/gen/mc/limiter/v1/limiterv1connect"
	"github.com/maestro-conductor/maestro/internal/certs"
	"github.com/maestro-conductor/maestro/internal/testport"
)

const patience = 2 * time.Minute

// testRegion is some nodes in this process, on real ports and folders.
type testRegion struct {
	t       *testing.T
	dir     string
	placed  int
	configs []Config
	stop    []func() error
	nodes   []*atomic.Pointer[Node] // as they run
	admin   *http.Client
}

func newRegion(t *testing.T) *testRegion { return newRegionOf(t, 3) }

// newRegionOf prepares a region of n seeds.
func newRegionOf(t *testing.T, n int) *testRegion { return newRegionNamed(t, n, 0) }

// newRegionNamed prepares a region of n seeds, whose names count on after a number.
func newRegionNamed(t *testing.T, n, after int) *testRegion {
	t.Helper()
	r := &testRegion{t: t, dir: t.TempDir(), placed: after}
	check(t, certs.CreateCA(r.dir))
	check(t, certs.IssueAdmin(r.dir))
	r.admin = r.newAdmin()
	var seeds []Seed
	for range n {
		seeds = append(seeds, r.place())
	}
	for _, s := range seeds {
		r.configure(s, seeds)
	}
	t.Cleanup(func() {
		for i := range r.stop {
			r.Stop(i)
		}
		r.admin.CloseIdleConnections()
	})
	return r
}

// place gives the next node a name, a certificate and addresses.
func (r *testRegion) place() Seed {
	r.t.Helper()
	r.placed++
	name := fmt.Sprintf("node-%d", r.placed)
	check(r.t, certs.IssueNode(r.dir, name, []string{"127.0.0.1"}))
	return Seed{Name: name, Cluster: testport.Address(r.t), API: testport.Address(r.t)}
}

// configure appends a node's configuration and returns its number.
func (r *testRegion) configure(s Seed, seeds []Seed) int {
	r.t.Helper()
	c := DefaultConfig()
	p := certs.NodePaths(r.dir, s.Name)
	c.Name, c.DataDir, c.Seeds = s.Name, filepath.Join(r.dir, "data-"+s.Name), seeds
	c.API, c.Cluster = Listener{Listen: s.API, Advertise: s.API}, Listener{Listen: s.Cluster, Advertise: s.Cluster}
	c.Admin.Listen = testport.Address(r.t)
	c.Disk = DiskConfig{BallastBytes: 1 << 20, LowBytes: 64 << 20}
	c.TLS = TLSFiles{CA: certs.CAPath(r.dir), Cert: p.Cert, Key: p.Key}
	r.configs = append(r.configs, c)
	r.stop = append(r.stop, nil)
	r.nodes = append(r.nodes, &atomic.Pointer[Node]{})
	return len(r.configs) - 1
}

// spare configures a node that joins, and returns its number.
func (r *testRegion) spare() int {
	r.t.Helper()
	i := r.configure(r.place(), r.configs[0].Seeds)
	r.configs[i].Groups = r.configs[0].Groups
	return i
}

func (r *testRegion) Start(i int) {
	r.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	out := io.Discard
	if os.Getenv("MAESTRO_TEST_LOG") != "" {
		out = os.Stderr
	}
	log := slog.New(slog.NewTextHandler(out, nil)).With("node", r.configs[i].Name)
	go func() {
		ended <- run(ctx, r.configs[i], log, r.nodes[i].Store)
	}()
	r.stop[i] = func() error {
		cancel()
		return <-ended
	}
}

func (r *testRegion) Stop(i int) {
	r.t.Helper()
	if r.stop[i] == nil {
		return
	}
	// No later request is lost on a connection to what was stopped.
	r.admin.CloseIdleConnections()
	check(r.t, r.stop[i]())
	r.stop[i] = nil
}

// newAdmin makes a client of all nodes with the administrator's certificate.
func (r *testRegion) newAdmin() *http.Client {
	r.t.Helper()
	p := certs.AdminPaths(r.dir)
	pair, err := tls.LoadX509KeyPair(p.Cert, p.Key)
	check(r.t, err)
	ca, err := os.ReadFile(certs.CAPath(r.dir))
	check(r.t, err)
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	return &http.Client{Timeout: patience, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{pair}}, ForceAttemptHTTP2: true,
	}}
}

func (r *testRegion) cluster(i int) clusterv1connect.ClusterClient {
	return clusterv1connect.NewClusterClient(r.admin, "https://"+r.configs[i].API.Advertise)
}

func (r *testRegion) limiter(i int) limiterv1connect.LimiterClient {
	return limiterv1connect.NewLimiterClient(r.admin, "https://"+r.configs[i].API.Advertise)
}

// await polls until ok.
func (r *testRegion) await(what string, ok func() bool) {
	r.t.Helper()
	r.awaitFor(patience, what, ok)
}

func (r *testRegion) awaitFor(patience time.Duration, what string, ok func() bool) {
	r.t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline.C:
			r.t.Fatalf("waited %v for %s", patience, what)
		case <-tick.C:
		}
	}
}

func (r *testRegion) ready(i int) bool {
	resp, err := http.Get("http://" + r.configs[i].Admin.Listen + "/readyz")
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// init starts the region through node i, once every seed listens.
func (r *testRegion) init(i int) *clusterv1.InitResponse {
	r.t.Helper()
	var out *clusterv1.InitResponse
	r.await("the region to start", func() bool {
		resp, err := r.cluster(i).Init(context.Background(), connect.NewRequest(&clusterv1.InitRequest{}))
		if err != nil {
			return false
		}
		out = resp.Msg
		return true
	})
	return out
}

// Seeds start in any order, the region starts once, through any of them, and then serves.
func TestRegionStartsOnce(t *testing.T) {
	r := newRegion(t)
	r.Start(2)
	r.await("node-3 to listen", func() bool {
		_, err := r.cluster(2).Status(context.Background(), connect.NewRequest(&clusterv1.StatusRequest{}))
		return connect.CodeOf(err) == connect.CodeFailedPrecondition
	})
	_, err := r.cluster(2).Init(context.Background(), connect.NewRequest(&clusterv1.InitRequest{}))
	if err == nil || !strings.Contains(err.Error(), "node-1") {
		t.Fatalf("init without the other seeds: %v", err)
	}
	r.Start(0)
	r.Start(1)
	first := r.init(2)
	if len(first.ClusterId) != 32 || !strings.HasPrefix(first.Token, "mct_") {
		t.Fatalf("init answered %+v", first)
	}
	for i := range 3 {
		r.await("readiness", func() bool { return r.ready(i) })
		_, err := r.cluster(i).Init(context.Background(), connect.NewRequest(&clusterv1.InitRequest{}))
		if connect.CodeOf(err) != connect.CodeAlreadyExists && connect.CodeOf(err) != connect.CodeFailedPrecondition {
			t.Errorf("second init through node %d: %v", i+1, err)
		}
		st, err := r.cluster(i).Status(context.Background(), connect.NewRequest(&clusterv1.StatusRequest{}))
		check(t, err)
		if st.Msg.ClusterId != first.ClusterId || len(st.Msg.Groups) != 7 || len(st.Msg.Nodes) != 3 {
			t.Errorf("status of node %d: %v", i+1, st.Msg)
		}
	}
}

// Limits set through one node decide at every other, and stand after all nodes restarted.
func TestLimitsHoldEverywhereAndSurvive(t *testing.T) {
	r := newRegion(t)
	r.run()
	ctx := context.Background()
	_, err := r.limiter(1).SetLimits(ctx, connect.NewRequest(&limiterv1.SetLimitsRequest{Limits: []*limiterv1.Limit{
		{Id: "acme", Scope: "tenant", Selector: "acme", TokenBucket: &limiterv1.TokenBucket{Rate: "1/d", Burst: 3}},
	}}))
	check(t, err)
	ask := func(i int) bool {
		resp, err := r.limiter(i).Check(ctx, connect.NewRequest(&limiterv1.CheckRequest{Tenant: "acme", Cost: 1}))
		check(t, err)
		return resp.Msg.Allow
	}
	for i := range 3 {
		if !ask(i) {
			t.Fatalf("check %d of 3 was denied", i+1)
		}
	}
	for i := range 3 {
		if ask(i) {
			t.Fatalf("a fourth check passed at node %d", i+1)
		}
	}
	for i := range 3 {
		r.Stop(i)
	}
	for i := range 3 {
		r.Start(i)
	}
	for i := range 3 {
		r.await("readiness", func() bool { return r.ready(i) })
		if ask(i) {
			t.Fatalf("after the restart a fourth check passed at node %d", i+1)
		}
	}
}

// A small limit of which a part is spent loses nothing of that while every node is replaced by
// its next run: exactly the rest passes.
func TestRestartsOfAllNodesAddNothing(t *testing.T) {
	r := startAll(t, 3, GroupCounts{Limiter: 3, Index: 1})
	ctx := context.Background()
	_, err := r.limiter(0).SetLimits(ctx, connect.NewRequest(&limiterv1.SetLimitsRequest{Limits: []*limiterv1.Limit{
		{Id: "hourly", Scope: "tenant", Selector: "acme", Window: &limiterv1.Window{Limit: 10, Length: "1h"}},
	}}))
	check(t, err)
	passed := 0
	ask := func(i int) {
		// With a request id, so that a retry takes nothing twice.
		req := &limiterv1.CheckRequest{Tenant: "acme", Cost: 1, RequestId: fmt.Sprint("request-", i)}
		r.await("a decision", func() bool {
			resp, err := r.limiter(i%3).Check(ctx, connect.NewRequest(req))
			if err == nil && resp.Msg.GetAllow() {
				passed++
			}
			return err == nil
		})
	}
	for i := range 4 {
		ask(i)
	}
	for i := range 3 {
		r.Stop(i)
		r.Start(i)
		r.await("readiness", func() bool { return r.ready(i) })
	}
	for i := 4; i < 24; i++ {
		ask(i)
	}
	if passed != 10 {
		t.Errorf("%d checks of 10 an hour passed, 4 of them before the nodes were restarted", passed)
	}
}

// A node whose data folder was emptied is another server, and is not let in under the old
// one's name.
func TestWipedNodeIsNotLetIn(t *testing.T) {
	r := newRegion(t)
	for i := range 3 {
		r.Start(i)
	}
	r.init(0)
	r.await("readiness", func() bool { return r.ready(2) })
	r.Stop(2)
	check(t, os.RemoveAll(r.configs[2].DataDir))
	r.Start(2)
	for range 3 {
		// It listens and says what it is, but takes part in nothing.
		r.await("the wiped node to listen", func() bool {
			_, err := r.cluster(2).Status(context.Background(), connect.NewRequest(&clusterv1.StatusRequest{}))
			return connect.CodeOf(err) == connect.CodeFailedPrecondition
		})
		if r.ready(2) {
			t.Fatal("the wiped node claims to be ready")
		}
	}
	if _, err := os.Stat(filepath.Join(r.configs[2].DataDir, recordFile)); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("the wiped node took the old record over: %v", err)
	}
}

// A node that lost its logs, but not its name, must not vote again: what it acknowledged and
// whom it voted for are gone.
func TestNodeWithoutItsLogsIsRefused(t *testing.T) {
	r := newRegion(t)
	for i := range 3 {
		r.Start(i)
	}
	r.init(0)
	r.await("readiness", func() bool { return r.ready(2) })
	r.Stop(2)
	for _, lost := range []string{"raft", "state"} {
		check(t, os.RemoveAll(filepath.Join(r.configs[2].DataDir, lost)))
	}
	err := Run(context.Background(), r.configs[2], slog.New(slog.NewTextHandler(io.Discard, nil)))
	if err == nil || !strings.Contains(err.Error(), "lost synced data") {
		t.Fatalf("a node without its logs started: %v", err)
	}
}

// What a data folder says must fit the configuration.
func TestDataFolderOfAnotherNode(t *testing.T) {
	r := newRegion(t)
	if _, err := openIdentity(r.configs[0].DataDir, "node-1"); err != nil {
		t.Fatal(err)
	}
	if _, err := openIdentity(r.configs[0].DataDir, "node-2"); err == nil || !strings.Contains(err.Error(), `belongs to node "node-1"`) {
		t.Errorf("folder of another node: %v", err)
	}
	check(t, os.MkdirAll(filepath.Join(r.configs[1].DataDir, "raft"), 0o700))
	if _, err := openIdentity(r.configs[1].DataDir, "node-2"); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("folder without identity: %v", err)
	}
	rec := record{Version: recordVersion, Region: "local", Limiter: 3, Index: 3, Services: []string{"index", "limiter"}, Members: []recordMember{{ID: "node-1.x", Name: "node-1"}}}
	for name, spoil := range map[string]func(*record, *Config){
		"does not list":  func(r *record, _ *Config) { r.Members[0].ID = "node-1.y" },
		"region":         func(_ *record, c *Config) { c.Region = "elsewhere" },
		"limiter":        func(_ *record, c *Config) { c.Groups.Limiter = 5 },
		"services":       func(_ *record, c *Config) { c.Services = []string{"limiter"} },
		"version":        func(r *record, _ *Config) { r.Version = 99 },
		"seed node-1 is": func(_ *record, c *Config) { c.Seeds = []Seed{{Name: "node-1", Cluster: "10.0.0.1:1"}} },
	} {
		bad, conf := rec, r.configs[0]
		bad.Members = append([]recordMember{}, rec.Members...)
		conf.Seeds = nil
		spoil(&bad, &conf)
		if err := bad.check(conf, "node-1.x"); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("record with another %s: %v", name, err)
		}
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
