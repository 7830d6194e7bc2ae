package main

import (
	"cmp"
	"maps"
	"slices"
	"time"
)

// fate is what is known of one document.
type fate struct {
	execution string
	invoked   int64
	outcome   string
	// visible is when it had certainly been stored: acknowledged, or found; -1 while it is not
	// known to be.
	visible int64
}

// fates collects what the history says about every document that was sent.
func fates(h *History) map[string]*fate {
	out := map[string]*fate{}
	for i := range h.Ops {
		op := &h.Ops[i]
		if op.Ingest == nil || op.Ingest.Mode != ingestNew {
			continue
		}
		for _, id := range op.Ingest.IDs {
			d := &fate{execution: op.Ingest.Execution, invoked: op.Invoked, outcome: op.Outcome, visible: -1}
			if op.Outcome == outcomeOK {
				d.visible = op.Completed
			}
			out[id] = d
		}
	}
	for i := range h.Ops {
		op := &h.Ops[i]
		if op.Search == nil || op.Outcome != outcomeOK {
			continue
		}
		for _, found := range op.Search.Found {
			if d := out[found.ID]; d != nil && (d.visible < 0 || op.Completed < d.visible) {
				d.visible = op.Completed
			}
		}
	}
	return out
}

// checkAcknowledged demands that the last searches, one for each id, found every
// acknowledged document once. What they hold is checkReads' business.
func checkAcknowledged(h *History) Finding {
	f := Finding{Checker: "acknowledged documents", What: "documents"}
	last := map[string]*Op{}
	for i := range h.Ops {
		if op := &h.Ops[i]; op.Search != nil && op.Search.ID != "" && op.Phase == phaseFinal && op.Outcome == outcomeOK {
			last[op.Search.ID] = op
		}
	}
	docs := fates(h)
	for _, id := range sortedKeys(docs) {
		if docs[id].outcome != outcomeOK {
			continue
		}
		f.Checked++
		switch op := last[id]; {
		case op == nil:
			f.violate("document %s: acknowledged, but the last search for it was not answered", id)
		case !op.Search.Complete:
			f.violate("document %s: acknowledged, but the last search for it was incomplete", id)
		case len(op.Search.Found) != 1:
			f.violate("document %s: acknowledged, but the last search found it %d times", id, len(op.Search.Found))
		}
	}
	return f
}

// checkReads holds every complete answer to linearizability: it has each document that was
// certainly stored before the search began, none twice, none with other content, none that
// was not sent before it ended, and none whose ingest certainly failed. A document of unknown
// outcome may be there or not, but once found it stays.
func checkReads(h *History) Finding {
	f := Finding{Checker: "reads of documents", What: "complete answers"}
	docs := fates(h)
	byExecution := map[string][]string{}
	for _, id := range sortedKeys(docs) {
		byExecution[docs[id].execution] = append(byExecution[docs[id].execution], id)
	}
	for i := range h.Ops {
		op := &h.Ops[i]
		if op.Search == nil || op.Outcome != outcomeOK {
			continue
		}
		seen := judgeFound(&f, h.Header.Seed, op, docs)
		if !op.Search.Complete {
			continue
		}
		f.Checked++
		wanted := byExecution[op.Search.Execution]
		if op.Search.ID != "" {
			wanted = []string{op.Search.ID}
		}
		for _, id := range wanted {
			if d := docs[id]; d != nil && d.visible >= 0 && d.visible <= op.Invoked && !seen[id] {
				f.violate("the search of %s at %v missed document %s, stored by %v",
					op.Worker, time.Duration(op.Invoked), id, time.Duration(d.visible))
			}
		}
		if op.Search.Total != len(op.Search.Found) {
			f.violate("the search of %s at %v counts %d and holds %d", op.Worker, time.Duration(op.Invoked), op.Search.Total, len(op.Search.Found))
		}
	}
	return f
}

// judgeFound looks at what an answer holds, complete or not.
func judgeFound(f *Finding, seed uint64, op *Op, docs map[string]*fate) map[string]bool {
	seen := map[string]bool{}
	at := time.Duration(op.Invoked)
	for _, found := range op.Search.Found {
		d := docs[found.ID]
		switch {
		case seen[found.ID]:
			f.violate("the search of %s at %v holds document %s twice", op.Worker, at, found.ID)
		case d == nil || d.invoked > op.Completed:
			f.violate("the search of %s at %v found document %s, which had not been sent", op.Worker, at, found.ID)
		case d.outcome == outcomeFailed:
			f.violate("the search of %s at %v found document %s, whose ingest certainly failed", op.Worker, at, found.ID)
		case found.Content != content(seed, found.ID):
			f.violate("the search of %s at %v found document %s with other content %q", op.Worker, at, found.ID, found.Content)
		case op.Search.ID != "" && op.Search.ID != found.ID, op.Search.Execution != "" && op.Search.Execution != d.execution:
			f.violate("the search of %s at %v found document %s, which does not match", op.Worker, at, found.ID)
		}
		seen[found.ID] = true
	}
	return seen
}

// checkIngestCounts demands that answers to ingests account for their documents: new ones are
// taken, acknowledged ones recognised, and those that contradict an acknowledged one refused.
func checkIngestCounts(h *History) Finding {
	f := Finding{Checker: "ingest counts", What: "answers"}
	for i := range h.Ops {
		op := &h.Ops[i]
		if op.Ingest == nil || op.Outcome != outcomeOK {
			continue
		}
		f.Checked++
		in, n := op.Ingest, len(op.Ingest.IDs)
		good := false
		switch in.Mode {
		case ingestNew: // a retry inside the client may find what its first try stored
			good = in.Indexed+in.Existing == n && in.Refused == 0
		case ingestRepeat:
			good = in.Existing == n && in.Indexed == 0 && in.Refused == 0
		case ingestConflict:
			good = in.Refused == n && in.Indexed == 0 && in.Existing == 0
		}
		if !good {
			f.violate("the ingest (%s) of %s at %v of %d documents was answered: %d indexed, %d existing, %d refused",
				in.Mode, op.Worker, time.Duration(op.Invoked), n, in.Indexed, in.Existing, in.Refused)
		}
	}
	return f
}

// sortedKeys makes reports the same every time.
func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }
