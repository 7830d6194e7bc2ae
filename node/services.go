package node

import (
	"context"
	"sync/atomic"

	"github.com/maestro-conductor/maestro/api"
	"github.com/maestro-conductor/maestro/index"
	"github.com/maestro-conductor/maestro/limiter"
	"github.com/maestro-conductor/maestro/node/meta"
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
	limiter *limiter.Service
	index   *index.Service
	fresh   *freshness
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
	return r.limiter.Check(ctx, q)
}

// CheckBatch decides many checks.
func (s *services) CheckBatch(ctx context.Context, all []limiter.Request) ([]limiter.Outcome, error) {
	r, err := s.get()
	if err != nil {
		return nil, err
	}
	return r.limiter.CheckBatch(ctx, all)
}

// CheckBatchInto decides many checks into out.
func (s *services) CheckBatchInto(ctx context.Context, all []limiter.Request, out []limiter.Outcome) error {
	r, err := s.get()
	if err != nil {
		return err
	}
	return r.limiter.CheckBatchInto(ctx, all, out)
}

// Peek decides without taking anything.
func (s *services) Peek(ctx context.Context, q limiter.Request) (limiter.Decision, error) {
	r, err := s.get()
	if err != nil {
		return limiter.Decision{}, err
	}
	return r.limiter.Peek(ctx, q)
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

// Ingest stores documents.
func (s *services) Ingest(ctx context.Context, docs []index.Document, requestID string) (index.IngestResult, error) {
	r, err := s.get()
	if err != nil {
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
	return r.index.Search(ctx, q)
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
