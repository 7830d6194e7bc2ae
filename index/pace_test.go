package index

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/maestro-conductor/maestro/raftfsm"
)

// countingPacer refuses batches while full, and ends waits after some bytes.
type countingPacer struct {
	mu             sync.Mutex
	full           bool
	entered, spent int
	most           int
}

var errFull = errors.New("full")

func (p *countingPacer) Enter(bytes int) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.full {
		return errFull
	}
	p.entered += bytes
	return nil
}

func (p *countingPacer) Wait(_ context.Context, bytes int) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.spent+bytes > p.most {
		return context.DeadlineExceeded
	}
	p.spent += bytes
	p.entered -= bytes
	return nil
}

func (p *countingPacer) Leave(bytes int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.entered -= bytes
}

func manyDocuments(n int) []Document {
	docs := make([]Document, n)
	for i := range docs {
		docs[i] = Document{Kind: "receipt", Tenant: "acme", ID: fmt.Sprintf("d-%04d", i), Time: int64(i + 1), Reason: "because"}
	}
	return docs
}

// A batch that is refused for the pace has stored nothing; one that runs out of time on the
// way says what it has stored; either leaves no bytes behind, and a retry completes it.
func TestIngestKeepsToThePace(t *testing.T) {
	r := newRegion(t, 3, 64)
	p := &countingPacer{full: true, most: 40 << 10}
	r.service.pacer = p
	docs := manyDocuments(2000)
	_, err := r.service.Ingest(t.Context(), docs, "r")
	if !errors.Is(err, errFull) || !errors.Is(err, raftfsm.ErrOverloaded) || raftfsm.OutcomeOf(err) != raftfsm.OutcomeDefinite {
		t.Fatalf("a refused batch: %v", err)
	}
	p.full = false
	_, err = r.service.Ingest(t.Context(), docs, "r")
	var partly *IngestError
	if !errors.As(err, &partly) || !errors.Is(err, context.DeadlineExceeded) || raftfsm.OutcomeOf(err) != raftfsm.OutcomeUnknown {
		t.Fatalf("a batch that ran out of time: %v", err)
	}
	if partly.Stored == 0 || partly.Unknown == 0 || partly.Stored+partly.Unknown != len(docs) {
		t.Errorf("%d documents are stored and %d not, of %d", partly.Stored, partly.Unknown, len(docs))
	}
	p.most = 1 << 30
	res, err := r.service.Ingest(t.Context(), docs, "r")
	if err != nil || res.Indexed != len(docs) {
		t.Errorf("the retry: %+v, %v", res, err)
	}
	if p.entered != 0 {
		t.Errorf("%d bytes are left with the pacer", p.entered)
	}
}

// Of two documents of a batch with one id the first wins, however far apart they are.
func TestFirstOfOneIDWins(t *testing.T) {
	r := newRegion(t, 1, 64)
	docs := manyDocuments(1000)
	last := docs[0]
	last.Reason = "another"
	docs = append(docs, last)
	res, err := r.service.Ingest(t.Context(), docs, "")
	if err != nil || len(res.Refusals) != 1 || res.Refusals[0].Position != len(docs)-1 || res.Refusals[0].Reason != ReasonConflict {
		t.Errorf("got %+v, %v", res, err)
	}
}
