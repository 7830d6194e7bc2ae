package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"

	clusterv1 "github.com/maestro-conductor/maestro/api/gen/mc/cluster/v1"
	limiterv1 "github.com/maestro-conductor/maestro/api/gen/mc/limiter/v1"
	provenancev1 "github.com/maestro-conductor/maestro/api/gen/mc/provenance/v1"
	"github.com/maestro-conductor/maestro/internal/client"
	"github.com/maestro-conductor/maestro/internal/devregion"
)

const (
	// What goes on meanwhile, each second, beside the probers: a load that two cores carry
	// easily.
	replaceChecks    = 200
	replaceDocuments = 1000
	replaceBatch     = 100
	replaceSearches  = 20
	// replaceProbe is the probers' pause, and with that how exact a gap is: there are two for
	// each group, and every call is an entry of a log.
	replaceProbe = 50 * time.Millisecond
	// replacePatience is how long the clients behind the probers repeat a call.
	replacePatience = 2 * time.Second
	// replaceRest is how long clients keep asking for a node that is not there any more, until
	// they are told of the new one.
	replaceRest  = 3 * time.Second
	replaceLimit = 30 * time.Minute
)

// measureReplace replaces every node of a loaded region, one after the other, by one that was not
// there before, while clients go on: how long does it take, how long does a client that repeats
// its calls go without an answer, and is everything there that was acknowledged?
func measureReplace(ctx context.Context, b *bench) error {
	r, err := b.startReplacing(ctx)
	if err != nil {
		return err
	}
	normal, err := r.beside(ctx, func(ctx context.Context) error { return pause(ctx, b.window) })
	if err != nil {
		return err
	}
	normal.report(b, "normal", r.c)
	r.takeGaps() // connections were made in them
	during, err := r.beside(ctx, r.replaceAll)
	if err != nil {
		return err
	}
	during.report(b, "during", r.c)
	for i, what := range loads {
		b.report.scalar("replace."+what+".p99_ratio",
			float64(percentile(during[i].samples, 0.99))/float64(max(1, percentile(normal[i].samples, 0.99))), "times the normal p99", r.c)
	}
	return r.verify(ctx)
}

// replacing is the region whose nodes are replaced, and who uses it meanwhile.
type replacing struct {
	b       *bench
	c       config
	w       *writer
	probers []*prober
	probes  []probed // of each prober
	clients atomic.Pointer[[]*client.Client]
	// before is how many documents there were, acknowledged how many were since.
	before       uint32
	acknowledged atomic.Int64
	longest      map[string]time.Duration
	failed       int
	failure      error
}

func (b *bench) startReplacing(ctx context.Context) (*replacing, error) {
	if err := b.setLimits(ctx); err != nil {
		return nil, err
	}
	w, err := b.newWriter()
	if err != nil {
		return nil, err
	}
	r := &replacing{b: b, w: w, longest: map[string]time.Duration{}}
	if err := r.w.write(ctx, (b.replaced+ingestBatch-1)/ingestBatch); err != nil {
		return nil, err
	}
	groups, err := b.probedGroups(ctx)
	if err != nil {
		return nil, err
	}
	groups = append(groups, probed{group: "all shards", what: "search", call: r.search})
	for i := range probersAGroup * len(groups) {
		g := groups[i/probersAGroup]
		r.probes = append(r.probes, g)
		r.probers = append(r.probers, &prober{
			call: g.call, client: func() *client.Client { return r.client(i) }, pause: replaceProbe, limit: replacePatience,
		})
	}
	if err := r.meetNodes(); err != nil {
		return nil, err
	}
	if r.before, err = r.count(ctx); err != nil {
		return nil, err
	}
	r.c = config{
		"documents": r.before, "checks_per_s": replaceChecks, "documents_per_s": replaceDocuments, "searches_per_s": replaceSearches,
		"probers": len(r.probers), "probe_interval_ms": milliseconds(replaceProbe), "repeated_for_s": replacePatience.Seconds(),
	}
	return r, nil
}

// meetNodes gives the clients the endpoints that the region has now, as whoever runs a region
// changes the configuration of its clients.
func (r *replacing) meetNodes() error {
	clients, err := r.b.newClients(len(r.probers), true)
	if err == nil {
		r.clients.Store(&clients)
	}
	return err
}

func (r *replacing) client(i int) *client.Client {
	clients := *r.clients.Load()
	return clients[i%len(clients)]
}

// replaceAll replaces the nodes that there are.
func (r *replacing) replaceAll(ctx context.Context) error {
	began := time.Now()
	for _, node := range r.b.nodes() {
		if err := r.replace(ctx, node); err != nil {
			return fmt.Errorf("%s: %w", node.ID, err)
		}
	}
	r.b.report.scalar("replace.all", time.Since(began).Seconds(), "s, all nodes, new ones started and old ones stopped", r.c)
	for _, what := range []string{"check", "ingest", "search", "list limits"} {
		r.b.report.scalar("replace.gap."+name(what), milliseconds(r.longest[what]), "ms, longest without an answer", r.c)
	}
	c := r.c
	if r.failure != nil {
		c = with(c, "first", r.failure.Error())
	}
	r.b.report.scalar("replace.failed", float64(r.failed), "calls failed although repeated", c)
	return nil
}

// replace lets a new node take the place of one, and then stops that.
func (r *replacing) replace(ctx context.Context, old devregion.NodeState) error {
	b := r.b
	spare, err := b.region.StartSpare(ctx)
	if err != nil {
		return err
	}
	began := time.Now()
	var resp *connect.Response[clusterv1.ReplaceResponse]
	if _, err := until(ctx, callTimeout, spare.ID+" to be taken", func() bool {
		resp, err = r.client(0).Cluster().Replace(ctx, connect.NewRequest(&clusterv1.ReplaceRequest{
			OldName: old.ID, NewName: spare.ID, ClusterAddress: spare.Cluster,
		}))
		return err == nil
	}); err != nil {
		return err
	}
	if _, err := until(ctx, replaceLimit, spare.ID+" to take the place", func() bool {
		time.Sleep(100 * time.Millisecond)
		return r.done(ctx, resp.Msg.GetOldId(), resp.Msg.GetNewId())
	}); err != nil {
		return err
	}
	took := time.Since(began)
	if err := b.region.Retire(old.ID, spare.ID); err != nil {
		return err
	}
	if err := errors.Join(pause(ctx, replaceRest), r.meetNodes()); err != nil {
		return err
	}
	c := with(r.c, "old", old.ID, "new", spare.ID)
	gaps, where := r.takeGaps()
	for what, gap := range gaps {
		b.report.scalar("replace.node.gap."+name(what), milliseconds(gap), "ms, longest without an answer", with(c, "group", where[what]))
	}
	b.report.scalar("replace.node", took.Seconds(), "s from the request until every replica is where it belongs", c)
	fmt.Fprintf(os.Stderr, "  %s took the place of %s in %.0f s; longest without an answer: %v in %v\n", spare.ID, old.ID, took.Seconds(), gaps, where)
	return nil
}

// done tells whether a member has taken the place of another.
func (r *replacing) done(ctx context.Context, old, successor string) bool {
	ctx, cancel := context.WithTimeout(ctx, replacePatience)
	defer cancel()
	s, err := r.client(0).Cluster().Status(ctx, connect.NewRequest(&clusterv1.StatusRequest{}))
	if err != nil || !s.Msg.GetSettled() {
		return false
	}
	here := false
	for _, n := range s.Msg.GetNodes() {
		if n.GetId() == old {
			return false
		}
		here = here || n.GetId() == successor && n.GetReachable()
	}
	return here
}

// takeGaps returns the longest gap of each kind of call since it was called last, and where.
func (r *replacing) takeGaps() (gaps map[string]time.Duration, where map[string]string) {
	gaps, where = map[string]time.Duration{}, map[string]string{}
	for i, p := range r.probers {
		what := r.probes[i].what
		gap, at, failed, err := p.take()
		if gap >= gaps[what] {
			gaps[what], where[what] = gap, fmt.Sprintf("%s until %s", r.probes[i].group, at.Format(time.TimeOnly))
		}
		r.longest[what] = max(r.longest[what], gap)
		if r.failed += failed; r.failure == nil {
			r.failure = err
		}
	}
	return gaps, where
}

// loads are what goes on beside the probers.
var loads = [...]string{"check", "ingest", "search"}

// loadedRegion is the latencies of each.
type loadedRegion [len(loads)]measured

func (l loadedRegion) report(b *bench, when string, c config) {
	for i, what := range loads {
		b.report.latency("replace."+what+"."+when, l[i], c)
	}
}

// beside runs probers and loads while f does something.
func (r *replacing) beside(ctx context.Context, f func(context.Context) error) (loadedRegion, error) {
	loop, stop := context.WithCancel(ctx)
	defer stop()
	var all sync.WaitGroup
	for _, p := range r.probers {
		all.Go(func() { p.run(loop) })
	}
	var l loadedRegion
	errs := make([]error, len(loads))
	for i, load := range []struct {
		perSecond float64
		call      func(ctx context.Context, c *client.Client) error
	}{
		{replaceChecks, r.check}, {replaceDocuments / replaceBatch, r.ingest}, {replaceSearches, r.search},
	} {
		all.Go(func() {
			l[i], errs[i] = openLoop(loop, load.perSecond, replaceLimit, func(ctx context.Context, _, n int) error {
				// A call that is under way at the end of the loop comes to its own end.
				ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), callTimeout)
				defer cancel()
				return load.call(ctx, r.client(n))
			})
		})
	}
	err := f(ctx)
	stop()
	all.Wait()
	return l, errors.Join(append(errs, err)...)
}

// pause waits a while.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// name is a kind of call as part of a figure's name.
func name(what string) string { return strings.ReplaceAll(what, " ", "_") }

func (r *replacing) check(ctx context.Context, c *client.Client) error {
	_, err := c.Limiter().Check(ctx, connect.NewRequest(&limiterv1.CheckRequest{
		Tenant: benchTenant(rand.IntN(benchTenants)), Cost: 1, RequestId: client.NewRequestID(),
	}))
	return err
}

// ingest stores a batch. A repetition finds what the first try stored.
func (r *replacing) ingest(ctx context.Context, c *client.Client) error {
	resp, err := c.Provenance().Ingest(ctx, connect.NewRequest(&provenancev1.IngestRequest{
		Documents: r.w.batch(replaceBatch), RequestId: client.NewRequestID(),
	}))
	if err != nil {
		return err
	}
	if n := resp.Msg.GetIndexed() + resp.Msg.GetExisting(); n != replaceBatch {
		return fmt.Errorf("%d of %d documents were taken: %v", n, replaceBatch, resp.Msg)
	}
	r.acknowledged.Add(replaceBatch)
	return nil
}

// search must be answered by all shards, and find an execution that was stored before.
func (r *replacing) search(ctx context.Context, c *client.Client) error {
	req := queried("execution:%s", r.w.world.execution(rand.IntN(r.b.replaced)))
	req.RequireComplete = true
	resp, err := c.Provenance().Search(ctx, connect.NewRequest(req))
	if err == nil && !some(resp.Msg) {
		err = fmt.Errorf("a wrong answer: no document for %s", req.GetQuery())
	}
	return err
}

// count is how many documents the region has.
func (r *replacing) count(ctx context.Context) (uint32, error) {
	resp, err := search(ctx, r.client(0), &provenancev1.SearchRequest{Exact: true, Limit: 1})
	return resp.GetTotal().GetValue(), err
}

// verify looks for what was acknowledged, and compares replicas.
func (r *replacing) verify(ctx context.Context) error {
	found, err := r.count(ctx)
	if err != nil {
		return err
	}
	want := r.before + uint32(r.acknowledged.Load())
	r.b.report.scalar("replace.lost", float64(int64(want)-int64(found)), "documents acknowledged and not found", with(r.c, "found", found))
	if found < want {
		return fmt.Errorf("%d documents were acknowledged, %d are found", want, found)
	}
	ctx, cancel := context.WithTimeout(ctx, catchUpLimit)
	defer cancel()
	groups, err := r.b.region.CompareStates(ctx)
	if err != nil {
		return err
	}
	r.b.report.scalar("replace.equal", float64(groups), "groups whose replicas have equal state hashes afterwards", r.c)
	return nil
}
