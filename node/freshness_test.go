package node

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/maestro-conductor/maestro/api"
	clusterv1 "github.com/maestro-conductor/maestro/api/gen/mc/cluster/v1"
	"github.com/maestro-conductor/maestro/api/gen/mc/cluster/v1/clusterv1connect"
	commonv1 "github.com/maestro-conductor/maestro/api/gen/mc/common/v1"
	limiterv1 "github.com/maestro-conductor/maestro/api/gen/mc/limiter/v1"
	provenancev1 "github.com/maestro-conductor/maestro/api/gen/mc/provenance/v1"
	"github.com/maestro-conductor/maestro/api/gen/mc/provenance/v1/provenancev1connect"
	"github.com/maestro-conductor/maestro/internal/clock"
	"github.com/maestro-conductor/maestro/limiter"
)

// A confirmation counts from its beginning, a failed one not at all.
func TestFreshnessCountsFromTheBeginning(t *testing.T) {
	c := clock.NewManual(time.Unix(0, 0))
	var takes time.Duration
	var fails error
	f := newFreshness(c.Steady, func(context.Context) error { c.Advance(takes); return fails }, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	want := func(when string, fresh bool) {
		t.Helper()
		if got := f.Fresh(); got != fresh {
			t.Fatalf("%s: fresh is %v", when, got)
		}
	}
	want("before the first confirmation", false)
	takes = 400 * time.Millisecond
	check(t, f.once(t.Context(), c.Steady()))
	want("just confirmed", true)
	c.Advance(metaStaleAfter - takes)
	want("a second after the beginning", true)
	c.Advance(1)
	want("later", false)
	fails = errors.New("no leader")
	if err := f.once(t.Context(), c.Steady()); !errors.Is(err, fails) {
		t.Fatal(err)
	}
	want("after a failure", false)
	takes, fails = metaStaleAfter+1, nil
	check(t, f.once(t.Context(), c.Steady()))
	want("confirmed too slowly", false)

	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := f.AwaitFresh(ended); !errors.Is(err, api.ErrMetaStale) {
		t.Fatalf("waited until the end and got %v", err)
	}
	waited := make(chan error)
	go func() { waited <- f.AwaitFresh(t.Context()) }()
	takes = 0
	check(t, f.once(t.Context(), c.Steady()))
	check(t, <-waited)

	c.Advance(metaStaleAfter + 1)
	go func() { waited <- f.AwaitFresh(t.Context()) }()
	f.run(ended)
	if err := <-waited; !errors.Is(err, api.ErrMetaStale) {
		t.Fatalf("waited for what nobody confirms any more, and got %v", err)
	}
}

func reasonOf(err error) string {
	var e *connect.Error
	if !errors.As(err, &e) {
		return ""
	}
	for _, d := range e.Details() {
		if v, err := d.Value(); err == nil {
			if detail, ok := v.(*commonv1.ErrorDetail); ok {
				return detail.GetReason()
			}
		}
	}
	return ""
}

func (r *testRegion) tokens(i int) clusterv1connect.TokensClient {
	return clusterv1connect.NewTokensClient(r.admin, "https://"+r.configs[i].API.Advertise)
}

func withToken[T any](secret string, m *T) *connect.Request[T] {
	req := connect.NewRequest(m)
	req.Header().Set("Authorization", "Bearer "+secret)
	return req
}

// A token that is revoked at one node is soon refused by the others, and a node that is cut
// off from meta refuses everybody, but lets an administrator look at it.
func TestRevocationsReachEveryNode(t *testing.T) {
	r := newRegion(t)
	r.run()
	ctx := context.Background()
	create := func() *clusterv1.CreateTokenResponse {
		res, err := r.tokens(0).CreateToken(ctx, connect.NewRequest(&clusterv1.CreateTokenRequest{Tenant: "acme", Role: api.RoleOperator}))
		check(t, err)
		return res.Msg
	}
	revoked, kept := create(), create()
	call := func(i int, secret string) error {
		_, err := r.limiter(i).Check(ctx, withToken(secret, &limiterv1.CheckRequest{}))
		return err
	}
	for i := range 3 {
		check(t, call(i, revoked.GetToken()))
	}
	_, err := r.tokens(0).RevokeToken(ctx, connect.NewRequest(&clusterv1.RevokeTokenRequest{Id: revoked.GetInfo().GetId()}))
	check(t, err)
	for i := range 3 {
		r.await("the revocation", func() bool { return reasonOf(call(i, revoked.GetToken())) == "token_revoked" })
		check(t, call(i, kept.GetToken()))
	}

	r.Stop(1)
	r.Stop(2)
	base := "https://" + r.configs[0].API.Advertise
	search := provenancev1connect.NewProvenanceClient(r.admin, base)
	r.await("the lone node to know that it is cut off", func() bool { return reasonOf(call(0, kept.GetToken())) == "meta_stale" })
	for what, err := range map[string]error{
		"check":  call(0, kept.GetToken()),
		"search": second(search.Search(ctx, withToken(kept.GetToken(), &provenancev1.SearchRequest{}))),
		"ingest": second(search.Ingest(ctx, withToken(kept.GetToken(), &provenancev1.IngestRequest{}))),
		"limits": second(r.limiter(0).ListLimits(ctx, withToken(kept.GetToken(), &limiterv1.ListLimitsRequest{}))),
		"status": second(r.cluster(0).Status(ctx, withToken(kept.GetToken(), &clusterv1.StatusRequest{}))),
		"tokens, with the administrator's certificate": second(r.tokens(0).ListTokens(ctx, connect.NewRequest(&clusterv1.ListTokensRequest{}))),
	} {
		if reasonOf(err) != "meta_stale" || connect.CodeOf(err) != connect.CodeUnavailable {
			t.Errorf("%s at a node that is cut off: %v", what, err)
		}
	}
	if r.ready(0) {
		t.Error("a node that is cut off claims to be ready")
	}
	_, err = r.cluster(0).Status(ctx, connect.NewRequest(&clusterv1.StatusRequest{}))
	check(t, err)
	r.Start(1)
	r.await("service with a majority", func() bool { return call(0, kept.GetToken()) == nil })
	if got := reasonOf(call(0, revoked.GetToken())); got != "token_revoked" {
		t.Errorf("the revoked token gets %q afterwards", got)
	}
}

func second[T any](_ T, err error) error { return err }

// cutFromMeta lets a running node hear nothing from meta any more, while all else of it goes on; until mend.
func (r *testRegion) cutFromMeta(i int) (mend func()) {
	r.t.Helper()
	n := r.nodes[i].Load()
	whole := n.services.running.Load()
	cut := *whole
	cut.fresh = newFreshness(n.clock.Steady, nil, n.log, prometheus.NewRegistry())
	n.services.running.Store(&cut)
	return func() { n.services.running.Store(whole) }
}

// A node that is cut off from meta spends the leases that it holds and nothing else, until they end. What it
// let pass counts everywhere.
func TestChecksGoOnFromLeasesWithoutMeta(t *testing.T) {
	r := newRegion(t)
	r.run()
	ctx := context.Background()
	r.setLimits(bucketOf("acme", "tenant", "acme", "100/d", 1000), bucketOf("tiny", "tenant", "tiny", "10/d", 10))
	token, err := r.tokens(0).CreateToken(ctx, connect.NewRequest(&clusterv1.CreateTokenRequest{Tenant: "acme", Role: api.RoleRunner}))
	check(t, err)
	passed := uint32(0)
	ask := func(i int, m *limiterv1.CheckRequest) (*limiterv1.CheckResponse, error) {
		res, err := r.limiter(i).Check(ctx, withToken(token.Msg.GetToken(), m))
		if err != nil {
			return nil, err
		}
		passed += m.GetCost()
		return res.Msg, nil
	}
	one := &limiterv1.CheckRequest{Cost: 1}
	r.await("a check from a lease", func() bool {
		d, err := ask(2, one)
		return err == nil && d.GetSource() == limiter.SourceLease
	})

	mend := r.cutFromMeta(2)
	before := passed
	for {
		d, err := ask(2, one)
		if err != nil {
			if reasonOf(err) != "meta_stale" {
				t.Errorf("once its leases are spent: %v", err)
			}
			break
		}
		if !d.GetAllow() || d.GetSource() != limiter.SourceLease {
			t.Fatalf("at a node that is cut off: %v", d)
		}
	}
	if passed == before {
		t.Error("no check passed from leases")
	}
	for what, err := range map[string]error{
		"a check with a request id": second(ask(2, &limiterv1.CheckRequest{Cost: 1, RequestId: "r"})),
		"usage":                     second(r.limiter(2).Usage(ctx, withToken(token.Msg.GetToken(), &limiterv1.UsageRequest{}))),
		"a small limit":             second(r.limiter(2).Check(ctx, connect.NewRequest(&limiterv1.CheckRequest{Tenant: "tiny", Cost: 1}))),
	} {
		if reasonOf(err) != "meta_stale" {
			t.Errorf("%s at a node that is cut off: %v", what, err)
		}
	}
	r.await("the others to count what passed", func() bool { return r.used("acme") == passed })
	_, err = ask(0, one)
	check(t, err)

	mend()
	_, err = ask(2, one)
	check(t, err)
}
