package api

import (
	"context"
	"strconv"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	provenancev1 "github.com/maestro-conductor/maestro/api/gen/mc/provenance/v1"
	"github.com/maestro-conductor/maestro/index"
)

func (s *server) lineage(ctx context.Context, c *call, r *provenancev1.LineageRequest) (*provenancev1.LineageResponse, error) {
	if s.deps.Index == nil {
		return nil, ErrServiceOff
	}
	walk, f := lineageRequest(c.principal, r)
	if f != nil {
		return nil, f
	}
	start := time.Now()
	res, err := s.deps.Index.Lineage(ctx, walk)
	if err != nil {
		return nil, err
	}
	s.metrics.lineageMs.Observe(milliseconds(time.Since(start)))
	return lineageMessage(&res), nil
}

func lineageRequest(who Principal, r *provenancev1.LineageRequest) (index.LineageRequest, *fault) {
	tenant, f := anyTenant(who, r.GetTenant())
	if f != nil {
		return index.LineageRequest{}, f
	}
	f = firstFault(
		withinBytes("query", r.GetQuery(), MaxQueryBytes), withinBytes("digest", r.GetDigest(), index.MaxTextBytes),
		withinBytes("to", r.GetTo(), index.MaxTextBytes))
	if f != nil {
		return index.LineageRequest{}, f
	}
	since, until, f := sinceUntil(r)
	if f != nil {
		return index.LineageRequest{}, f
	}
	orDefault := func(n, usual uint32) int {
		if n == 0 {
			n = usual
		}
		return int(n)
	}
	out := index.LineageRequest{
		Digest: r.GetDigest(), Direction: r.GetDirection(), To: r.GetTo(), Depth: orDefault(r.GetDepth(), DefaultLineageDepth),
		Documents: orDefault(r.GetMaxDocuments(), DefaultLineageDocuments), Digests: orDefault(r.GetMaxDigests(), DefaultLineageDigests),
		Query: r.GetQuery(), Tenant: tenant, Since: since, Until: until, RequireComplete: r.GetRequireComplete(),
	}
	if out.Direction == "" {
		out.Direction = index.LineageUp
	}
	return out, nil
}

// sinceUntil reads the range of time of a request.
func sinceUntil(r interface {
	GetSince() *timestamppb.Timestamp
	GetUntil() *timestamppb.Timestamp
},
) (since, until int64, f *fault) {
	if since, f = bound("since", r.GetSince()); f != nil {
		return 0, 0, f
	}
	if until, f = bound("until", r.GetUntil()); f != nil {
		return 0, 0, f
	}
	if r.GetUntil() != nil && until == 0 {
		until = -1 // the index takes 0 for open; nothing is older than 1970
	}
	return since, until, nil
}

func lineageMessage(r *index.LineageResult) *provenancev1.LineageResponse {
	m := &provenancev1.LineageResponse{
		Steps:   make([]*provenancev1.LineageStep, len(r.Steps)),
		Digests: make([]*provenancev1.LineageDigest, len(r.Digests)),
		Costs:   make([]*provenancev1.Cost, len(r.Costs)),
		Shards:  shardMessages(r.Shards), Complete: r.Complete, Stopped: r.Stopped,
		DocumentsFollowed: uint32(r.Followed), DigestsReached: uint32(r.Reached),
	}
	for i := range r.Steps {
		step := &r.Steps[i]
		m.Steps[i] = &provenancev1.LineageStep{Document: DocumentMessage(&step.Document), Depth: uint32(step.Depth), Via: step.Via}
	}
	for i, d := range r.Digests {
		m.Digests[i] = &provenancev1.LineageDigest{Digest: d.Digest, Depth: uint32(d.Depth)}
	}
	for i, c := range r.Costs {
		m.Costs[i] = &provenancev1.Cost{MicroUnits: c.Micros, Currency: c.Currency}
	}
	return m
}

// parseLineage reads the parameters digest, direction, to, depth, maxDocuments, maxDigests,
// tenant, q, since and until, as parseSearch does its own.
func parseLineage(raw string) (*provenancev1.LineageRequest, *fault) {
	req := &provenancev1.LineageRequest{}
	f := parseParameters(raw, func(name, value string) (f *fault) {
		switch name {
		case "digest":
			req.Digest, f = parameterText(name, value)
		case "direction":
			req.Direction, f = parameterText(name, value)
		case "to":
			req.To, f = parameterText(name, value)
		case "tenant":
			req.Tenant, f = parameterText(name, value)
		case "q":
			req.Query, f = parameterText(name, value)
		case "since":
			req.Since, f = parameterTime(name, value)
		case "until":
			req.Until, f = parameterTime(name, value)
		case "depth":
			req.Depth, f = parameterNumber(name, value, index.LineageDepthMax)
		case "maxDocuments":
			req.MaxDocuments, f = parameterNumber(name, value, index.LineageDocumentsMax)
		case "maxDigests":
			req.MaxDigests, f = parameterNumber(name, value, index.LineageDigestsMax)
		default:
			return refuse(reasonParameterMalformed,
				"%q is not a parameter; use digest, direction, to, depth, maxDocuments, maxDigests, tenant, q, since and until", name)
		}
		return f
	})
	if f != nil {
		return nil, f
	}
	return req, nil
}

// parameterNumber reads a number from 1 to most.
func parameterNumber(name, value string, most uint32) (uint32, *fault) {
	n, err := strconv.ParseUint(value, 10, 32)
	if err != nil || n < 1 || n > uint64(most) {
		return 0, refuse(reasonParameterMalformed, "%s: %q is not a number from 1 to %d", name, value, most)
	}
	return uint32(n), nil
}
