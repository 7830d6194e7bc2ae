package api

import (
	"context"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	limiterv1 "github.com/maestro-conductor/maestro/api/gen/mc/limiter/v1"
	"github.com/maestro-conductor/maestro/limiter"
)

func (s *server) check(ctx context.Context, c *call, r *limiterv1.CheckRequest) (*limiterv1.CheckResponse, error) {
	d, err := s.decide(ctx, c, r)
	if err != nil {
		return nil, err
	}
	return checkResponse(d), nil
}

func (s *server) decide(ctx context.Context, c *call, r *limiterv1.CheckRequest) (*limiter.Decision, error) {
	if s.deps.Checker == nil {
		return nil, ErrServiceOff
	}
	q, f := checkRequest(c.principal, r)
	if f != nil {
		return nil, f
	}
	start := time.Now()
	d, err := s.checkOne(ctx, c, q)
	if err != nil {
		return nil, err
	}
	s.metrics.checkMs.Observe(milliseconds(time.Since(start)))
	s.deps.Load.Answered(time.Since(c.start))
	s.metrics.decided(&d)
	hideGlobals(c.principal, &d)
	return &d, nil
}

// subjectMessage is what every question about limits has.
type subjectMessage interface {
	GetTenant() string
	GetToken() string
	GetKey() string
}

// subjectOf is whom a question is about, within the bounds and the reach of who asks.
func subjectOf(who Principal, m subjectMessage) (limiter.Request, *fault) {
	tenant, f := oneTenant(who, m.GetTenant())
	if f == nil {
		f = firstFault(withinBytes("token", m.GetToken(), MaxTokenBytes), withinBytes("key", m.GetKey(), MaxKeyBytes))
	}
	return limiter.Request{Tenant: tenant, Token: m.GetToken(), Key: m.GetKey()}, f
}

func checkRequest(who Principal, r *limiterv1.CheckRequest) (limiter.Request, *fault) {
	q, f := subjectOf(who, r)
	if f == nil {
		f = withinBytes("request_id", r.GetRequestId(), MaxRequestIDBytes)
	}
	q.Cost, q.RequestID = r.GetCost(), r.GetRequestId()
	return q, f
}

func (s *server) checkBatch(ctx context.Context, c *call, r *limiterv1.CheckBatchRequest) (*limiterv1.CheckBatchResponse, error) {
	if s.deps.Checker == nil {
		return nil, ErrServiceOff
	}
	if f := withinItems("checks", len(r.GetChecks()), MaxBatchChecks); f != nil {
		return nil, f
	}
	all := make([]limiter.Request, len(r.GetChecks()))
	for i, m := range r.GetChecks() {
		var f *fault
		if all[i], f = checkRequest(c.principal, m); f != nil {
			return nil, refuse(f.reason, "checks[%d]: %s", i, f.message)
		}
	}
	outcomes := make([]limiter.Outcome, len(all))
	if err := s.checkMany(ctx, c, all, outcomes); err != nil {
		return nil, err
	}
	s.deps.Load.AnsweredMany()
	res := &limiterv1.CheckBatchResponse{Results: make([]*limiterv1.CheckResult, len(outcomes))}
	for i, o := range outcomes {
		if o.Err != nil {
			res.Results[i] = &limiterv1.CheckResult{Error: c.note(s, o.Err).detail()}
			continue
		}
		s.metrics.decided(&o.Decision)
		hideGlobals(c.principal, &o.Decision)
		res.Results[i] = &limiterv1.CheckResult{Decision: checkResponse(&o.Decision)}
	}
	c.fault = nil // the answer is one, whatever became of its parts
	return res, nil
}

func (s *server) peek(ctx context.Context, c *call, r *limiterv1.PeekRequest) (*limiterv1.PeekResponse, error) {
	d, err := s.look(ctx, c, r, r.GetCost())
	if err != nil {
		return nil, err
	}
	return &limiterv1.PeekResponse{Decision: checkResponse(&d)}, nil
}

func (s *server) usage(ctx context.Context, c *call, r *limiterv1.UsageRequest) (*limiterv1.UsageResponse, error) {
	d, err := s.look(ctx, c, r, 0)
	if err != nil {
		return nil, err
	}
	res := &limiterv1.UsageResponse{LimitsVersion: d.Version, Levels: make([]*limiterv1.LevelUsage, len(d.Levels))}
	for i, l := range d.Levels {
		res.Levels[i] = &limiterv1.LevelUsage{Level: levelMessage(l), Used: l.Used, ResetMs: l.ResetMs}
	}
	return res, nil
}

// look asks without taking anything.
func (s *server) look(ctx context.Context, c *call, m subjectMessage, cost uint32) (limiter.Decision, error) {
	if s.deps.Checker == nil {
		return limiter.Decision{}, ErrServiceOff
	}
	q, f := subjectOf(c.principal, m)
	if f != nil {
		return limiter.Decision{}, f
	}
	q.Cost = cost
	d, err := s.deps.Checker.Peek(ctx, q)
	hideGlobals(c.principal, &d)
	return d, err
}

func levelMessage(l limiter.Level) *limiterv1.Level {
	return &limiterv1.Level{
		LimitId: l.LimitID, Scope: l.Scope, Kind: l.Kind, Shadow: l.Shadow, WouldDeny: l.WouldDeny,
		Limit: l.Limit, Remaining: l.Remaining,
	}
}

func checkResponse(d *limiter.Decision) *limiterv1.CheckResponse {
	res := &limiterv1.CheckResponse{
		Allow: d.Allow, RetryAfterMs: d.RetryAfterMs, Reason: d.Reason, LimitId: d.LimitID, Kind: d.Kind, WouldDeny: d.WouldDeny(), LimitsVersion: d.Version, Source: d.Source,
		Levels: levelMessages(d.Levels),
	}
	if d.Mode != limiter.ModeEnforce {
		res.Mode = d.Mode.String()
	}
	return res
}

func levelMessages(levels []limiter.Level) []*limiterv1.Level {
	all := make([]*limiterv1.Level, len(levels))
	for i, l := range levels {
		all[i] = levelMessage(l)
	}
	return all
}

func (s *server) setLimits(ctx context.Context, c *call, r *limiterv1.SetLimitsRequest) (*limiterv1.SetLimitsResponse, error) {
	if s.deps.Limits == nil {
		return nil, ErrServiceOff
	}
	if f := firstFault(mayChangeLimits(c.principal), withinItems("limits", len(r.GetLimits()), MaxBatchLimits),
		withinBytes("request_id", r.GetRequestId(), MaxRequestIDBytes)); f != nil {
		return nil, f
	}
	limits := make([]limiter.Limit, len(r.GetLimits()))
	for i, l := range r.GetLimits() {
		var f *fault
		if limits[i], f = limitFrom(l); f != nil {
			return nil, refuse(f.reason, "limits[%d].%s", i, f.message)
		}
	}
	if err := limiter.Validate(limits); err != nil {
		return nil, err
	}
	for i, l := range limits {
		if c.principal.Tenant != AllTenants && l.Plan() != "" {
			return nil, refuse(reasonPlatformOnly, "limits[%d].selector: limits of plans are for administrators of the platform, because they count for every tenant on the plan", i)
		}
		if tenant := selectorTenant(l.Selector); c.principal.Tenant != AllTenants && tenant != c.principal.Tenant {
			return nil, refuse(reasonTenantForeign, "limits[%d].selector: the identity belongs to tenant %s and cannot limit tenant %s",
				i, c.principal.Tenant, tenant)
		}
		if c.principal.Tenant != AllTenants && l.Keeper() == AllTenants {
			return nil, refuse(reasonPlatformOnly, "limits[%d]: access and overrides are for administrators of the platform, because they lift or close what others may", i)
		}
	}
	change, err := s.deps.Limits.SetLimits(ctx, c.principal.Tenant, limits, r.GetRequestId())
	if err != nil {
		return nil, err
	}
	return &limiterv1.SetLimitsResponse{
		Version: change.Version, Created: uint32(change.Created), Replaced: uint32(change.Replaced),
		Unchanged: uint32(change.Unchanged), InForce: change.InForce,
	}, nil
}

func (s *server) deleteLimits(ctx context.Context, c *call, r *limiterv1.DeleteLimitsRequest) (*limiterv1.DeleteLimitsResponse, error) {
	if s.deps.Limits == nil {
		return nil, ErrServiceOff
	}
	if f := firstFault(mayChangeLimits(c.principal), withinItems("ids", len(r.GetIds()), MaxBatchLimits),
		withinBytes("request_id", r.GetRequestId(), MaxRequestIDBytes)); f != nil {
		return nil, f
	}
	for i, id := range r.GetIds() {
		if !limiter.ValidName(id) {
			return nil, refuse(reasonFieldMalformed, "ids[%d]: %q cannot be the id of a limit", i, id)
		}
	}
	change, err := s.deps.Limits.DeleteLimits(ctx, c.principal.Tenant, r.GetIds(), r.GetRequestId())
	if err != nil {
		return nil, err
	}
	return &limiterv1.DeleteLimitsResponse{Version: change.Version, InForce: change.InForce}, nil
}

// listLimits shows an identity of one tenant the limits of its tenant, of its plan and those for
// every tenant, since all of them bound it; but not those that count all tenants together.
func (s *server) listLimits(ctx context.Context, c *call, r *limiterv1.ListLimitsRequest) (*limiterv1.ListLimitsResponse, error) {
	if s.deps.Limits == nil {
		return nil, ErrServiceOff
	}
	tenant := r.GetTenant()
	if tenant != "" && tenant != AllTenants {
		if f := mayReach(c.principal, tenant); f != nil {
			return nil, f
		}
	}
	if f := withinItems("ids", len(r.GetIds()), MaxBatchLimits); f != nil {
		return nil, f
	}
	limits, version, err := s.deps.Limits.ListLimits(ctx)
	if err != nil {
		return nil, err
	}
	plan, err := s.planOf(ctx, c.principal, limits)
	if err != nil {
		return nil, err
	}
	res := &limiterv1.ListLimitsResponse{Version: version, Limits: []*limiterv1.Limit{}}
	for _, l := range limits {
		of := selectorTenant(l.Selector)
		visible := c.principal.Tenant == AllTenants || of == c.principal.Tenant || of == AllTenants && l.Scope != limiter.ScopeGlobal || plan != "" && l.Plan() == plan
		wanted := (tenant == "" || tenant == of) && (len(r.GetIds()) == 0 || slices.Contains(r.GetIds(), l.ID))
		if visible && wanted {
			res.Limits = append(res.Limits, LimitMessage(l))
		}
	}
	return res, nil
}

// limitFrom is the inverse of LimitMessage.
func limitFrom(m *limiterv1.Limit) (limiter.Limit, *fault) {
	expires := m.GetExpires()
	if expires != nil && (expires.CheckValid() != nil || expires.GetNanos() != 0 || expires.GetSeconds() < 1) {
		return limiter.Limit{}, refuse(reasonFieldMalformed, "expires: must be a time after 1970, in whole seconds")
	}
	l := limiter.Limit{
		ID: m.GetId(), Scope: m.GetScope(), Selector: m.GetSelector(),
		TokenBucket: limiter.TokenBucket{Rate: m.GetTokenBucket().GetRate(), Burst: m.GetTokenBucket().GetBurst()},
		Window:      limiter.Window{Limit: m.GetWindow().GetLimit(), Length: m.GetWindow().GetLength()},
		Calendar: limiter.Calendar{
			Limit: m.GetCalendar().GetLimit(), Period: m.GetCalendar().GetPeriod(),
			TimeZone: m.GetCalendar().GetTimeZone(), Anchor: m.GetCalendar().GetAnchor(),
		},
		Concurrency: limiter.Concurrency{Limit: m.GetConcurrency().GetLimit(), TTL: m.GetConcurrency().GetTtl()},
		Enforcement: m.GetEnforcement(), Canary: m.GetCanaryPercent(),
		Oversize: m.GetOversize(), OnFailure: m.GetOnFailure(), Access: m.GetAccess(), Overrides: m.GetOverrides(),
		Expires: expires.GetSeconds(),
	}
	if m.GetConcurrency() != nil && l.Concurrency.TTL == "" {
		l.Concurrency.TTL = limiter.SlotTTLUsual
	}
	return l.WithoutUsual(), nil
}

// LimitMessage is a limit as it travels.
func LimitMessage(l limiter.Limit) *limiterv1.Limit {
	m := &limiterv1.Limit{
		Id: l.ID, Scope: l.Scope, Selector: l.Selector, Enforcement: l.Enforcement, CanaryPercent: l.Canary,
		Oversize: l.Oversize, OnFailure: l.OnFailure, Access: l.Access, Overrides: l.Overrides,
	}
	if l.Expires != 0 {
		m.Expires = &timestamppb.Timestamp{Seconds: l.Expires}
	}
	if l.TokenBucket != (limiter.TokenBucket{}) {
		m.TokenBucket = &limiterv1.TokenBucket{Rate: l.TokenBucket.Rate, Burst: l.TokenBucket.Burst}
	}
	if l.Window != (limiter.Window{}) {
		m.Window = &limiterv1.Window{Limit: l.Window.Limit, Length: l.Window.Length}
	}
	if c := l.Calendar; c != (limiter.Calendar{}) {
		m.Calendar = &limiterv1.Calendar{Limit: c.Limit, Period: c.Period, TimeZone: c.TimeZone, Anchor: c.Anchor}
	}
	if c := l.Concurrency; c != (limiter.Concurrency{}) {
		m.Concurrency = &limiterv1.Concurrency{Limit: c.Limit, Ttl: c.TTL}
	}
	return m
}

// mayChangeLimits: an operator changes the limits of its own tenant. A limit for every tenant
// has none, and any id may be such a limit's, so the platform's identities must be
// administrators.
func mayChangeLimits(who Principal) *fault {
	if who.Tenant == AllTenants && who.Role != RoleAdmin {
		return refuse(reasonRoleInsufficient, "an identity of the platform needs the role %s to change limits", RoleAdmin)
	}
	return nil
}

// selectorTenant is the tenant that a selector TENANT or TENANT/PATTERN names.
func selectorTenant(selector string) string {
	tenant, _, _ := strings.Cut(selector, "/")
	return tenant
}
