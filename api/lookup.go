package api

import (
	"context"
	"time"

	provenancev1 "github.com/maestro-conductor/maestro/api/gen/mc/provenance/v1"
	"github.com/maestro-conductor/maestro/index"
)

func (s *server) lookup(ctx context.Context, c *call, r *provenancev1.LookupRequest) (*provenancev1.LookupResponse, error) {
	if s.deps.Index == nil {
		return nil, ErrServiceOff
	}
	ask, f := lookupRequest(c.principal, r)
	if f != nil {
		return nil, f
	}
	start := time.Now()
	res, err := s.deps.Index.Lookup(ctx, ask)
	if err != nil {
		return nil, err
	}
	s.metrics.lookupMs.Observe(milliseconds(time.Since(start)))
	return lookupMessage(&res), nil
}

func lookupRequest(who Principal, r *provenancev1.LookupRequest) (index.LookupRequest, *fault) {
	tenant, f := anyTenant(who, r.GetTenant())
	if f != nil {
		return index.LookupRequest{}, f
	}
	if f := withinBytes("query", r.GetQuery(), MaxQueryBytes); f != nil {
		return index.LookupRequest{}, f
	}
	switch n := len(r.GetDigests()); {
	case n == 0:
		return index.LookupRequest{}, refuse(reasonFieldMalformed, "digests: there is none")
	case n > index.LookupDigestsMax:
		return index.LookupRequest{}, refuse(reasonBatchTooLarge, "digests: %d, more than %d", n, index.LookupDigestsMax)
	}
	since, until, f := sinceUntil(r)
	if f != nil {
		return index.LookupRequest{}, f
	}
	return index.LookupRequest{
		Digests: r.GetDigests(), Documents: int(min(r.GetDocuments(), index.LookupDocumentsMax+1)), Query: r.GetQuery(), Tenant: tenant,
		Since: since, Until: until, RequireComplete: r.GetRequireComplete(),
	}, nil
}

func lookupMessage(r *index.LookupResult) *provenancev1.LookupResponse {
	m := &provenancev1.LookupResponse{
		Digests: make([]*provenancev1.DigestAnswer, len(r.Digests)), Cut: r.Cut, Complete: r.Complete, Shards: shardMessages(r.Shards),
	}
	for i := range r.Digests {
		d := &r.Digests[i]
		a := &provenancev1.DigestAnswer{Digest: d.Digest, Count: count32(d.Count), Problem: d.Problem}
		for n := range d.Documents {
			a.Documents = append(a.Documents, DocumentMessage(&d.Documents[n]))
		}
		m.Digests[i] = a
	}
	return m
}
