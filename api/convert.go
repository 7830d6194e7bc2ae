package api

import (
	"math"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	provenancev1 "github.com/maestro-conductor/maestro/api/gen/mc/provenance/v1"
	"github.com/maestro-conductor/maestro/index"
)

// documentOf reads a message as a document, not yet normalised. The only thing that can be
// wrong here is a time that a document cannot hold.
func documentOf(m *provenancev1.Document) (index.Document, *index.DocumentError) {
	d := index.Document{
		ID: m.GetId(), Kind: m.GetKind(), Tenant: m.GetTenant(), Region: m.GetRegion(),
		Execution: m.GetExecution(), Task: m.GetTask(), Pack: m.GetPack(), Rule: m.GetRule(),
		Decision: m.GetDecision(), Reason: m.GetReason(), Runner: m.GetRunner(),
		CostMicros: m.GetCost().GetMicroUnits(), Currency: m.GetCost().GetCurrency(), DurationMs: m.GetDurationMs(),
	}
	if m.GetTime() == nil {
		d.TimeStamped = true // the index stamps it when it is stored
	} else {
		nanos, ok := nanosOf(m.GetTime())
		if !ok {
			return d, &index.DocumentError{
				Reason: index.ReasonTimeOutOfRange, Field: "time",
				Message: "the time is not between the years 1970 and 2261",
			}
		}
		d.Time, d.TimeStamped = nanos, m.GetTimeStamped()
	}
	if n := len(m.GetDigests()); n > 0 {
		d.Digests = make([]index.Digest, n)
		for i, g := range m.GetDigests() {
			d.Digests[i] = index.Digest{Value: g.GetDigest(), Direction: g.GetDirection(), Name: g.GetName()}
		}
	}
	if n := len(m.GetAttributes()); n > 0 {
		d.Attributes = make([]index.Attribute, 0, n)
		for name, value := range m.GetAttributes() {
			d.Attributes = append(d.Attributes, index.Attribute{Name: name, Value: value})
		}
	}
	return d, nil
}

// nanosOf is t in nanoseconds since 1970, where they fit and t is not before 1970.
func nanosOf(t *timestamppb.Timestamp) (int64, bool) {
	const most = math.MaxInt64/int64(time.Second) - 1
	if t.CheckValid() != nil || t.GetSeconds() < 0 || t.GetSeconds() > most {
		return 0, false
	}
	return t.GetSeconds()*int64(time.Second) + int64(t.GetNanos()), true
}

// DocumentMessage is a document on the wire.
func DocumentMessage(d *index.Document) *provenancev1.Document {
	m := &provenancev1.Document{
		Id: d.ID, Kind: d.Kind, Tenant: d.Tenant, Region: d.Region, Execution: d.Execution, Task: d.Task,
		Pack: d.Pack, Rule: d.Rule, Decision: d.Decision, Reason: d.Reason, Runner: d.Runner, DurationMs: d.DurationMs,
		TimeStamped: d.TimeStamped, Time: timestamppb.New(time.Unix(0, d.Time)),
	}
	if d.Currency != "" {
		m.Cost = &provenancev1.Cost{MicroUnits: d.CostMicros, Currency: d.Currency}
	}
	if n := len(d.Digests); n > 0 {
		m.Digests = make([]*provenancev1.Digest, n)
		for i, g := range d.Digests {
			m.Digests[i] = &provenancev1.Digest{Digest: g.Algorithm + ":" + g.Value, Direction: g.Direction, Name: g.Name}
		}
	}
	if n := len(d.Attributes); n > 0 {
		m.Attributes = make(map[string]string, n)
		for _, a := range d.Attributes {
			m.Attributes[a.Name] = a.Value
		}
	}
	return m
}

func searchMessage(r *index.SearchResult) *provenancev1.SearchResponse {
	m := &provenancev1.SearchResponse{
		Items: make([]*provenancev1.Document, len(r.Items)), Next: r.Next, Last: r.Last, Complete: r.Complete,
		Shards: shardMessages(r.Shards),
		Total:  &provenancev1.Total{Value: uint32(min(r.Total, math.MaxUint32)), Relation: "gte"},
	}
	if r.TotalExact {
		m.Total.Relation = "eq"
	}
	m.Facets, m.Histogram = facetMessages(r.Facets), histogramMessage(r.Histogram)
	m.Explain = explainMessage(r.Explain)
	for i := range r.Items {
		m.Items[i] = DocumentMessage(&r.Items[i])
	}
	return m
}

func facetMessages(facets []index.Facet) (out []*provenancev1.Facet) {
	for _, f := range facets {
		m := &provenancev1.Facet{Field: string(f.Field), Other: count32(f.Other), Missing: count32(f.Missing), Relation: "gte"}
		if f.Exact {
			m.Relation = "eq"
		}
		for _, v := range f.Values {
			m.Values = append(m.Values, &provenancev1.FacetValue{Value: v.Value, Count: count32(v.Count)})
		}
		out = append(out, m)
	}
	return out
}

func histogramMessage(h *index.Histogram) *provenancev1.Histogram {
	if h == nil {
		return nil
	}
	m := &provenancev1.Histogram{IntervalMs: float64(h.Interval) / float64(time.Millisecond)}
	for _, b := range h.Buckets {
		m.Buckets = append(m.Buckets, &provenancev1.Bucket{Start: timestamppb.New(time.Unix(0, b.Start)), Count: count32(b.Count)})
	}
	return m
}

func explainMessage(e *index.Explain) *provenancev1.Explain {
	if e == nil {
		return nil
	}
	m := &provenancev1.Explain{Query: e.Query, TookUs: microseconds(e.Took)}
	for _, s := range e.Shards {
		m.Shards = append(m.Shards, &provenancev1.ShardExplain{
			Shard: s.Shard, Documents: s.Documents, Heads: uint32(s.Heads), SegmentsVisited: uint32(s.Visited),
			SegmentsSkippedByFilter: uint32(s.SkippedByFilter), SegmentsSkippedByBounds: uint32(s.SkippedByBounds), SegmentsNotNeeded: uint32(s.NotNeeded),
			FilterProbes: s.FilterProbes, FilterMisses: s.FilterMisses, BlocksRead: s.BlocksRead, BytesRead: s.BytesRead,
			BlocksCached: s.BlocksCached, DocumentsExamined: s.Examined,
			PrefixesUs: microseconds(s.Prefixes), MatchUs: microseconds(s.Match), CountUs: microseconds(s.Count), ReadUs: microseconds(s.Read),
		})
	}
	return m
}

func microseconds(d time.Duration) uint32 { return count32(int(d.Microseconds())) }

func count32(n int) uint32 { return uint32(min(n, math.MaxUint32)) }

func shardMessages(shards []index.ShardState) []*provenancev1.ShardStatus {
	out := make([]*provenancev1.ShardStatus, len(shards))
	for i, st := range shards {
		out[i] = &provenancev1.ShardStatus{Shard: st.Shard, State: st.State, AppliedIndex: st.Applied, Message: st.Message, Missing: st.Missing}
	}
	return out
}
