package client

import (
	"context"
	"math/rand/v2"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"

	clusterv1 "github.com/maestro-conductor/maestro/api/gen/mc/cluster/v1"
	limiterv1 "github.com/maestro-conductor/maestro/api/gen/mc/limiter/v1"
	packagesv1 "github.com/maestro-conductor/maestro/api/gen/mc/packages/v1"
	provenancev1 "github.com/maestro-conductor/maestro/api/gen/mc/provenance/v1"
)

// attempt is one try of a call at one endpoint.
type attempt struct {
	endpoint *url.URL
	// sent is true once the request has left: before that, it certainly did nothing.
	sent atomic.Bool
}

type attemptKey struct{}

func withAttempt(ctx context.Context, endpoint *url.URL) (context.Context, *attempt) {
	a := &attempt{endpoint: endpoint}
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		WroteHeaderField: func(string, []string) { a.sent.Store(true) },
		WroteHeaders:     func() { a.sent.Store(true) },
	})
	return context.WithValue(ctx, attemptKey{}, a), a
}

// roundTripper sends a request to the endpoint of its attempt.
type roundTripper struct{ transport *http.Transport }

func (r roundTripper) RoundTrip(req *http.Request) (*http.Response, error) {
	if a, ok := req.Context().Value(attemptKey{}).(*attempt); ok {
		u := *req.URL
		u.Scheme, u.Host = a.endpoint.Scheme, a.endpoint.Host
		clone := *req
		clone.URL, clone.Host = &u, u.Host
		req = &clone
	}
	return r.transport.RoundTrip(req)
}

// callWithFailover tries one endpoint after the other until one answers, the answer is final
// or the context ends.
func (c *Client) callWithFailover(ctx context.Context, req connect.AnyRequest, next connect.UnaryFunc) (resp connect.AnyResponse, err error) {
	repeatable := isRepeatable(req)
	failure := c.Failover(ctx, repeatable, func() *Error {
		pinned, where := c.Pin(ctx)
		if resp, err = next(pinned, req); err != nil {
			failure := where.Explain(err)
			if ctx.Err() == nil && failure.mayRetry(repeatable) {
				where.MoveOn()
			}
			return failure
		}
		return nil
	})
	if failure != nil {
		return nil, failure
	}
	return resp, nil
}

// Failover calls try until it succeeds, its failure is final, or the context ends. A failure with an
// unknown outcome is final unless the call is repeatable. try moves on to the next endpoint itself.
func (c *Client) Failover(ctx context.Context, repeatable bool, try func() *Error) *Error {
	var last *Error
	for tries := 1; ; tries++ {
		failure := try()
		if failure == nil {
			return nil
		}
		if ctx.Err() != nil {
			return timedOut(failure, last)
		}
		if !failure.mayRetry(repeatable) {
			return failure
		}
		if failure.Outcome == OutcomeUnknown || last == nil || last.Outcome != OutcomeUnknown {
			last = failure // an unknown outcome is not forgotten over later definite ones
		}
		if !wait(ctx, pause(tries, len(c.endpoints), failure)) {
			return timedOut(last, nil)
		}
	}
}

// Pinned is one endpoint, chosen for the calls of one context.
type Pinned struct {
	client  *Client
	index   int64
	attempt *attempt
}

// Pin makes the calls of the returned context go to the endpoint that answered last.
func (c *Client) Pin(ctx context.Context) (context.Context, *Pinned) {
	index := c.current.Load()
	ctx, a := withAttempt(ctx, c.endpoints[index])
	return ctx, &Pinned{c, index, a}
}

// Explain says what a call that failed at this endpoint came to.
func (p *Pinned) Explain(err error) *Error { return newError(err, p.attempt) }

// MoveOn makes later calls begin at the next endpoint, unless another one has moved on already.
func (p *Pinned) MoveOn() { p.client.moveOn(p.index) }

// Endpoint is its address.
func (p *Pinned) Endpoint() string { return p.attempt.endpoint.String() }

// pause is how long to wait before the next try: not at all while there are endpoints not yet
// asked, and as long as the region wants when it said so.
func pause(tries, endpoints int, e *Error) time.Duration {
	if advised := time.Duration(e.RetryAfterMs) * time.Millisecond; advised > 0 {
		return min(advised, time.Second) + rand.N(backoffMin)
	}
	if tries%endpoints != 0 {
		return 0
	}
	return backoffMin + rand.N(backoffMax-backoffMin)
}

// wait sleeps for d and says whether the context is still good, and will be after it.
func wait(ctx context.Context, d time.Duration) bool {
	if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) <= d {
		return false
	}
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// isRepeatable says whether doing the call twice is the same as doing it once.
func isRepeatable(req connect.AnyRequest) bool {
	switch m := req.Any().(type) {
	case *limiterv1.CheckRequest:
		return m.GetRequestId() != "" || m.GetCost() == 0
	case *limiterv1.ReserveRequest:
		return m.GetRequestId() != ""
	case *limiterv1.AcquireRequest:
		return m.GetRequestId() != "" || m.GetId() != ""
	case *limiterv1.SetLimitsRequest:
		return m.GetRequestId() != ""
	case *limiterv1.DeleteLimitsRequest:
		return m.GetRequestId() != ""
	case *limiterv1.PeekRequest,
		*limiterv1.UsageRequest,
		*limiterv1.CommitRequest, // of these three the first one counts
		*limiterv1.CancelRequest,
		*limiterv1.RefundRequest,
		*limiterv1.ReleaseRequest,
		*limiterv1.ListLimitsRequest,
		*limiterv1.TopRequest,
		*limiterv1.GetModeRequest,
		*limiterv1.SetModeRequest,
		*packagesv1.BeginUploadRequest, // all of the catalog can be done again; a rollback cannot
		*packagesv1.UploadChunkRequest,
		*packagesv1.PublishRequest,
		*packagesv1.ListPackagesRequest,
		*packagesv1.GetPackageRequest,
		*packagesv1.DownloadRequest,
		*packagesv1.SignPackageRequest,
		*packagesv1.YankPackageRequest,
		*packagesv1.InstallRequest,
		*packagesv1.ListInstallsRequest,
		*packagesv1.LoadRequest,
		*packagesv1.AddKeyRequest,
		*packagesv1.ListKeysRequest,
		*packagesv1.RevokeKeyRequest,
		*packagesv1.ReachOfKeyRequest,
		*provenancev1.SearchRequest,
		*provenancev1.LookupRequest,
		*provenancev1.LineageRequest,
		*provenancev1.IngestRequest, // the same document again is "existing"
		*clusterv1.StatusRequest,
		*clusterv1.AddRequest, // changes of members say what shall be, not what shall change
		*clusterv1.RemoveRequest,
		*clusterv1.ReplaceRequest,
		*clusterv1.TransferRequest,
		*clusterv1.DescribeRequest,
		*clusterv1.ExportRequest,
		*clusterv1.ImportRequest, // steps name their place in the backup
		*clusterv1.ListTokensRequest,
		*clusterv1.RevokeTokenRequest:
		return true
	}
	return false
}
