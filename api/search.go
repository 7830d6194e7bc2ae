package api

import (
	"cmp"
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	provenancev1 "github.com/maestro-conductor/maestro/api/gen/mc/provenance/v1"
	"github.com/maestro-conductor/maestro/index"
	"github.com/maestro-conductor/maestro/index/query"
)

func (s *server) search(ctx context.Context, c *call, r *provenancev1.SearchRequest) (*provenancev1.SearchResponse, error) {
	if s.deps.Index == nil {
		return nil, ErrServiceOff
	}
	ask, f := searchRequest(c.principal, r)
	if f != nil {
		return nil, f
	}
	start := time.Now()
	res, err := s.deps.Index.Search(ctx, ask)
	if err != nil {
		return nil, err
	}
	took := time.Since(start)
	s.metrics.searchMs.Observe(milliseconds(took))
	if len(ask.Facets) == 0 && ask.Histogram == 0 && !ask.Exact {
		s.deps.Load.Searched(took) // the others take as long as there are documents to count
	}
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
	interval, f := histogramInterval(r.GetHistogram())
	if f != nil {
		return index.SearchRequest{}, f
	}
	facets, f := facetFields(r.GetFacets())
	if f != nil {
		return index.SearchRequest{}, f
	}
	values := int(min(r.GetFacetValues(), index.FacetValuesMax+1))
	if values == 0 && len(facets) > 0 {
		values = DefaultFacetValues
	}
	order := slices.Index(index.OrderNames, cmp.Or(r.GetOrder(), index.OrderNames[index.OrderNewest]))
	if order < 0 {
		return index.SearchRequest{}, refuse(reasonFieldMalformed, "order: %q is none; use %s", r.GetOrder(), strings.Join(index.OrderNames, ", "))
	}
	return index.SearchRequest{
		Order: index.Order(order), Explain: r.GetExplain(), Facets: facets, FacetValues: values, Histogram: interval,
		Query: r.GetQuery(), Tenant: tenant, Pack: r.GetPack(), Digest: r.GetDigest(), From: from, To: to,
		Limit: limit, Cursor: r.GetCursor(), Exact: r.GetExact(), RequireComplete: r.GetRequireComplete(),
		Follow: r.GetFollow(),
	}, nil
}

// facetFields are the fields that are counted; the index knows which can be.
func facetFields(names []string) (fields []query.Field, f *fault) {
	if len(names) > len(index.FacetFields) {
		return nil, refuse(reasonFieldMalformed, "facets: %d fields, and %d that can be counted", len(names), len(index.FacetFields))
	}
	for _, name := range names {
		fields = append(fields, query.Field(name))
	}
	return fields, nil
}

// histogramInterval reads "auto", or a length such as 15m, 1h or 7d, in nanoseconds.
func histogramInterval(text string) (int64, *fault) {
	switch text {
	case "":
		return 0, nil
	case "auto":
		return index.HistogramAuto, nil
	}
	var length time.Duration
	if days, ok := strings.CutSuffix(text, "d"); ok {
		if n, err := strconv.ParseUint(days, 10, 16); err == nil {
			length = time.Duration(n) * 24 * time.Hour
		}
	} else if d, err := time.ParseDuration(text); err == nil {
		length = d
	}
	if int64(length) < index.HistogramIntervalMin {
		return 0, refuse(reasonFieldMalformed, "histogram: %q is neither auto nor a length of a millisecond or more, such as 15m, 1h or 7d", text)
	}
	return int64(length), nil
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
