package node

import (
	"context"
	"slices"
	"sync"

	"github.com/maestro-conductor/maestro/api"
	"github.com/maestro-conductor/maestro/internal/busiest"
	"github.com/maestro-conductor/maestro/limiter"
)

const (
	// busyKeysMax is how many keys a node keeps count of: some 300 KiB. More find keys that are
	// less busy.
	busyKeysMax = 1000
	// busyKeysSent is how many of them it tells another node: their names at their longest fit
	// bootstrapBytesMax.
	busyKeysSent = 200
	opBusiest    = "busiest"
)

// seen counts a check that was decided here.
func (r *running) seen(q *limiter.Request, d *limiter.Decision) {
	r.busiest.Add(busiest.Key{Tenant: q.Tenant, Token: q.Token, Key: q.Key}, d.LimitID)
}

// busiestFor answers another node: members alone, since keys are their tenants' business.
func (b *bootstrap) busiestFor(peer string, req bootstrapRequest) *[]busiest.Entry {
	sketch, rec := b.busiest.Load(), b.current()
	if sketch == nil || rec == nil || !rec.has(peer) {
		return nil
	}
	top := sketch.Top(req.Tenant, busyKeysSent, req.Denied)
	if top == nil {
		top = []busiest.Entry{} // nothing to tell is an answer
	}
	return &top
}

// BusyKeys sums what the nodes of the region have counted.
func (s *services) BusyKeys(ctx context.Context, tenant string, denied bool, most int) (keys []api.BusyKey, missing []string, err error) {
	r, err := s.get()
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	members := s.node.boot.current().Members
	answers := make([]*[]busiest.Entry, len(members))
	var all sync.WaitGroup
	for i, m := range members {
		if m.ID == s.node.boot.self() {
			own := r.busiest.Top(tenant, busyKeysSent, denied)
			answers[i] = &own
			continue
		}
		all.Go(func() {
			resp, err := s.node.boot.exchange(ctx, Seed{Name: m.Name, Cluster: m.Cluster}, bootstrapRequest{Op: opBusiest, Tenant: tenant, Denied: denied})
			if err == nil && resp.Hello != nil && resp.Hello.ID == m.ID {
				answers[i] = resp.Busiest
			}
		})
	}
	all.Wait()
	var told [][]busiest.Entry
	for i, a := range answers {
		if a == nil {
			missing = append(missing, members[i].Name)
			continue
		}
		told = append(told, *a)
	}
	for _, e := range busiest.First(busiest.Merge(told...), most, denied) {
		keys = append(keys, api.BusyKey{Tenant: e.Tenant, Token: e.Token, Key: e.Key.Key, Checks: e.Checks, Denies: e.Denies, Error: e.Error, LimitID: e.Limit})
	}
	slices.Sort(missing)
	return keys, missing, nil
}
