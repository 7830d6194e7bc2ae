package api

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/maestro-conductor/maestro/index"
	"github.com/maestro-conductor/maestro/limiter"
	"github.com/maestro-conductor/maestro/raftfsm"
)

// fakeServices stands behind the handlers: the least that shows what they pass on and what
// they do with the answers.
type fakeServices struct {
	mu        sync.Mutex
	err       error // what every service fails with, when set
	checks    []limiter.Request
	together  [][]limiter.Part
	decision  limiter.Decision
	checking  func(ctx context.Context)              // runs inside Check
	decide    func(limiter.Request) limiter.Decision // instead of decision, when set
	limits    []limiter.Limit
	plans     []limiter.Assignment // by tenant
	mode      limiter.Mode
	indexMode index.Mode
	retention index.RetentionPolicy
	documents map[string]index.Document // by tenant/id
	requests  []string                  // request ids of ingests
	searches  []index.SearchRequest
	found     index.SearchResult
	walks     []index.LineageRequest
	walked    index.LineageResult
	lookups   []index.LookupRequest
	looked    index.LookupResult
	tokens    []Token
	secrets   map[string]Principal
	broken    map[string]error // secrets that do not admit
	started   bool
}

func (f *fakeServices) Authenticate(_ context.Context, secret string) (Principal, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.broken[secret]; err != nil {
		return Principal{}, err
	}
	if p, ok := f.secrets[secret]; ok {
		return p, nil
	}
	return Principal{}, ErrTokenUnknown
}

func (f *fakeServices) breakToken(secret string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.broken[secret] = err
}

func (f *fakeServices) Check(ctx context.Context, r limiter.Request) (limiter.Decision, error) {
	if f.checking != nil {
		f.checking(ctx)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.checks = append(f.checks, r)
	if f.decide != nil {
		return f.decide(r), f.err
	}
	return f.decision, f.err
}

func (f *fakeServices) CheckBatchInto(ctx context.Context, all []limiter.Request, out []limiter.Outcome) error {
	for i, r := range all {
		// As the contract says, texts that are kept are copied.
		r.Tenant, r.Token, r.Key = strings.Clone(r.Tenant), strings.Clone(r.Token), strings.Clone(r.Key)
		if out[i].Decision, out[i].Err = f.Check(ctx, r); r.Key == "lost" {
			out[i].Err = &raftfsm.Error{Op: "propose", Group: "limiter-0", Outcome: raftfsm.OutcomeUnknown, Err: raftfsm.ErrLost}
		}
	}
	return nil
}

// CheckHeld decides the checks of the key held.
func (f *fakeServices) CheckHeld(all []limiter.Request, out []limiter.Outcome) (open []int) {
	for i := range all {
		if all[i].Key != "held" {
			open = append(open, i)
			continue
		}
		out[i] = limiter.Outcome{Decision: limiter.Decision{Allow: true, Version: 1, Source: limiter.SourceLease}}
	}
	return open
}

// CheckOnFailure lets the key open pass and denies the key shut.
func (f *fakeServices) CheckOnFailure(all []limiter.Request, out []limiter.Outcome) (open []int) {
	for i := range all {
		d := limiter.Decision{Allow: true, Version: 1, Source: limiter.SourceFailure}
		switch all[i].Key {
		case "open":
		case "shut":
			d.Allow, d.Reason, d.LimitID, d.RetryAfterMs = false, limiter.ReasonAway, "a", 1000
		default:
			open = append(open, i)
			continue
		}
		out[i] = limiter.Outcome{Decision: d}
	}
	return open
}

func (f *fakeServices) CheckTogether(_ context.Context, parts []limiter.Part) ([]limiter.Decision, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.together = append(f.together, parts)
	out := make([]limiter.Decision, len(parts))
	for i := range out {
		out[i] = f.decision
	}
	return out, f.err
}

func (f *fakeServices) Limit(id string) (limiter.Limit, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	i := slices.IndexFunc(f.limits, func(l limiter.Limit) bool { return l.ID == id })
	if i < 0 {
		return limiter.Limit{}, false
	}
	return f.limits[i], true
}

func (f *fakeServices) BusyKeys(_ context.Context, tenant string, denied bool, most int) ([]BusyKey, []string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return []BusyKey{{Tenant: tenant, Checks: float64(most), LimitID: "acme-api"}}, []string{"node-3"}, f.err
}

func (f *fakeServices) Peek(ctx context.Context, r limiter.Request) (limiter.Decision, error) {
	return f.Check(ctx, r)
}

func (f *fakeServices) Reserve(ctx context.Context, r limiter.Request, ttl time.Duration) (limiter.Hold, error) {
	d, err := f.Check(ctx, r)
	return limiter.Hold{Decision: d, ID: "reservation", TTL: ttl}, err
}

func (f *fakeServices) Commit(_ context.Context, tenant, id string, actual uint32) (limiter.Settlement, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if tenant != "acme" {
		return limiter.Settlement{}, limiter.ErrReservationUnknown
	}
	return limiter.Settlement{Actual: actual, Refunded: uint32(len(id)), Overdrawn: 1, Late: true}, f.err
}

func (f *fakeServices) Refund(_ context.Context, tenant, requestID string, cost uint32) (uint32, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if tenant != "acme" {
		return 0, limiter.ErrRequestUnknown
	}
	return cost + uint32(len(requestID)), f.err
}

func (f *fakeServices) Acquire(ctx context.Context, r limiter.Request, ttl time.Duration) (limiter.Hold, error) {
	d, err := f.Check(ctx, r)
	return limiter.Hold{Decision: d, ID: "slot", TTL: ttl}, err
}

func (f *fakeServices) Renew(_ context.Context, tenant, id string, ttl time.Duration) (limiter.Hold, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if tenant != "acme" {
		return limiter.Hold{}, limiter.ErrSlotUnknown
	}
	return limiter.Hold{Decision: limiter.Decision{Allow: true}, ID: id, TTL: ttl}, f.err
}

func (f *fakeServices) Release(_ context.Context, tenant, id string) (bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return tenant == "acme" && id == "slot", f.err
}

func (f *fakeServices) SetLimits(_ context.Context, tenant string, limits []limiter.Limit, _ string) (LimitChange, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return LimitChange{}, f.err
	}
	for _, l := range limits {
		for _, old := range f.limits {
			if old.ID == l.ID && tenant != AllTenants && selectorTenant(old.Selector) != tenant {
				return LimitChange{}, ErrLimitForeign
			}
		}
	}
	f.limits = append(f.limits, limits...)
	return LimitChange{Version: uint32(len(f.limits)), Created: len(limits), InForce: true}, nil
}

func (f *fakeServices) DeleteLimits(_ context.Context, tenant string, ids []string, _ string) (LimitChange, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return LimitChange{}, f.err
	}
	for _, id := range ids {
		i := slices.IndexFunc(f.limits, func(l limiter.Limit) bool {
			return l.ID == id && (tenant == AllTenants || selectorTenant(l.Selector) == tenant)
		})
		if i < 0 {
			return LimitChange{}, ErrLimitUnknown
		}
		f.limits = slices.Delete(f.limits, i, i+1)
	}
	return LimitChange{Version: 9, InForce: true}, nil
}

func (f *fakeServices) ListLimits(context.Context) ([]limiter.Limit, uint32, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.limits), 7, f.err
}

func (f *fakeServices) LimiterMode(context.Context) (limiter.Mode, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.mode, f.err
}

func (f *fakeServices) SetLimiterMode(_ context.Context, mode limiter.Mode) (limiter.Mode, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	before := f.mode
	if f.err == nil {
		f.mode = mode
	}
	return before, f.err
}

func (f *fakeServices) IndexMode(context.Context) (index.Mode, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.indexMode, f.err
}

func (f *fakeServices) Retention(context.Context) (index.RetentionPolicy, error) {
	return f.retention, f.err
}

func (f *fakeServices) SetRetention(_ context.Context, rules []index.RetentionRule) (index.RetentionPolicy, error) {
	if f.err != nil {
		return index.RetentionPolicy{}, f.err
	}
	f.retention.Version++
	f.retention.Rules = append(f.retention.Rules, rules...)
	return f.retention, nil
}

func (f *fakeServices) RemoveRetention(_ context.Context, names []string) (index.RetentionPolicy, error) {
	if f.err != nil {
		return index.RetentionPolicy{}, f.err
	}
	f.retention.Version++
	f.retention.Rules = slices.DeleteFunc(f.retention.Rules, func(r index.RetentionRule) bool { return slices.Contains(names, r.Name()) })
	return f.retention, nil
}

func (f *fakeServices) SetIndexMode(_ context.Context, mode index.Mode) (index.Mode, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	before := f.indexMode
	if f.err == nil {
		f.indexMode = mode
	}
	return before, f.err
}

func (f *fakeServices) SetPlans(_ context.Context, all []limiter.Assignment, _ string) (PlanChange, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change := PlanChange{LimitChange: LimitChange{Version: 8, InForce: true}}
	for _, a := range all {
		i := slices.IndexFunc(f.plans, func(b limiter.Assignment) bool { return a.Tenant == b.Tenant })
		switch {
		case i < 0 && a.Plan == "":
			return PlanChange{}, ErrPlanNone
		case i < 0:
			f.plans, change.Created = append(f.plans, a), change.Created+1
		case a.Plan == "":
			f.plans, change.Removed = slices.Delete(f.plans, i, i+1), change.Removed+1
		default:
			f.plans[i], change.Replaced = a, change.Replaced+1
		}
	}
	slices.SortFunc(f.plans, func(a, b limiter.Assignment) int { return strings.Compare(a.Tenant, b.Tenant) })
	return change, f.err
}

func (f *fakeServices) ListPlans(_ context.Context, q PlanQuery) (PlanPage, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	page := PlanPage{Version: 7}
	for _, a := range f.plans {
		if a.Tenant <= q.After || q.Tenant != "" && a.Tenant != q.Tenant || q.Plan != "" && a.Plan != q.Plan {
			continue
		}
		if len(page.Assignments) == q.Limit {
			page.Next = page.Assignments[q.Limit-1].Tenant
			break
		}
		page.Assignments = append(page.Assignments, a)
	}
	return page, f.err
}

func (f *fakeServices) Ingest(_ context.Context, docs []index.Document, requestID string) (index.IngestResult, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return index.IngestResult{}, f.err
	}
	f.requests = append(f.requests, requestID)
	var res index.IngestResult
	for i, d := range docs {
		key := d.Tenant + "/" + d.ID
		old, there := f.documents[key]
		switch {
		case !there:
			f.documents[key] = d
			res.Indexed++
		case index.ContentHash(&old) == index.ContentHash(&d):
			res.Existing++
			res.ExistingAt = append(res.ExistingAt, i)
		default:
			res.Refusals = append(res.Refusals, index.Refusal{Position: i, ID: d.ID, Reason: "conflict", Message: "the id is taken"})
		}
	}
	res.Positions = []index.ShardPosition{{Shard: "index-0", Applied: uint64(len(f.documents))}}
	return res, nil
}

func (f *fakeServices) Search(_ context.Context, r index.SearchRequest) (index.SearchResult, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.searches = append(f.searches, r)
	return f.found, f.err
}

func (f *fakeServices) Lookup(_ context.Context, r index.LookupRequest) (index.LookupResult, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lookups = append(f.lookups, r)
	return f.looked, f.err
}

func (f *fakeServices) Lineage(_ context.Context, r index.LineageRequest) (index.LineageResult, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.walks = append(f.walks, r)
	return f.walked, f.err
}

func (f *fakeServices) lastSearch() index.SearchRequest {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.searches[len(f.searches)-1]
}

func (f *fakeServices) CreateToken(_ context.Context, t Token) (string, Token, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return "", Token{}, f.err
	}
	t.ID = "t" + strings.Repeat("1", len(f.tokens))
	f.tokens = append(f.tokens, t)
	return TokenPrefix + "secret-of-" + t.ID, t, nil
}

func (f *fakeServices) ListTokens(context.Context) ([]Token, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.tokens), f.err
}

func (f *fakeServices) RevokeToken(_ context.Context, id string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range f.tokens {
		if f.tokens[i].ID == id {
			f.tokens[i].Revoked = true
			return f.err
		}
	}
	return ErrTokenUnknown
}

func (f *fakeServices) Init(context.Context) (string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.started {
		return "", ErrAlreadyInitialised
	}
	f.started = true
	return "cluster-1", nil
}

func (f *fakeServices) Status(context.Context) (RegionStatus, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return RegionStatus{
		ClusterID: "cluster-1", Region: "eu", AnsweredBy: "a", Version: "test",
		Nodes:  []NodeStatus{{Name: "a", ID: "a-1", Reachable: true}},
		Groups: []GroupStatus{{Name: "meta", Leader: "a", Term: 2, CommitIndex: 10, AppliedIndex: 9, Voters: []string{"a"}}},
	}, f.err
}

func (f *fakeServices) AddNode(_ context.Context, name, _ string) (MemberChange, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return MemberChange{ID: name + ".1", Started: true}, f.err
}

func (f *fakeServices) RemoveNode(_ context.Context, name string) (MemberChange, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return MemberChange{ID: name + ".1", Removed: true}, f.err
}

func (f *fakeServices) ReplaceNode(_ context.Context, oldName, newName, _ string) (MemberChange, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return MemberChange{ID: oldName + ".1", NewID: newName + ".2", Started: true}, f.err
}

func (f *fakeServices) Transfer(context.Context, string, string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err
}

func (f *fakeServices) BackupPlan(context.Context) (BackupPlan, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return BackupPlan{ClusterID: "cluster-1", Region: "eu", Version: "test", Services: []string{"index"}, Groups: []string{"index-0", "meta"}}, f.err
}

func (f *fakeServices) ExportGroup(_ context.Context, group string, _ raftfsm.BackupID, chunk uint64) (raftfsm.BackupChunk, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return raftfsm.BackupChunk{Index: 9, Term: 2, Time: 7, Rows: []byte(group), Count: chunk, Last: true}, f.err
}

func (f *fakeServices) ImportGroup(_ context.Context, _ string, s raftfsm.RestoreStep) (raftfsm.RestoreState, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return raftfsm.RestoreState{Next: s.Chunk + 1, Done: s.Op == raftfsm.RestoreEnd}, f.err
}

// secretOf is the token of a tenant and role that newServices knows.
func secretOf(tenant, role string) string {
	if tenant == AllTenants {
		tenant = "platform"
	}
	return TokenPrefix + tenant + "-" + role
}

var allRoles = []string{RoleReader, RoleRunner, RolePublisher, RoleOperator, RoleAdmin}

// newServices knows a token of every role for the tenants acme and globex and the platform.
func newServices() *fakeServices {
	f := &fakeServices{
		documents: map[string]index.Document{}, secrets: map[string]Principal{}, broken: map[string]error{},
		decision: limiter.Decision{Allow: true},
	}
	for _, tenant := range []string{"acme", "globex", AllTenants} {
		for _, role := range allRoles {
			f.secrets[secretOf(tenant, role)] = Principal{ID: tenant + ":" + role, Tenant: tenant, Role: role}
		}
	}
	f.secrets[TokenPrefix+"odd"] = Principal{ID: "odd", Tenant: "acme", Role: "emperor"}
	f.tokens = []Token{
		{ID: "acme-token", Tenant: "acme", Role: RoleReader, Created: time.Unix(100, 0)},
		{ID: "globex-token", Tenant: "globex", Role: RoleReader, Created: time.Unix(50, 0), Expires: time.Unix(1e9, 0)},
	}
	f.limits = []limiter.Limit{
		{ID: "acme-api", Scope: limiter.ScopeTenant, Selector: "acme", TokenBucket: limiter.TokenBucket{Rate: "100/s", Burst: 20}},
		{ID: "everyone", Scope: limiter.ScopeTenant, Selector: "*", TokenBucket: limiter.TokenBucket{Rate: "1000/s", Burst: 2000}},
		{ID: "globex-keys", Scope: limiter.ScopeKey, Selector: "globex/runs*", TokenBucket: limiter.TokenBucket{Rate: "5/s", Burst: 5}},
	}
	return f
}

func (f *fakeServices) Lend(_ context.Context, _ limiter.Holder, _ string, asks []limiter.Ask) ([]limiter.Route, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return make([]limiter.Route, len(asks)), f.err
}

func (*fakeServices) Attend(limiter.Holder) *limiter.Outside { return nil }

func (f *fakeServices) lastWalk() index.LineageRequest {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.walks[len(f.walks)-1]
}
