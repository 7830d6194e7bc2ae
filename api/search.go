package api

import (
	"context"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	provenancev1 "github.com/maestro-conductor/maestro/api/gen/mc/provenance/v1"
	"github.com/maestro-conductor/maestro/index"
)

func (s *server) search(ctx context.Context, c *call, r *provenancev1.SearchRequest) (*provenancev1.SearchResponse, error) {
	if s.deps.Index == nil {
		return nil, ErrServiceOff
	}
	query, f := searchRequest(c.principal, r)
	if f != nil {
		return nil, f
	}
	start := time.Now()
	res, err := s.deps.Index.Search(ctx, query)
	if err != nil {
		return nil, err
	}
	s.metrics.searchMs.Observe(milliseconds(time.Since(start)))
	return searchMessage(&res), nil
}

func searchRequest(who Principal, r *provenancev1.SearchRequest) (index.SearchRequest, *fault) {
	tenant, f := anyTenant(who, r.GetTenant())
	if f != nil {
		return index.SearchRequest{}, f
	}
	f = firstFault(
		withinBytes("query", r.GetQuery(), MaxQueryBytes), withinBytes("cursor", r.GetCursor(), MaxCursorBytes),
		withinBytes("pack", r.GetPack(), index.MaxTextBytes), withinBytes("digest", r.GetDigest(), index.MaxTextBytes))
	if f != nil {
		return index.SearchRequest{}, f
	}
	limit := int(r.GetLimit())
	switch {
	case limit == 0:
		limit = DefaultPage
	case limit > MaxPage:
		return index.SearchRequest{}, refuse(reasonFieldMalformed, "limit: a page holds 1 to %d items, not %d", MaxPage, r.GetLimit())
	}
	from, f := bound("from", r.GetFrom())
	if f != nil {
		return index.SearchRequest{}, f
	}
	to, f := bound("to", r.GetTo())
	if f != nil {
		return index.SearchRequest{}, f
	}
	if r.GetTo() != nil && to == 0 {
		to = -1 // the index takes 0 for open; nothing is older than 1970
	}
	return index.SearchRequest{
		Query: r.GetQuery(), Tenant: tenant, Pack: r.GetPack(), Digest: r.GetDigest(), From: from, To: to,
		Limit: limit, Cursor: r.GetCursor(), Exact: r.GetExact(), RequireComplete: r.GetRequireComplete(),
		Follow: r.GetFollow(),
	}, nil
}

func bound(field string, t *timestamppb.Timestamp) (int64, *fault) {
	if t == nil {
		return 0, nil
	}
	nanos, ok := nanosOf(t)
	if !ok {
		return 0, refuse(reasonFieldMalformed, "%s: the time is not between the years 1970 and 2261", field)
	}
	return nanos, nil
}
