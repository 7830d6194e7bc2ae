package api

import (
	"context"
	"math"
	"slices"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	descriptorv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	rlsv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/maestro-conductor/maestro/api/envoymap"
	"github.com/maestro-conductor/maestro/internal/ratelimitheader"
	"github.com/maestro-conductor/maestro/limiter"
)

// envoyAsk is one descriptor on its way.
type envoyAsk struct {
	limiter.Part
	matched  bool
	decision limiter.Decision
}

// shouldRateLimit answers Envoy's global rate limit filter. An error makes the filter do what its
// failure_mode_deny says; a denial is an answer.
func (s *server) shouldRateLimit(ctx context.Context, c *call, r *rlsv3.RateLimitRequest) (*rlsv3.RateLimitResponse, error) {
	if s.deps.Checker == nil {
		return nil, ErrServiceOff
	}
	if s.deps.Envoy == nil {
		return nil, refuse(reasonServiceOff, "this node's configuration names no envoy_mapping")
	}
	domain, ok := s.deps.Envoy.Domain(r.GetDomain())
	if !ok {
		return nil, refuse(reasonEnvoyDomain, "the domain %q is not known", r.GetDomain())
	}
	if len(r.GetDescriptors()) == 0 {
		return nil, refuse(reasonFieldMalformed, "descriptors: there is none, so that there is nothing to decide")
	}
	if f := withinItems("descriptors", len(r.GetDescriptors()), limiter.TogetherMax); f != nil {
		return nil, f
	}
	asks := make([]envoyAsk, len(r.GetDescriptors()))
	decidable := true
	for i, d := range r.GetDescriptors() {
		var f *fault
		if asks[i], f = envoyAskOf(domain, r, d); f != nil {
			return nil, refuse(f.reason, "descriptors[%d].%s", i, f.message)
		}
		// What a caller may not reach is as foreign to the file as what it does not name: an error
		// would let it pass where Envoy fails open.
		asks[i].matched = asks[i].matched && mayReach(c.principal, asks[i].Tenant) == nil
		decidable = decidable && (asks[i].matched || domain.AllowUnmatched)
	}
	if decidable {
		start := time.Now()
		if err := s.decideEnvoy(ctx, c, asks); err != nil {
			return nil, err
		}
		for i := range asks {
			withoutGlobals(c.principal, &asks[i].decision)
		}
		s.metrics.checkMs.Observe(milliseconds(time.Since(start)))
		s.deps.Load.Answered(time.Since(c.start))
	}
	return s.envoyResponse(r.GetDomain(), asks, decidable, domain.AllowUnmatched), nil
}

// envoyAskOf reads a descriptor.
func envoyAskOf(domain *envoymap.Domain, r *rlsv3.RateLimitRequest, d *descriptorv3.RateLimitDescriptor) (envoyAsk, *fault) {
	switch {
	case d.GetIsNegativeHits():
		return envoyAsk{}, refuse(reasonFieldMalformed, "is_negative_hits: tokens are not given back this way")
	case d.GetLimit() != nil:
		return envoyAsk{}, refuse(reasonFieldMalformed, "limit: limits are set in the region; take the override out of Envoy's configuration")
	}
	hits, peek := uint64(max(1, r.GetHitsAddend())), false
	if own := d.GetHitsAddend(); own != nil {
		hits, peek = max(1, own.GetValue()), own.GetValue() == 0
	}
	if hits > math.MaxUint32 {
		return envoyAsk{}, refuse(reasonFieldMalformed, "hits_addend: %d is above %d", hits, uint32(math.MaxUint32))
	}
	entries := make([]envoymap.Entry, len(d.GetEntries()))
	for i, e := range d.GetEntries() {
		entries[i] = envoymap.Entry{Key: e.GetKey(), Value: e.GetValue()}
	}
	q, ok := domain.Check(entries, uint32(hits))
	return envoyAsk{Part: limiter.Part{Request: q, Peek: peek}, matched: ok}, nil
}

// decideEnvoy decides the descriptors that are checks: those of one tenant in one step, those of
// several tenants side by side.
func (s *server) decideEnvoy(ctx context.Context, c *call, asks []envoyAsk) error {
	byTenant := map[string][]*envoyAsk{}
	for i := range asks {
		if asks[i].matched {
			byTenant[asks[i].Tenant] = append(byTenant[asks[i].Tenant], &asks[i])
		}
	}
	all, ctx := errgroup.WithContext(ctx)
	for _, of := range byTenant {
		all.Go(func() error { return s.decideTenant(ctx, c.fork(), of) })
	}
	return all.Wait()
}

func (s *server) decideTenant(ctx context.Context, c *call, asks []*envoyAsk) (err error) {
	if len(asks) == 1 && !asks[0].Peek {
		asks[0].decision, err = s.checkOne(ctx, c, asks[0].Request)
		return err
	}
	parts := make([]limiter.Part, len(asks))
	for i, a := range asks {
		parts[i] = a.Part
	}
	decisions, err := s.checkTogether(ctx, c, parts)
	if err != nil {
		return err
	}
	for i := range asks {
		asks[i].decision = decisions[i]
	}
	return nil
}

// envoyResponse tells Envoy what was decided. Without decisions a descriptor that is no check has
// denied the request, and nothing is known of the others.
func (s *server) envoyResponse(domain string, asks []envoyAsk, decided, allowUnmatched bool) *rlsv3.RateLimitResponse {
	res := &rlsv3.RateLimitResponse{
		OverallCode: rlsv3.RateLimitResponse_OK,
		Statuses:    make([]*rlsv3.RateLimitResponse_DescriptorStatus, len(asks)),
	}
	var decisions []limiter.Decision
	var retryAfterMs uint32
	for i := range asks {
		a := &asks[i]
		status, result := &rlsv3.RateLimitResponse_DescriptorStatus{Code: rlsv3.RateLimitResponse_OK}, "ok"
		switch {
		case !a.matched:
			result = "unmatched"
			if !allowUnmatched {
				status.Code = rlsv3.RateLimitResponse_OVER_LIMIT
			}
		case !decided:
			status.Code, result = rlsv3.RateLimitResponse_UNKNOWN, "unknown"
		default:
			s.metrics.decided(&a.decision)
			decisions = append(decisions, a.decision)
			status = s.envoyStatus(&a.decision)
			retryAfterMs = max(retryAfterMs, a.decision.RetryAfterMs)
			if !a.decision.Allow {
				result = "over_limit"
			}
		}
		s.metrics.descriptors.WithLabelValues(domain, result).Inc()
		if res.Statuses[i] = status; status.Code == rlsv3.RateLimitResponse_OVER_LIMIT {
			res.OverallCode = rlsv3.RateLimitResponse_OVER_LIMIT
		}
	}
	quotas := ratelimitheader.Of(s.deps.Checker.Limit, decisions...)
	if len(quotas) > 0 {
		res.ResponseHeadersToAdd = append(res.ResponseHeadersToAdd,
			&corev3.HeaderValue{Key: ratelimitheader.Policy, Value: ratelimitheader.Policies(quotas)},
			&corev3.HeaderValue{Key: ratelimitheader.Limit, Value: ratelimitheader.Limits(quotas)})
	}
	if retryAfterMs > 0 {
		res.ResponseHeadersToAdd = append(res.ResponseHeadersToAdd,
			&corev3.HeaderValue{Key: ratelimitheader.RetryAfter, Value: ratelimitheader.RetryIn(retryAfterMs)})
	}
	return res
}

// envoyStatus shows the level that denies, or the one that has least left.
func (s *server) envoyStatus(d *limiter.Decision) *rlsv3.RateLimitResponse_DescriptorStatus {
	status := &rlsv3.RateLimitResponse_DescriptorStatus{Code: rlsv3.RateLimitResponse_OK}
	if !d.Allow {
		status.Code = rlsv3.RateLimitResponse_OVER_LIMIT
		if d.RetryAfterMs > 0 {
			status.DurationUntilReset = durationpb.New(time.Duration(d.RetryAfterMs) * time.Millisecond)
		}
	}
	var shown *limiter.Level
	for i := range d.Levels {
		l := &d.Levels[i]
		if l.Shadow || l.Kind == limiter.KindUnlimited || l.Kind == limiter.KindBanned {
			continue
		}
		if !d.Allow && l.LimitID == d.LimitID && l.Kind == d.Kind {
			shown = l
			break
		}
		if shown == nil || l.Remaining < shown.Remaining {
			shown = l
		}
	}
	if !d.Allow && d.LimitID != "" && !slices.ContainsFunc(d.Levels, func(l limiter.Level) bool { return l.LimitID == d.LimitID }) {
		status.CurrentLimit = &rlsv3.RateLimitResponse_RateLimit{Name: d.LimitID} // one of all tenants: see withoutGlobals
		return status
	}
	if shown == nil {
		return status
	}
	status.LimitRemaining = shown.Remaining
	status.CurrentLimit = &rlsv3.RateLimitResponse_RateLimit{Name: shown.LimitID, RequestsPerUnit: shown.Limit}
	if l, ok := s.deps.Checker.Limit(shown.LimitID); ok {
		envoyUnit(status.CurrentLimit, l, shown.Kind)
	}
	return status
}

var envoyUnits = []struct {
	length time.Duration
	unit   rlsv3.RateLimitResponse_RateLimit_Unit
}{
	{24 * time.Hour, rlsv3.RateLimitResponse_RateLimit_DAY},
	{time.Hour, rlsv3.RateLimitResponse_RateLimit_HOUR},
	{time.Minute, rlsv3.RateLimitResponse_RateLimit_MINUTE},
	{time.Second, rlsv3.RateLimitResponse_RateLimit_SECOND},
}

// envoyUnit says how fast the limit gives back, where Envoy has a unit for that.
func envoyUnit(to *rlsv3.RateLimitResponse_RateLimit, l limiter.Limit, kind string) {
	tokens, period := l.Pace(kind)
	switch {
	case tokens == 0:
		return
	case kind == limiter.KindCalendar && period == 0:
		to.RequestsPerUnit, to.Unit = tokens, rlsv3.RateLimitResponse_RateLimit_MONTH
		return
	case period < time.Second && time.Second%period == 0 && uint64(tokens)*uint64(time.Second/period) <= math.MaxUint32:
		tokens, period = tokens*uint32(time.Second/period), time.Second
	}
	for _, u := range envoyUnits {
		if period%u.length != 0 {
			continue
		}
		to.RequestsPerUnit, to.Unit = tokens, u.unit
		if times := period / u.length; times > 1 {
			to.UnitMultiplier = wrapperspb.UInt32(uint32(times))
		}
		return
	}
}
