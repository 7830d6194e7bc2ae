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
func (c *Client) callWithFailover(ctx context.Context, req connect.AnyRequest, next connect.UnaryFunc) (connect.AnyResponse, error) {
	repeatable := isRepeatable(req)
	var last *Error
	for tries := 1; ; tries++ {
		index := c.current.Load()
		attemptCtx, a := withAttempt(ctx, c.endpoints[index])
		resp, err := next(attemptCtx, req)
		if err == nil {
			return resp, nil
		}
		failure := newError(err, a)
		if ctx.Err() != nil {
			return nil, timedOut(failure, last)
		}
		if !failure.mayRetry(repeatable) {
			return nil, failure
		}
		c.moveOn(index)
		if failure.Outcome == OutcomeUnknown || last == nil || last.Outcome != OutcomeUnknown {
			last = failure // an unknown outcome is not forgotten over later definite ones
		}
		if !wait(ctx, pause(tries, len(c.endpoints), failure)) {
			return nil, timedOut(last, nil)
		}
	}
}

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
		*provenancev1.SearchRequest,
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
