package index

import (
	"encoding/binary"
	"time"

	"github.com/maestro-conductor/maestro/index/internal/segment"
)

// Explain is what a search did.
type Explain struct {
	// Query is the text as it was understood.
	Query string
	// Took is the time from the first question to a shard to the merged page.
	Took   time.Duration
	Shards []ShardExplain // those that answered
}

// ShardExplain is what a search did in one shard.
type ShardExplain struct {
	Shard string
	// Documents is how many there are in the shard for the search.
	Documents uint64
	// Heads is the parts in memory that were looked at. Segments are Visited, or turned away
	// without a read by their filter or by the bounds of their times and costs, or NotNeeded for the page
	// and its total.
	Heads, Visited, SkippedByFilter, SkippedByBounds, NotNeeded int
	// FilterProbes is how many terms segments were asked for, FilterMisses how many of them
	// their filters excluded.
	FilterProbes, FilterMisses uint64
	// BlocksRead, with BytesRead, came from files, BlocksCached from memory.
	BlocksRead, BytesRead, BlocksCached uint64
	// Examined is how many documents of segments were looked at one by one.
	Examined uint64
	// Prefixes, Match, Count and Read are the times spent on what prefixes stand for, on finding
	// all matches, on facets and the histogram, and on reading the page's documents.
	Prefixes, Match, Count, Read time.Duration
}

// numbers are all that travels.
func (e *ShardExplain) numbers() []*uint64 {
	return []*uint64{&e.Documents, &e.FilterProbes, &e.FilterMisses, &e.BlocksRead, &e.BytesRead, &e.BlocksCached, &e.Examined}
}

func (e *ShardExplain) counts() []*int {
	return []*int{&e.Heads, &e.Visited, &e.SkippedByFilter, &e.SkippedByBounds, &e.NotNeeded}
}

func (e *ShardExplain) times() []*time.Duration {
	return []*time.Duration{&e.Prefixes, &e.Match, &e.Count, &e.Read}
}

func (e *ShardExplain) append(b []byte) []byte {
	for _, n := range e.numbers() {
		b = binary.AppendUvarint(b, *n)
	}
	for _, n := range e.counts() {
		b = binary.AppendUvarint(b, uint64(*n))
	}
	for _, d := range e.times() {
		b = binary.AppendUvarint(b, uint64(max(*d, 0)))
	}
	return b
}

func (r *wireReader) explain() *ShardExplain {
	e := &ShardExplain{}
	for _, n := range e.numbers() {
		*n = r.uvarint()
	}
	for _, n := range e.counts() {
		*n = r.count(1 << 30)
	}
	for _, d := range e.times() {
		*d = time.Duration(r.count(1 << 62))
	}
	return e
}

// observer watches one search of a shard; nil watches nothing.
type observer struct {
	ShardExplain
	begun time.Time
	stats []segment.Stats // by source
	found []uint64        // matches by source; unopened where the source was not opened
}

const unopened = ^uint64(0)

// observe makes the sources of a search count what they do.
func observe(sources []source) *observer {
	o := &observer{begun: time.Now(), stats: make([]segment.Stats, len(sources)), found: make([]uint64, len(sources))}
	for i, src := range sources {
		o.found[i] = unopened
		if s, ok := src.(segmentSource); ok {
			// A segment of its own for this search; what it finds damaged is the shared one.
			whole := s.sealed
			sources[i] = segmentSource{&sealed{Segment: s.Observed(&o.stats[i]), name: s.name, width: s.width, damaged: func(*sealed) { whole.damaged(whole) }}}
			sources[i].(segmentSource).cold.Store(s.cold.Load())
		}
	}
	return o
}

// stage begins a stage; the function it returns adds its time to spent.
func (o *observer) stage(spent func(*ShardExplain) *time.Duration) func() {
	if o == nil {
		return func() {}
	}
	begun := time.Now()
	return func() { *spent(&o.ShardExplain) += time.Since(begun) }
}

func stagePrefixes(e *ShardExplain) *time.Duration { return &e.Prefixes }
func stageMatch(e *ShardExplain) *time.Duration    { return &e.Match }
func stageCount(e *ShardExplain) *time.Duration    { return &e.Count }

// opened notes what a source had.
func (o *observer) opened(n int, matches uint64) {
	if o != nil {
		o.found[n] = matches
	}
}

// result sums up.
func (o *observer) result(sources []source, documents uint64) *ShardExplain {
	if o == nil {
		return nil
	}
	e := &o.ShardExplain
	e.Documents = documents
	for i, src := range sources {
		s, found := o.stats[i], o.found[i]
		_, isSegment := src.(segmentSource)
		switch {
		case !isSegment:
			if found != unopened {
				e.Heads++
			}
		case found == unopened:
			e.NotNeeded++
		case found > 0 || s.BlocksRead+s.BlocksCached > 0:
			e.Visited++
		case s.Misses > 0:
			e.SkippedByFilter++
		default:
			e.SkippedByBounds++
		}
		e.FilterProbes, e.FilterMisses = e.FilterProbes+s.Probes, e.FilterMisses+s.Misses
		e.BlocksRead, e.BytesRead, e.BlocksCached = e.BlocksRead+s.BlocksRead, e.BytesRead+s.BytesRead, e.BlocksCached+s.BlocksCached
		e.Examined += s.Examined
	}
	e.Read = max(time.Since(o.begun)-e.Prefixes-e.Match-e.Count, 0)
	return e
}

// explainOf gathers what the shards tell.
func explainOf(text string, begun time.Time, shards []Shard, replies []reply) *Explain {
	out := &Explain{Query: text, Took: time.Since(begun)}
	for i := range replies {
		if a := replies[i].answer; a != nil && a.explain != nil {
			e := *a.explain
			e.Shard = shards[i].Name
			out.Shards = append(out.Shards, e)
		}
	}
	return out
}
