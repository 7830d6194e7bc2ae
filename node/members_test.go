package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"

	clusterv1 "github.com/maestro-conductor/maestro/api/gen/mc/cluster/v1"
	limiterv1 "github.com/maestro-conductor/maestro/api/gen/mc/limiter/v1"
	provenancev1 "github.com/maestro-conductor/maestro/api/gen/mc/provenance/v1"
	"github.com/maestro-conductor/maestro/internal/certs"
	"github.com/maestro-conductor/maestro/internal/client"
)

// settlePatience bounds moves of replicas, which take some seconds each.
const settlePatience = 5 * time.Minute

// startAll starts a region of n seeds and waits until it serves and its members are written down.
// The fewer groups there are, the sooner all have moved.
func startAll(t *testing.T, n int, groups GroupCounts) *testRegion {
	t.Helper()
	r := newRegionOf(t, n)
	for i := range r.configs {
		r.configs[i].Groups = groups
	}
	r.run()
	r.await("the members to be written down", func() bool { return r.recordOf(0).NodesVersion > 0 && r.recordOf(0).PlacementVersion > 0 })
	return r
}

func (r *testRegion) recordOf(i int) record {
	r.t.Helper()
	var rec record
	_, err := readJSON(filepath.Join(r.configs[i].DataDir, recordFile), &rec)
	check(r.t, err)
	return rec
}

func (r *testRegion) status(i int) *clusterv1.StatusResponse {
	r.t.Helper()
	resp, err := r.cluster(i).Status(context.Background(), connect.NewRequest(&clusterv1.StatusRequest{}))
	if err != nil {
		return &clusterv1.StatusResponse{}
	}
	return resp.Msg
}

// awaitSettled waits until the region consists of these nodes, evenly loaded, and nothing moves.
func (r *testRegion) awaitSettled(i int, names ...string) *clusterv1.StatusResponse {
	r.t.Helper()
	var st *clusterv1.StatusResponse
	defer func() {
		if r.t.Failed() {
			r.t.Logf("the region: %v", st)
		}
	}()
	r.awaitFor(settlePatience, fmt.Sprintf("a settled region of %v", names), func() bool {
		st = r.status(i)
		var have []string
		for _, n := range st.GetNodes() {
			have = append(have, n.GetName())
		}
		slices.Sort(have)
		return st.GetSettled() && slices.Equal(have, names)
	})
	load, leads := map[string]int{}, map[string]int{}
	for _, g := range st.GetGroups() {
		if len(g.GetVoters()) != min(3, len(names)) {
			r.t.Errorf("group %s votes on %v", g.GetName(), g.GetVoters())
		}
		for _, v := range g.GetVoters() {
			load[v]++
		}
		leads[g.GetPreferred()]++
		if g.GetName() == metaName && len(g.GetVoters())+len(g.GetLearners()) != len(names) {
			r.t.Errorf("meta is on %v and %v", g.GetVoters(), g.GetLearners())
		}
	}
	for what, of := range map[string]map[string]int{"voters": load, "preferred leaders": leads} {
		least, most := of[names[0]], of[names[0]]
		for _, n := range names {
			least, most = min(least, of[n]), max(most, of[n])
		}
		if most-least > 1 {
			r.t.Errorf("%s are uneven: %v", what, of)
		}
	}
	return st
}

func (r *testRegion) add(at, i int) (*clusterv1.AddResponse, error) {
	c := r.configs[i]
	resp, err := r.cluster(at).Add(context.Background(), connect.NewRequest(&clusterv1.AddRequest{Name: c.Name, ClusterAddress: c.Cluster.Advertise}))
	if err != nil {
		return nil, err
	}
	return resp.Msg, nil
}

// load is a caller that checks, ingests and searches through all nodes, and counts what failed
// although it was repeated.
type load struct {
	t                      *testing.T
	client                 *client.Client
	stop                   context.CancelFunc
	running                sync.WaitGroup
	checks, docs, searches atomic.Int64
	longest                atomic.Int64
}

func (r *testRegion) startLoad() *load {
	r.t.Helper()
	p := certs.AdminPaths(r.dir)
	o := client.Options{CAFile: certs.CAPath(r.dir), CertFile: p.Cert, KeyFile: p.Key}
	for _, c := range r.configs {
		o.Endpoints = append(o.Endpoints, "https://"+c.API.Advertise)
	}
	c, err := client.New(o)
	check(r.t, err)
	_, err = c.Limiter().SetLimits(r.t.Context(), connect.NewRequest(&limiterv1.SetLimitsRequest{Limits: []*limiterv1.Limit{
		{Id: "acme", Scope: "tenant", Selector: "acme", TokenBucket: &limiterv1.TokenBucket{Rate: "1000000/s", Burst: 1000000}},
	}, RequestId: "load"}))
	check(r.t, err)
	ctx, cancel := context.WithCancel(r.t.Context())
	l := &load{t: r.t, client: c, stop: cancel}
	each := func(what string, count *atomic.Int64, call func(ctx context.Context, i int) error) {
		l.running.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				began := time.Now()
				one, done := context.WithTimeout(context.Background(), patience)
				err := call(one, i)
				done()
				if err != nil {
					r.t.Errorf("%s %d failed: %v", what, i, err)
					return
				}
				l.longest.Store(max(l.longest.Load(), int64(time.Since(began))))
				count.Add(1)
			}
		})
	}
	each("check", &l.checks, func(ctx context.Context, i int) error {
		_, err := c.Limiter().Check(ctx, connect.NewRequest(&limiterv1.CheckRequest{Tenant: "acme", Cost: 1, RequestId: fmt.Sprint("check-", i)}))
		return err
	})
	each("ingest", &l.docs, func(ctx context.Context, i int) error {
		id := fmt.Sprint("doc-", i)
		resp, err := c.Provenance().Ingest(ctx, connect.NewRequest(&provenancev1.IngestRequest{
			Tenant: "acme", RequestId: id, Documents: []*provenancev1.Document{{Id: id, Kind: "event", Tenant: "acme", Execution: "load"}},
		}))
		if err == nil && len(resp.Msg.GetRefusals()) > 0 {
			err = errors.New(resp.Msg.GetRefusals()[0].GetMessage())
		}
		return err
	})
	each("search", &l.searches, func(ctx context.Context, _ int) error {
		_, err := c.Provenance().Search(ctx, connect.NewRequest(&provenancev1.SearchRequest{Tenant: "acme", Query: "execution:load"}))
		return err
	})
	r.t.Cleanup(l.end)
	return l
}

// end stops the load.
func (l *load) end() {
	l.stop()
	l.running.Wait()
	l.client.Close()
	l.t.Logf("%d checks, %d documents, %d searches; the longest took %v", l.checks.Load(), l.docs.Load(), l.searches.Load(), time.Duration(l.longest.Load()))
}

// verify finds everything that was acknowledged.
func (l *load) verify(r *testRegion, i int) {
	l.t.Helper()
	p := certs.AdminPaths(r.dir)
	c, err := client.New(client.Options{
		Endpoints: []string{"https://" + r.configs[i].API.Advertise}, CAFile: certs.CAPath(r.dir), CertFile: p.Cert, KeyFile: p.Key,
	})
	check(l.t, err)
	defer c.Close()
	ctx, cancel := context.WithTimeout(l.t.Context(), patience)
	defer cancel()
	resp, err := c.Provenance().Search(ctx, connect.NewRequest(&provenancev1.SearchRequest{Tenant: "acme", Query: "execution:load"}))
	check(l.t, err)
	if got := int64(resp.Msg.GetTotal().GetValue()); got < l.docs.Load() {
		l.t.Errorf("%d documents were acknowledged, %d are found", l.docs.Load(), got)
	}
}

// Nodes are added to a loaded region, replaced, and removed again, and no request fails that is
// repeated.
func TestMembersComeAndGoUnderLoad(t *testing.T) {
	if testing.Short() {
		t.Skip("moves the replicas of a whole region several times")
	}
	r := startAll(t, 3, GroupCounts{Limiter: 1, Index: 1})
	r.awaitSettled(0, "node-1", "node-2", "node-3")
	l := r.startLoad()
	for _, name := range []string{"node-4", "node-5"} {
		i := r.spare()
		r.Start(i)
		r.await(name+" to listen", func() bool { _, err := r.add(0, i); return err == nil })
		again, err := r.add(1, i)
		if err != nil || again.GetStarted() {
			t.Errorf("adding %s twice: %v, %v", name, again, err)
		}
		r.await(name+" to be ready", func() bool { return r.ready(i) })
	}
	r.awaitSettled(4, "node-1", "node-2", "node-3", "node-4", "node-5")

	// A live node is replaced by one of another name.
	i := r.spare()
	r.Start(i)
	r.await("the replacement to begin", func() bool {
		_, err := r.cluster(3).Replace(context.Background(), connect.NewRequest(&clusterv1.ReplaceRequest{
			OldName: "node-2", NewName: "node-6", ClusterAddress: r.configs[i].Cluster.Advertise,
		}))
		return err == nil
	})
	r.awaitSettled(0, "node-1", "node-3", "node-4", "node-5", "node-6")

	// What was removed and left running does no harm, and says what it is, also after a restart.
	for range 2 {
		r.await("node-2 to know that it was removed", func() bool {
			_, err := r.cluster(1).Status(context.Background(), connect.NewRequest(&clusterv1.StatusRequest{}))
			return err != nil && strings.Contains(err.Error(), "removed from the region")
		})
		if r.ready(1) {
			t.Error("a removed node claims to be ready")
		}
		r.Stop(1)
		r.Start(1)
	}
	r.await("a removed node to be refused", func() bool {
		_, err := r.add(0, 1)
		return err != nil && strings.Contains(err.Error(), "has been removed")
	})

	for _, name := range []string{"node-1", "node-4"} {
		_, err := r.cluster(4).Remove(context.Background(), connect.NewRequest(&clusterv1.RemoveRequest{Name: name}))
		check(t, err)
	}
	st := r.awaitSettled(4, "node-3", "node-5", "node-6")
	if _, err := r.cluster(4).Remove(context.Background(), connect.NewRequest(&clusterv1.RemoveRequest{Name: "node-3"})); err == nil || !strings.Contains(err.Error(), "3 are needed") {
		t.Errorf("a third of three was removed: %v", err)
	}
	again, err := r.cluster(4).Remove(context.Background(), connect.NewRequest(&clusterv1.RemoveRequest{Name: "node-1"}))
	if err != nil || again.Msg.GetStarted() || !again.Msg.GetRemoved() {
		t.Errorf("removing node-1 twice: %v, %v", again, err)
	}
	l.end()
	for _, i := range []int{2, 4, 5} {
		l.verify(r, i)
	}
	if st.GetNodes()[0].GetState() != "active" {
		t.Errorf("status: %v", st.GetNodes())
	}
}

// A node that is dead and whose data is gone comes back under its name as another member.
func TestWipedNodeIsReplaced(t *testing.T) {
	r := startAll(t, 3, GroupCounts{Limiter: 1, Index: 1})
	l := r.startLoad()
	old := r.recordOf(2).Members[2].ID
	r.Stop(2)
	check(t, os.RemoveAll(r.configs[2].DataDir))
	r.Start(2)
	replace := func() (*connect.Response[clusterv1.ReplaceResponse], error) {
		return r.cluster(0).Replace(context.Background(), connect.NewRequest(&clusterv1.ReplaceRequest{OldName: "node-3", NewName: "node-3"}))
	}
	if _, err := r.add(0, 2); err == nil || connect.CodeOf(err) == connect.CodeAlreadyExists && !strings.Contains(err.Error(), old) {
		t.Errorf("a node was added under the name of another: %v", err)
	}
	var begun *connect.Response[clusterv1.ReplaceResponse]
	r.await("the replacement to begin", func() (ok bool) {
		var err error
		begun, err = replace()
		return err == nil
	})
	if begun.Msg.GetOldId() != old || begun.Msg.GetNewId() == old {
		t.Errorf("replace: %v", begun.Msg)
	}
	r.awaitSettled(0, "node-1", "node-2", "node-3")
	r.await("the new node-3 to be ready", func() bool { return r.ready(2) })
	again, err := replace()
	if err != nil || again.Msg.GetStarted() {
		t.Errorf("replacing twice: %v, %v", again, err)
	}
	if _, err := r.cluster(0).Replace(context.Background(), connect.NewRequest(&clusterv1.ReplaceRequest{OldName: "node-1", NewName: "node-1"})); err == nil || !strings.Contains(err.Error(), "itself") {
		t.Errorf("a node was replaced by itself: %v", err)
	}
	l.end()
	l.verify(r, 2)
}

// Nodes restart one after the other, under load, and no request fails that is repeated.
func TestRollingRestart(t *testing.T) {
	r := startAll(t, 3, GroupCounts{Limiter: 3, Index: 3})
	l := r.startLoad()
	for i := range 3 {
		before := l.checks.Load()
		r.Stop(i)
		r.await("checks without the node", func() bool { return l.checks.Load() > before+20 })
		r.Start(i)
		r.await("readiness", func() bool { return r.ready(i) })
	}
	before := l.docs.Load()
	r.await("documents after the restarts", func() bool { return l.docs.Load() > before+20 })
	l.end()
	for i := range 3 {
		l.verify(r, i)
	}
}

func TestRegionOfFive(t *testing.T) {
	r := startAll(t, 5, GroupCounts{Limiter: 3, Index: 3})
	st := r.awaitSettled(3, "node-1", "node-2", "node-3", "node-4", "node-5")
	hosted := 0
	for _, n := range st.GetNodes() {
		hosted += int(n.GetReplicas())
	}
	if hosted != 5+6*3 {
		t.Errorf("%d replicas are placed, want %d", hosted, 5+6*3)
	}
	l := r.startLoad()
	r.await("some load", func() bool { return l.docs.Load() > 20 && l.searches.Load() > 2 })
	// Leadership of a group goes where it is wanted.
	for _, g := range st.GetGroups() {
		if g.GetName() != "index-1" {
			continue
		}
		to := g.GetVoters()[slices.IndexFunc(g.GetVoters(), func(v string) bool { return v != g.GetPreferred() })]
		transfer := func(to string) error {
			_, err := r.cluster(0).Transfer(context.Background(), connect.NewRequest(&clusterv1.TransferRequest{Group: "index-1", Node: to}))
			return err
		}
		r.await(to+" to lead index-1", func() bool {
			for _, g := range r.status(0).GetGroups() {
				if g.GetName() == "index-1" && g.GetLeader() == to {
					return true
				}
			}
			_ = transfer(to) // fails while an election is going on
			return false
		})
		outside := slices.IndexFunc(r.configs, func(c Config) bool { return !slices.Contains(g.GetVoters(), c.Name) })
		if err := transfer(r.configs[outside].Name); connect.CodeOf(err) != connect.CodeFailedPrecondition {
			t.Errorf("transfer to a node without a vote: %v", err)
		}
	}
	l.end()
	l.verify(r, 4)
}

// A node that does not fit is refused with everything that is wrong, and nothing changes.
func TestUnfitNodesAreRefused(t *testing.T) {
	r := startAll(t, 3, GroupCounts{Limiter: 3, Index: 3})
	ctx := context.Background()
	i := r.spare()
	if _, err := r.add(0, i); err == nil || !strings.Contains(err.Error(), "cannot be asked") {
		t.Errorf("a node that does not run: %v", err)
	}
	good := r.configs[i]
	r.configs[i].Region, r.configs[i].Groups.Index, r.configs[i].Services = "elsewhere", 4, []string{ServiceIndex}
	r.Start(i)
	var err error
	r.await("the node to answer", func() bool {
		_, err = r.add(0, i)
		return reasonOf(err) == "node_unfit" && !strings.Contains(err.Error(), "cannot be asked")
	})
	for _, want := range []string{`the region "elsewhere"`, "4 index groups", "services [index]"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is missing in: %v", want, err)
		}
	}
	r.Stop(i)
	r.configs[i] = good
	_, err = r.cluster(0).Add(ctx, connect.NewRequest(&clusterv1.AddRequest{Name: "node-9", ClusterAddress: r.configs[1].Cluster.Advertise}))
	if err == nil || !strings.Contains(err.Error(), `certificate is of node "node-2"`) {
		t.Errorf("a name that the certificate does not carry: %v", err)
	}

	if _, err := r.cluster(0).Remove(ctx, connect.NewRequest(&clusterv1.RemoveRequest{Name: "node-9"})); connect.CodeOf(err) != connect.CodeNotFound {
		t.Errorf("removing nobody: %v", err)
	}
	if _, err := r.cluster(0).Replace(ctx, connect.NewRequest(&clusterv1.ReplaceRequest{OldName: "node-9", NewName: "node-4"})); connect.CodeOf(err) != connect.CodeNotFound {
		t.Errorf("replacing nobody: %v", err)
	}
	if _, err := r.cluster(0).Transfer(ctx, connect.NewRequest(&clusterv1.TransferRequest{Group: "index-9", Node: "node-1"})); connect.CodeOf(err) != connect.CodeNotFound {
		t.Errorf("transfer of no group: %v", err)
	}
	if n := len(r.status(0).GetNodes()); n != 3 {
		t.Errorf("the region has %d nodes", n)
	}
}

// hello answers of nodes that fit in one way or another.
func TestFitProblems(t *testing.T) {
	n := &Node{boot: &bootstrap{rec: &record{ClusterID: "c1", Region: "local", Limiter: 3, Index: 3, Services: []string{"index", "limiter"}, Members: []recordMember{{ID: "a.1", Name: "a"}}}}}
	m := n.boot.rec.membership()
	m.Removed = map[string]bool{"gone.1": true}
	good := hello{Name: "d", ID: "d.1", Level: 2, Plan: plan{Region: "local", Limiter: 3, Index: 3, Run: []string{"index", "limiter"}}}
	if p := n.fitProblems(&good, m, 2); len(p) > 0 {
		t.Errorf("a good node: %q", p)
	}
	for want, spoil := range map[string]func(*hello){
		"speaks level 1":             func(h *hello) { h.Level = 0 },
		"part of cluster c2":         func(h *hello) { h.Record = &record{ClusterID: "c2"} },
		"data folder is not empty":   func(h *hello) { h.Started = true },
		"was a member and has been":  func(h *hello) { h.ID = "gone.1" },
		"has been removed; empty it": func(h *hello) { h.Removed = true },
	} {
		h := good
		spoil(&h)
		want = strings.TrimSuffix(want, "; empty it")
		if p := n.fitProblems(&h, m, 2); len(p) != 1 || !strings.Contains(p[0], want) {
			t.Errorf("%s: %q", want, p)
		}
	}
}

// The data folders of a build before members starts, keeps its data, and is brought to what this
// build writes.
func TestFirstRecordIsUpgraded(t *testing.T) {
	r := newRegion(t)
	rec := record{Version: recordFirst, ClusterID: strings.Repeat("ab", 16), Region: "local", Limiter: 3, Index: 3, Services: []string{"index", "limiter"}}
	for i, c := range r.configs {
		id, err := openIdentity(c.DataDir, c.Name)
		check(t, err)
		rec.Members = append(rec.Members, recordMember{ID: id.id(), Name: c.Name, Cluster: c.Seeds[i].Cluster, API: c.Seeds[i].API})
	}
	for _, c := range r.configs {
		check(t, writeJSON(filepath.Join(c.DataDir, recordFile), rec))
	}
	// Two of three: the third may be of the old build still, so that nothing new is written.
	for i := range 2 {
		r.Start(i)
	}
	for i := range 2 {
		r.await("readiness", func() bool { return r.ready(i) })
	}
	_, err := r.cluster(0).Remove(context.Background(), connect.NewRequest(&clusterv1.RemoveRequest{Name: "node-1"}))
	if err == nil || !strings.Contains(err.Error(), "node-3") {
		t.Errorf("a change of members that node-3 may not understand: %v", err)
	}
	if rec := r.recordOf(0); rec.Version != recordFirst {
		t.Errorf("the record has version %d before node-3 was heard of", rec.Version)
	}
	r.Start(2)
	for i := range 3 {
		r.await("the record of every node to be brought up to date", func() bool {
			rec := r.recordOf(i)
			return rec.Version == recordVersion && rec.NodesVersion > 0 && len(rec.Placement) == 7 && len(rec.Members) == 3
		})
	}
	r.awaitSettled(2, "node-1", "node-2", "node-3")
}

// A data folder that was removed stays out of it without asking anybody.
func TestRemovedNodeStaysOut(t *testing.T) {
	r := newRegionOf(t, 1)
	id, err := openIdentity(r.configs[0].DataDir, "node-1")
	check(t, err)
	id.Removed = true
	check(t, writeJSON(filepath.Join(r.configs[0].DataDir, identityFile), id))
	check(t, writeJSON(filepath.Join(r.configs[0].DataDir, recordFile), record{Version: recordVersion, ClusterID: strings.Repeat("ab", 16)}))
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- Run(ctx, r.configs[0], slog.New(slog.NewTextHandler(io.Discard, nil))) }()
	r.await("the node to say what it is", func() bool {
		resp, err := http.Get("http://" + r.configs[0].Admin.Listen + "/readyz")
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		return err == nil && strings.Contains(string(text), "removed from the region")
	})
	select {
	case err := <-ended:
		t.Fatalf("it ended by itself: %v", err)
	default:
	}
	cancel()
	check(t, <-ended)
}
