package index

import (
	"slices"
	"sync"
)

// tally accounts for the documents of one batch.
type tally struct {
	docs []Document

	mu        sync.Mutex
	decided   int
	r         IngestResult
	positions map[string]uint64
}

func newTally(docs []Document) *tally {
	return &tally{docs: docs, positions: map[string]uint64{}}
}

func (t *tally) refuse(position int, reason, message string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.refuseLocked(position, reason, message)
}

func (t *tally) refuseLocked(position int, reason, message string) {
	t.decided++
	t.r.Refusals = append(t.r.Refusals, Refusal{Position: position, ID: t.docs[position].ID, Reason: reason, Message: message})
}

// add counts what a shard decided.
func (t *tally) add(shard string, index uint64, positions []int, outcomes []outcome) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.positions[shard] = max(t.positions[shard], index)
	for i, o := range outcomes {
		switch o {
		case outcomeIndexed:
			t.decided++
			t.r.Indexed++
		case outcomeExisting:
			t.decided++
			t.r.Existing++
			t.r.ExistingAt = append(t.r.ExistingAt, positions[i])
		case outcomeConflict:
			t.refuseLocked(positions[i], ReasonConflict,
				"the id is taken by a document with other content; give this one another id, or none to have one made from its content")
		default:
			t.refuseLocked(positions[i], ReasonDocumentCorrupt, "the document is not in normal form")
		}
	}
}

// result is what is known, in the order of the batch and of the shards.
func (t *tally) result(shards []Shard) IngestResult {
	t.mu.Lock()
	defer t.mu.Unlock()
	sortRefusals(t.r.Refusals)
	slices.Sort(t.r.ExistingAt)
	t.r.Positions = nil
	for _, s := range shards {
		if n, ok := t.positions[s.Name]; ok {
			t.r.Positions = append(t.r.Positions, ShardPosition{Shard: s.Name, Applied: n})
		}
	}
	return t.r
}

func (t *tally) failure(err error) error {
	if err == nil {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return &IngestError{Stored: t.decided, Unknown: len(t.docs) - t.decided, Err: err}
}
