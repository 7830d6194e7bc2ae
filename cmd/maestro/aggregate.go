package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	provenancev1 "github.com/maestro-conductor/maestro/api/gen/mc/provenance/v1"
)

// explainTable has a line for each shard.
func explainTable(w io.Writer, e *provenancev1.Explain) {
	if e == nil {
		return
	}
	us := func(n uint32) time.Duration { return time.Duration(n) * time.Microsecond }
	fmt.Fprintf(w, "\n%s\ntook %s\n", e.GetQuery(), us(e.GetTookUs()))
	fmt.Fprintln(w, "SHARD\tDOCUMENTS\tHEADS\tSEGMENTS\tSKIPPED\tBLOCKS\tBYTES\tEXAMINED\tPREFIXES\tMATCH\tCOUNT\tREAD")
	for _, s := range e.GetShards() {
		skipped := fmt.Sprintf("%d filter %d bounds %d order", s.GetSegmentsSkippedByFilter(), s.GetSegmentsSkippedByBounds(), s.GetSegmentsNotNeeded())
		fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%s\t%d+%d cached\t%d\t%d\t%s\t%s\t%s\t%s\n", s.GetShard(), s.GetDocuments(), s.GetHeads(), s.GetSegmentsVisited(), skipped,
			s.GetBlocksRead(), s.GetBlocksCached(), s.GetBytesRead(), s.GetDocumentsExamined(),
			us(s.GetPrefixesUs()), us(s.GetMatchUs()), us(s.GetCountUs()), us(s.GetReadUs()))
	}
}

// barWidth is how long the longest bar of a table is.
const barWidth = 40

func bar(n, most uint32) string {
	if most == 0 || n == 0 {
		return ""
	}
	return strings.Repeat("#", max(1, int(uint64(n)*barWidth/uint64(most))))
}

// facetTables has a table for each facet.
func facetTables(w io.Writer, facets []*provenancev1.Facet) {
	for _, f := range facets {
		fmt.Fprintf(w, "%s\tCOUNT\t\n", strings.ToUpper(f.GetField()))
		most := uint32(0)
		for _, v := range f.GetValues() {
			most = max(most, v.GetCount())
		}
		for _, v := range f.GetValues() {
			fmt.Fprintf(w, "%s\t%d\t%s\n", shorten(v.GetValue(), 40), v.GetCount(), bar(v.GetCount(), most))
		}
		if f.GetOther() > 0 {
			fmt.Fprintf(w, "(others)\t%d\t\n", f.GetOther())
		}
		if f.GetMissing() > 0 {
			fmt.Fprintf(w, "(none)\t%d\t\n", f.GetMissing())
		}
		if f.GetRelation() != "eq" {
			fmt.Fprintln(w, "counts are lower bounds: there are too many different values to count them all, or a shard is missing")
		}
		fmt.Fprintln(w)
	}
}

func histogramTable(w io.Writer, h *provenancev1.Histogram) {
	if h == nil {
		return
	}
	interval := time.Duration(h.GetIntervalMs() * float64(time.Millisecond))
	layout := "2006-01-02 15:04"
	switch {
	case interval < time.Second:
		layout = "2006-01-02 15:04:05.000"
	case interval < time.Minute:
		layout = time.DateTime
	case interval%(24*time.Hour) == 0:
		layout = time.DateOnly
	}
	fmt.Fprintf(w, "FROM\tCOUNT\teach %s\n", interval)
	most := uint32(0)
	for _, b := range h.GetBuckets() {
		most = max(most, b.GetCount())
	}
	for i, b := range h.GetBuckets() {
		if i > 0 && b.GetStart().AsTime().Sub(h.GetBuckets()[i-1].GetStart().AsTime()) > interval {
			fmt.Fprintln(w, "...\t\t")
		}
		fmt.Fprintf(w, "%s\t%d\t%s\n", b.GetStart().AsTime().Format(layout), b.GetCount(), bar(b.GetCount(), most))
	}
	fmt.Fprintln(w)
}
