package node

import (
	"context"
	"net/http"
	"sync"
	"testing"

	"connectrpc.com/connect"

	"github.com/maestro-conductor/maestro/api"
	clusterv1 "github.com/maestro-conductor/maestro/api/gen/mc/cluster/v1"
	limiterv1 "github.com/maestro-conductor/maestro/api/gen/mc/limiter/v1"
	"github.com/maestro-conductor/maestro/api/gen/mc/limiter/v1/limiterv1connect"
	"github.com/maestro-conductor/maestro/internal/certs"
	regions "github.com/maestro-conductor/maestro/internal/client"
	"github.com/maestro-conductor/maestro/limiter/client"
	"github.com/maestro-conductor/maestro/limiter/sidecar"
)

// lending is a region whose nodes lend.
func lending(t *testing.T) *testRegion {
	r := newRegion(t)
	r.run()
	return r
}

func (r *testRegion) setLimits(limits ...*limiterv1.Limit) {
	r.t.Helper()
	_, err := r.limiter(1).SetLimits(context.Background(), connect.NewRequest(&limiterv1.SetLimitsRequest{Limits: limits}))
	check(r.t, err)
}

func bucketOf(id, scope, selector, rate string, burst uint32) *limiterv1.Limit {
	return &limiterv1.Limit{Id: id, Scope: scope, Selector: selector, TokenBucket: &limiterv1.TokenBucket{Rate: rate, Burst: burst}}
}

// clientOptions are those of a client that goes to node i first.
func (r *testRegion) clientOptions(i int) client.Options {
	p := certs.AdminPaths(r.dir)
	o := client.Options{CAFile: certs.CAPath(r.dir), CertFile: p.Cert, KeyFile: p.Key}
	for k := range r.configs {
		o.Endpoints = append(o.Endpoints, "https://"+r.configs[(i+k)%len(r.configs)].API.Advertise)
	}
	return o
}

func (r *testRegion) newLimiter(i int, onFailure client.OnFailure) *client.Limiter {
	r.t.Helper()
	l, err := client.NewLimiter(client.LimiterOptions{Options: r.clientOptions(i), OnFailure: onFailure})
	check(r.t, err)
	r.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		l.Close(ctx)
	})
	return l
}

func (r *testRegion) checkThrough(l *client.Limiter, tenant, key string, cost uint32) client.Decision {
	r.t.Helper()
	d, err := l.Check(context.Background(), client.Request{Tenant: tenant, Key: key, Cost: cost})
	check(r.t, err)
	return d
}

func (r *testRegion) used(tenant string) uint32 {
	r.t.Helper()
	usage, err := r.limiter(0).Usage(context.Background(), connect.NewRequest(&limiterv1.UsageRequest{Tenant: tenant}))
	check(r.t, err)
	return usage.Msg.Levels[0].Used
}

// wantLeft takes what should be left of a limit, wherever it is held, and then nothing must be.
func (r *testRegion) wantLeft(tenant string, left uint32) {
	r.t.Helper()
	ask := func(cost uint32) bool {
		resp, err := r.limiter(2).Check(context.Background(), connect.NewRequest(&limiterv1.CheckRequest{Tenant: tenant, Cost: cost}))
		check(r.t, err)
		return resp.Msg.Allow
	}
	r.await("what is left", func() bool { return ask(left) })
	if ask(1) {
		r.t.Errorf("more than %d was left of the limit of %s", left, tenant)
	}
}

// awaitLocal asks until a check is decided in this process, and returns how many passed.
func (r *testRegion) awaitLocal(l *client.Limiter, tenant string) (passed uint32) {
	r.t.Helper()
	before := l.Stats().Local
	r.await("a check that the client decides", func() bool {
		if r.checkThrough(l, tenant, "", 1).Allow {
			passed++
		}
		return l.Stats().Local > before
	})
	return passed
}

// A client decides by itself, and what it gives back at its end is all that it has not used.
func TestAClientDecidesByItself(t *testing.T) {
	r := lending(t)
	r.setLimits(bucketOf("acme", "tenant", "acme", "250/d", 10_000))
	l := r.newLimiter(0, client.FailDeny)
	passed := r.awaitLocal(l, "acme")
	before := l.Stats()
	const more = 2000
	for range more {
		if r.checkThrough(l, "acme", "", 1).Allow {
			passed++
		}
	}
	after := l.Stats()
	if asked := after.Asked - before.Asked; asked > more/10 || after.Local-before.Local+asked != more {
		t.Errorf("of %d checks %d went to a node", more, asked)
	}
	l.Close(t.Context())
	r.wantLeft("acme", 10_000-passed)
}

// Two clients and a node beside them take exactly what the limit has: what idles at one comes back
// when another one lacks it.
func TestClientsAndNodesShareALimit(t *testing.T) {
	r := lending(t)
	r.setLimits(bucketOf("warm", "tenant", "warm", "250/d", 10_000), bucketOf("acme", "tenant", "acme", "13/d", 500))
	a, b := r.newLimiter(0, client.FailDeny), r.newLimiter(1, client.FailDeny)
	r.awaitLocal(a, "warm")
	r.awaitLocal(b, "warm")
	passed := 0
	round := func() (some bool) {
		for range 10 {
			for _, l := range []*client.Limiter{a, b} {
				if r.checkThrough(l, "acme", "", 1).Allow {
					passed, some = passed+1, true
				}
			}
			resp, err := r.limiter(2).Check(context.Background(), connect.NewRequest(&limiterv1.CheckRequest{Tenant: "acme", Cost: 1}))
			check(t, err)
			if resp.Msg.Allow {
				passed, some = passed+1, true
			}
		}
		return some
	}
	r.await("the limit to be used up", func() bool { round(); return passed >= 500 })
	for range 3 {
		round()
	}
	if used := r.used("acme"); used != 500 || passed != 500 {
		t.Errorf("%d used of 500, %d passed", used, passed)
	}
}

// A node that lacks tokens gets those that idle at a client of another node.
func TestTokensAreRecalledFromAClient(t *testing.T) {
	r := lending(t)
	r.setLimits(bucketOf("acme", "tenant", "acme", "3/d", 100))
	l := r.newLimiter(0, client.FailDeny)
	passed := r.awaitLocal(l, "acme")
	r.await("the rest of the limit", func() bool {
		resp, err := r.limiter(2).Check(context.Background(), connect.NewRequest(&limiterv1.CheckRequest{Tenant: "acme", Cost: 100 - passed}))
		check(t, err)
		return resp.Msg.Allow
	})
	if l.Stats().Recalled == 0 {
		t.Error("the client was not asked")
	}
	if d := r.checkThrough(l, "acme", "", 1); d.Allow {
		t.Errorf("then %+v", d)
	}
}

// A client hears of new limits, and that there are none any more.
func TestAClientFollowsTheLimits(t *testing.T) {
	r := lending(t)
	r.setLimits(bucketOf("acme", "tenant", "acme", "250/d", 10_000))
	l := r.newLimiter(0, client.FailDeny)
	passed := r.awaitLocal(l, "acme")
	r.setLimits(bucketOf("small", "tenant", "acme", "1/d", 3))
	r.await("the new limit", func() bool {
		d := r.checkThrough(l, "acme", "", 1)
		if d.Allow {
			passed++
		}
		return !d.Allow && d.LimitID == "small"
	})
	_, err := r.limiter(2).DeleteLimits(t.Context(), connect.NewRequest(&limiterv1.DeleteLimitsRequest{Ids: []string{"small"}}))
	check(t, err)
	passed += r.awaitLocal(l, "acme")
	l.Close(t.Context())
	r.wantLeft("acme", 10_000-passed)
}

// While no node answers, a client spends what it has, and then does as it was told; later it goes on.
func TestAClientWithoutItsRegion(t *testing.T) {
	r := lending(t)
	r.setLimits(bucketOf("acme", "tenant", "acme", "250/d", 10_000))
	open, deny := r.newLimiter(0, client.FailOpen), r.newLimiter(1, client.FailDeny)
	r.awaitLocal(open, "acme")
	r.awaitLocal(deny, "acme")
	for i := range 3 {
		r.Stop(i)
	}
	for _, l := range []*client.Limiter{open, deny} {
		r.await("the client to notice", func() bool { return !l.Stats().Connected })
		local := l.Stats().Local
		var d client.Decision
		for d.Source != client.SourceFailure { // ends when the lease is used up, or over
			d = r.checkThrough(l, "acme", "", 1)
		}
		s := l.Stats()
		if s.Local == local {
			t.Error("no token of the lease was spent")
		}
		if d.Allow != (l == open) || s.FailedOpen+s.FailedDeny != 1 || (s.FailedOpen == 1) != (l == open) {
			t.Errorf("%+v, %+v", d, s)
		}
	}
	for i := range 3 {
		r.Start(i)
	}
	r.awaitLocal(open, "acme")
	r.awaitLocal(deny, "acme")
}

// askLease sends one message of a holder and returns its answer.
func askLease(t *testing.T, c *regions.Client, m *limiterv1.LeaseRequest) *limiterv1.LeaseResponse {
	t.Helper()
	stream := c.Limiter().Lease(t.Context())
	m.Number = 1
	check(t, stream.Send(m))
	for {
		answer, err := stream.Receive()
		check(t, err)
		if answer.GetNumber() == 1 {
			check(t, stream.CloseRequest())
			check(t, stream.CloseResponse())
			return answer
		}
	}
}

// Nobody reaches the counters of another tenant, nor those that a check would not.
func TestLeasesStayWithTheirTenant(t *testing.T) {
	r := lending(t)
	r.setLimits(bucketOf("acme", "tenant", "acme", "25/d", 1000), bucketOf("globex", "tenant", "globex", "25/d", 1000))
	resp, err := r.tokens(0).CreateToken(t.Context(), connect.NewRequest(&clusterv1.CreateTokenRequest{Tenant: "acme", Role: api.RoleRunner}))
	check(t, err)
	admin, err := regions.New(r.clientOptions(0))
	check(t, err)
	defer admin.Close()
	acme, err := regions.New(client.Options{Endpoints: r.clientOptions(0).Endpoints, CAFile: certs.CAPath(r.dir), Token: resp.Msg.GetToken()})
	check(t, err)
	defer acme.Close()
	ask := func(c *regions.Client, tenant string, reports ...*limiterv1.LeaseReport) *limiterv1.LeaseResponse {
		return askLease(t, c, &limiterv1.LeaseRequest{Holder: 7, Tenant: tenant, Asks: []*limiterv1.LeaseAsk{{Reports: reports}}})
	}
	limitOf := func(c *regions.Client, tenant string) (limit uint64) {
		r.await("a route", func() bool {
			a := ask(c, tenant)
			if len(a.GetAnswers()) != 1 || !a.Answers[0].Lent {
				return false
			}
			limit = a.Answers[0].Levels[0].Limit
			return true
		})
		return limit
	}
	globex, own := limitOf(admin, "globex"), limitOf(acme, "acme")
	if a := ask(acme, "globex"); a.GetRefused().GetError().GetReason() != "tenant_foreign" {
		t.Errorf("another tenant: %v", a)
	}
	foreign := ask(acme, "acme", &limiterv1.LeaseReport{Limit: globex, Epoch: 1, Seq: 1, Want: 10})
	if len(foreign.GetAnswers()) != 1 || !foreign.Answers[0].Grants[0].Refused {
		t.Errorf("a limit that does not match: %v", foreign)
	}
	// A number is one holder of the platform's and another one of acme's.
	granted := ask(admin, "acme", &limiterv1.LeaseReport{Limit: own, Epoch: 1, Seq: 1, Want: 10})
	if len(granted.GetAnswers()) != 1 || granted.Answers[0].Grants[0].Granted != 10 {
		t.Fatalf("nothing granted: %v", granted)
	}
	stolen := ask(acme, "acme", &limiterv1.LeaseReport{Limit: own, Epoch: 1, Seq: 2, Returned: 10})
	if !stolen.Answers[0].Grants[0].Refused {
		t.Errorf("acme gives back what the platform holds: %v", stolen)
	}
}

// What dies with a client is missing until the deadline of its lease, and no longer.
func TestAClientThatDies(t *testing.T) {
	r := lending(t)
	r.setLimits(bucketOf("acme", "tenant", "acme", "25/d", 1000), bucketOf("fast", "tenant", "fast", "1000/s", 200))
	c, err := regions.New(r.clientOptions(0))
	check(t, err)
	defer c.Close()
	take := func(tenant string, n uint32) {
		var limit uint64
		r.await("a route", func() bool {
			a := askLease(t, c, &limiterv1.LeaseRequest{Holder: 9, Tenant: tenant, Asks: []*limiterv1.LeaseAsk{{}}})
			if len(a.GetAnswers()) != 1 || !a.Answers[0].Lent {
				return false
			}
			limit = a.Answers[0].Levels[0].Limit
			return true
		})
		a := askLease(t, c, &limiterv1.LeaseRequest{Holder: 9, Tenant: tenant, Asks: []*limiterv1.LeaseAsk{{
			Reports: []*limiterv1.LeaseReport{{Limit: limit, Epoch: 1, Seq: 1, Want: n}},
		}}})
		if len(a.GetAnswers()) != 1 || a.Answers[0].Grants[0].Granted != uint64(n) {
			t.Fatalf("granted: %v", a)
		}
	}
	ask := func(tenant string, cost uint32) bool {
		resp, err := r.limiter(2).Check(context.Background(), connect.NewRequest(&limiterv1.CheckRequest{Tenant: tenant, Cost: cost}))
		check(t, err)
		return resp.Msg.Allow
	}
	take("acme", 100)
	if ask("acme", 901) {
		t.Error("passed with tokens that are lent")
	}
	if !ask("acme", 900) {
		t.Error("what is not lent was denied")
	}
	take("fast", 100)
	r.await("the deadline of the lease", func() bool { return ask("fast", 200) })
}

// Two sidecars serve a limit to their machines, together exactly what it has, and give the rest back.
func TestSidecarsShareALimit(t *testing.T) {
	r := lending(t)
	r.setLimits(bucketOf("acme", "tenant", "acme", "25/d", 1000))
	type served struct {
		checks limiterv1connect.LimiterClient
		stream *client.Stream
		l      *client.Limiter
		stop   func()
	}
	start := func(i int) served {
		l := r.newLimiter(i, client.FailDeny)
		ln, err := sidecar.Listen("127.0.0.1:0")
		check(t, err)
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() { ended <- sidecar.Serve(ctx, l, "acme", ln) }()
		h2c := &http.Transport{Protocols: new(http.Protocols)}
		h2c.Protocols.SetUnencryptedHTTP2(true)
		stream, err := client.OpenLocal(ln.Addr().String())
		check(t, err)
		stop := sync.OnceFunc(func() {
			stream.Close()
			h2c.CloseIdleConnections()
			cancel()
			check(t, <-ended)
		})
		t.Cleanup(stop)
		return served{limiterv1connect.NewLimiterClient(&http.Client{Transport: h2c}, "http://"+ln.Addr().String()), stream, l, stop}
	}
	a, b := start(0), start(1)
	passed := uint32(0)
	r.await("half of the limit, and checks of both that no node saw", func() bool {
		for _, s := range []served{a, b} {
			resp, err := s.checks.CheckBatch(context.Background(), connect.NewRequest(&limiterv1.CheckBatchRequest{
				Checks: []*limiterv1.CheckRequest{{Cost: 1}, {Tenant: "acme", Cost: 2}, {Cost: 1}},
			}))
			check(t, err)
			for i, cost := range []uint32{1, 2, 1} {
				if resp.Msg.Results[i].GetDecision().GetAllow() {
					passed += cost
				}
			}
			answers, err := s.stream.Checks(context.Background(), []client.Request{{Cost: 1}, {Tenant: "acme", Cost: 1}})
			check(t, err)
			for _, a := range answers {
				if a.Allow {
					passed++
				}
			}
			one, err := s.checks.Check(context.Background(), connect.NewRequest(&limiterv1.CheckRequest{Cost: 1}))
			check(t, err)
			if one.Msg.Allow {
				passed++
			}
		}
		return passed >= 500 && a.l.Stats().Local > 0 && b.l.Stats().Local > 0
	})
	a.stop()
	b.stop()
	if passed < 1000 {
		r.wantLeft("acme", 1000-passed)
	}
}
