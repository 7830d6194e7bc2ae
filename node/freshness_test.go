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
