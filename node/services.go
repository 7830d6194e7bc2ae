package node

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/maestro-conductor/maestro/api"
	"github.com/maestro-conductor/maestro/index"
	"github.com/maestro-conductor/maestro/internal/busiest"
	"github.com/maestro-conductor/maestro/limiter"
	"github.com/maestro-conductor/maestro/node/meta"
	"github.com/maestro-conductor/maestro/pkgstore"
)

// services are what the API port serves. They stand from the start, so that the region can
// be initialised through the same port; until it is, every call but that is refused.
type services struct {
	node    *Node
	running atomic.Pointer[running]
}

// running are the services of an initialised node.
type running struct {
	meta    *meta.Service
	tables  *meta.Machine
	limiter *limiter.Service
	leases  *limiter.Leases // nil on a node that does not run the limiter
	busiest *busiest.Sketch
	index   *index.Service
	catalog *pkgstore.Service
	// receipts are those of the catalog on their way to the index.
	receipts *receipts
	fresh    *freshness
}

func (s *services) get() (*running, error) {
	if s.node.removed.Load() {
		return nil, api.ErrNodeRemoved
	}
	if r := s.running.Load(); r != nil {
		return r, nil
	}
	if s.node.boot.current() != nil {
		return nil, api.ErrNotReady
	}
	return nil, api.ErrNotInitialised
}

// Fresh tells whether this node's replica of meta is confirmed. Before the services stand there
// is nothing to confirm, and once the node was removed there will be nothing: they refuse for
// themselves.
func (s *services) Fresh() bool {
	r, err := s.get()
	return err != nil || r.fresh.Fresh()
}

// AwaitFresh waits until it is.
func (s *services) AwaitFresh(ctx context.Context) error {
	r, err := s.get()
	if err != nil {
		return nil
	}
	err = r.fresh.AwaitFresh(ctx)
	if s.node.removed.Load() {
		return nil // meanwhile, see Fresh
	}
	return err
}

// Authenticate finds the identity behind a token.
func (s *services) Authenticate(ctx context.Context, token string) (api.Principal, error) {
	r, err := s.get()
	if err != nil {
		return api.Principal{}, err
	}
	return r.meta.Authenticate(ctx, token)
}

// Check decides a check.
func (s *services) Check(ctx context.Context, q limiter.Request) (limiter.Decision, error) {
	r, err := s.get()
	if err != nil {
		return limiter.Decision{}, err
	}
	d, err := r.limiter.Check(ctx, q)
	if err == nil {
		r.seen(&q, &d)
	}
	return d, err
}

// CheckHeld decides checks from leases of this node alone.
func (s *services) CheckHeld(all []limiter.Request, out []limiter.Outcome) (open []int) {
	r, err := s.get()
	if err != nil {
		for i := range out {
			out[i] = limiter.Outcome{Err: err}
		}
		return nil
	}
	open = r.limiter.CheckHeld(all, out)
	r.seenBut(open, all, out)
	return open
}

// CheckOnFailure decides checks by what their limits say for the case that nobody can be asked.
func (s *services) CheckOnFailure(all []limiter.Request, out []limiter.Outcome) (open []int) {
	r, err := s.get()
	if err != nil {
		return places(len(all))
	}
	open = r.limiter.CheckOnFailure(all, out)
	r.seenBut(open, all, out)
	return open
}

// places are the first n.
func places(n int) []int {
	all := make([]int, n)
	for i := range all {
		all[i] = i
	}
	return all
}

// seenBut notes checks that were decided: all but the open ones.
func (r *running) seenBut(open []int, all []limiter.Request, out []limiter.Outcome) {
	still := make([]bool, len(all))
	for _, i := range open {
		still[i] = true
	}
	for i := range all {
		if !still[i] {
			r.seen(&all[i], &out[i].Decision)
		}
	}
}

// CheckTogether takes all parts or none.
func (s *services) CheckTogether(ctx context.Context, parts []limiter.Part) ([]limiter.Decision, error) {
	r, err := s.get()
	if err != nil {
		return nil, err
	}
	out, err := r.limiter.CheckTogether(ctx, parts)
	for i := range out {
		r.seen(&parts[i].Request, &out[i])
	}
	return out, err
}

// Limit finds a limit in the replicas of this node; each has all limits.
func (s *services) Limit(id string) (limiter.Limit, bool) {
	for _, m := range s.node.limiters { // any order
		if l, ok := m.Limit(id); ok {
			return l, true
		}
	}
	return limiter.Limit{}, false
}

// CheckBatchInto decides many checks into out.
func (s *services) CheckBatchInto(ctx context.Context, all []limiter.Request, out []limiter.Outcome) error {
	r, err := s.get()
	if err != nil {
		return err
	}
	if err := r.limiter.CheckBatchInto(ctx, all, out); err != nil {
		return err
	}
	for i := range out {
		if out[i].Err == nil {
			r.seen(&all[i], &out[i].Decision)
		}
	}
	return nil
}

// Peek decides without taking anything.
func (s *services) Peek(ctx context.Context, q limiter.Request) (limiter.Decision, error) {
	r, err := s.get()
	if err != nil {
		return limiter.Decision{}, err
	}
	return r.limiter.Peek(ctx, q)
}

// Reserve takes a cost that is settled later.
func (s *services) Reserve(ctx context.Context, q limiter.Request, ttl time.Duration) (limiter.Hold, error) {
	r, err := s.get()
	if err != nil {
		return limiter.Hold{}, err
	}
	return r.limiter.Reserve(ctx, q, ttl)
}

// Commit settles a reservation.
func (s *services) Commit(ctx context.Context, tenant, id string, actual uint32) (limiter.Settlement, error) {
	r, err := s.get()
	if err != nil {
		return limiter.Settlement{}, err
	}
	return r.limiter.Commit(ctx, tenant, id, actual)
}

// Refund gives back what a check took.
func (s *services) Refund(ctx context.Context, tenant, requestID string, cost uint32) (uint32, error) {
	r, err := s.get()
	if err != nil {
		return 0, err
	}
	return r.limiter.Refund(ctx, tenant, requestID, cost)
}

// Acquire takes a slot.
func (s *services) Acquire(ctx context.Context, q limiter.Request, ttl time.Duration) (limiter.Hold, error) {
	r, err := s.get()
	if err != nil {
		return limiter.Hold{}, err
	}
	return r.limiter.Acquire(ctx, q, ttl)
}

// Renew holds a slot for longer.
func (s *services) Renew(ctx context.Context, tenant, id string, ttl time.Duration) (limiter.Hold, error) {
	r, err := s.get()
	if err != nil {
		return limiter.Hold{}, err
	}
	return r.limiter.Renew(ctx, tenant, id, ttl)
}

// Release gives a slot back.
func (s *services) Release(ctx context.Context, tenant, id string) (bool, error) {
	r, err := s.get()
	if err != nil {
		return false, err
	}
	return r.limiter.Release(ctx, tenant, id)
}

// Lend lends tokens to a holder outside the nodes.
func (s *services) Lend(ctx context.Context, h limiter.Holder, tenant string, asks []limiter.Ask) ([]limiter.Route, error) {
	r, err := s.get()
	if err != nil {
		return nil, err
	}
	return r.limiter.Lend(ctx, h, tenant, asks)
}

// Attend connects a holder outside the nodes.
func (s *services) Attend(h limiter.Holder) *limiter.Outside {
	r, err := s.get()
	if err != nil {
		return nil
	}
	return r.limiter.Attend(h)
}

// SetLimits creates or replaces limits.
func (s *services) SetLimits(ctx context.Context, tenant string, limits []limiter.Limit, requestID string) (api.LimitChange, error) {
	r, err := s.get()
	if err != nil {
		return api.LimitChange{}, err
	}
	return r.meta.SetLimits(ctx, tenant, limits, requestID)
}

// DeleteLimits removes limits.
func (s *services) DeleteLimits(ctx context.Context, tenant string, ids []string, requestID string) (api.LimitChange, error) {
	r, err := s.get()
	if err != nil {
		return api.LimitChange{}, err
	}
	return r.meta.DeleteLimits(ctx, tenant, ids, requestID)
}

// ListLimits returns all limits.
func (s *services) ListLimits(ctx context.Context) ([]limiter.Limit, uint32, error) {
	r, err := s.get()
	if err != nil {
		return nil, 0, err
	}
	return r.meta.ListLimits(ctx)
}

// SetPlans puts tenants on plans.
func (s *services) SetPlans(ctx context.Context, all []limiter.Assignment, requestID string) (api.PlanChange, error) {
	r, err := s.get()
	if err != nil {
		return api.PlanChange{}, err
	}
	return r.meta.SetPlans(ctx, all, requestID)
}

// ListPlans tells who is on which plan.
func (s *services) ListPlans(ctx context.Context, q api.PlanQuery) (api.PlanPage, error) {
	r, err := s.get()
	if err != nil {
		return api.PlanPage{}, err
	}
	return r.meta.ListPlans(ctx, q)
}

// LimiterMode is how limits act.
func (s *services) LimiterMode(ctx context.Context) (limiter.Mode, error) {
	r, err := s.get()
	if err != nil {
		return 0, err
	}
	return r.meta.LimiterMode(ctx)
}

// SetLimiterMode changes how limits act.
func (s *services) SetLimiterMode(ctx context.Context, mode limiter.Mode) (limiter.Mode, error) {
	r, err := s.get()
	if err != nil {
		return 0, err
	}
	return r.meta.SetLimiterMode(ctx, mode)
}

// Ingest stores documents.
func (s *services) Ingest(ctx context.Context, docs []index.Document, requestID string) (index.IngestResult, error) {
	r, err := s.get()
	if err != nil {
		return index.IngestResult{}, err
	}
	if err := r.tables.IndexMode().Admit(true); err != nil {
		return index.IngestResult{}, err
	}
	return r.index.Ingest(ctx, docs, requestID)
}

// Search finds documents.
func (s *services) Search(ctx context.Context, q index.SearchRequest) (index.SearchResult, error) {
	r, err := s.get()
	if err != nil {
		return index.SearchResult{}, err
	}
	if err := r.tables.IndexMode().Admit(false); err != nil {
		return index.SearchResult{}, err
	}
	return r.index.Search(ctx, q)
}

// Lookup answers for many digests.
func (s *services) Lookup(ctx context.Context, q index.LookupRequest) (index.LookupResult, error) {
	r, err := s.get()
	if err != nil {
		return index.LookupResult{}, err
	}
	return r.index.Lookup(ctx, q)
}

// Lineage walks from digest to digest.
func (s *services) Lineage(ctx context.Context, q index.LineageRequest) (index.LineageResult, error) {
	r, err := s.get()
	if err != nil {
		return index.LineageResult{}, err
	}
	if err := r.tables.IndexMode().Admit(false); err != nil {
		return index.LineageResult{}, err
	}
	return r.index.Lineage(ctx, q)
}

// IndexMode is what the index takes and answers.
func (s *services) IndexMode(ctx context.Context) (index.Mode, error) {
	r, err := s.get()
	if err != nil {
		return 0, err
	}
	return r.meta.IndexMode(ctx)
}

// SetIndexMode changes it.
func (s *services) SetIndexMode(ctx context.Context, mode index.Mode) (index.Mode, error) {
	r, err := s.get()
	if err != nil {
		return 0, err
	}
	return r.meta.SetIndexMode(ctx, mode)
}

// CreateToken makes an API token.
func (s *services) CreateToken(ctx context.Context, t api.Token) (string, api.Token, error) {
	r, err := s.get()
	if err != nil {
		return "", api.Token{}, err
	}
	return r.meta.CreateToken(ctx, t)
}

// ListTokens returns all API tokens.
func (s *services) ListTokens(ctx context.Context) ([]api.Token, error) {
	r, err := s.get()
	if err != nil {
		return nil, err
	}
	return r.meta.ListTokens(ctx)
}

// RevokeToken ends an API token.
func (s *services) RevokeToken(ctx context.Context, id string) error {
	r, err := s.get()
	if err != nil {
		return err
	}
	return r.meta.RevokeToken(ctx, id)
}

// Init starts the region and waits until this node serves it.
func (s *services) Init(ctx context.Context) (string, error) {
	id, err := s.node.boot.init(ctx)
	if err != nil {
		return "", err
	}
	select {
	case <-s.node.started:
		return id, nil
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

// Status describes the region as this node sees it.
func (s *services) Status(ctx context.Context) (api.RegionStatus, error) {
	return s.node.status(ctx)
}

// AddNode makes a node a member.
func (s *services) AddNode(ctx context.Context, name, clusterAddress string) (api.MemberChange, error) {
	return s.node.changeMembers(ctx, addition{name: name, address: clusterAddress})
}

// RemoveNode begins to remove a member.
func (s *services) RemoveNode(ctx context.Context, name string) (api.MemberChange, error) {
	return s.node.changeMembers(ctx, removal{name: name})
}

// ReplaceNode begins to replace a member.
func (s *services) ReplaceNode(ctx context.Context, oldName, newName, clusterAddress string) (api.MemberChange, error) {
	return s.node.changeMembers(ctx, replacement{old: oldName, addition: addition{name: newName, address: clusterAddress}})
}

// Transfer hands the leadership of a group to a member.
func (s *services) Transfer(ctx context.Context, group, name string) error {
	return s.node.transfer(ctx, group, name)
}
