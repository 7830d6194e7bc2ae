package index

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"strconv"
	"sync"

	"github.com/maestro-conductor/maestro/raftfsm"
)

// ReasonConflict refuses a document whose id is taken by a document with other content.
const ReasonConflict = "conflict"

// BatchDocumentsMax is how many documents Ingest takes at once.
const BatchDocumentsMax = 50_000

// part is one command: some documents of a batch for one shard.
type part struct {
	command   []byte
	positions []int
}

// Ingest stores documents that Normalize has accepted. Documents for one shard take effect
// in their order. With a requestID a repeated call returns the first answer for ten minutes;
// it is scoped to the tenant of the first document. When a shard fails the error is an
// *IngestError.
func (s *Service) Ingest(ctx context.Context, docs []Document, requestID string) (IngestResult, error) {
	if len(docs) > BatchDocumentsMax {
		return IngestResult{}, fmt.Errorf("%w: a batch of %d documents; send at most %d at once", ErrCondition, len(docs), BatchDocumentsMax)
	}
	if len(docs) == 0 {
		return IngestResult{}, nil
	}
	if requestID == "" {
		requestID = rand.Text()
	}
	tally := newTally(docs)
	parts := s.split(docs, tally)
	failures := make([]error, len(parts))
	var wg sync.WaitGroup
	for n, shardParts := range parts {
		wg.Go(func() {
			for i, p := range shardParts {
				id := raftfsm.NewRequestID("index.ingest", docs[0].Tenant, requestID, s.shards[n].Name, strconv.Itoa(i))
				if failures[n] = s.propose(ctx, s.shards[n], p, id, tally); failures[n] != nil {
					return
				}
			}
		})
	}
	wg.Wait()
	return tally.result(s.shards), tally.failure(worst(failures))
}

// worst is the failure that says least about what happened: one shard that may have stored
// its part makes the whole batch unknown.
func worst(failures []error) error {
	var first error
	for _, err := range failures {
		switch {
		case err == nil:
		case raftfsm.OutcomeOf(err) == raftfsm.OutcomeUnknown:
			return err
		case first == nil:
			first = err
		}
	}
	return first
}

// propose sends one part and counts what became of it.
func (s *Service) propose(ctx context.Context, shard Shard, p part, id raftfsm.RequestID, t *tally) error {
	select {
	case s.proposals <- struct{}{}:
		defer func() { <-s.proposals }()
	case <-ctx.Done():
		return &raftfsm.Error{Op: "propose", Group: shard.Name, Outcome: raftfsm.OutcomeDefinite, Err: ctx.Err()}
	}
	r, err := s.groups.Propose(ctx, shard.Group, raftfsm.Command{Data: p.command, RequestID: id})
	if err != nil {
		return err
	}
	outcomes, err := decodeResult(r.Data, len(p.positions))
	if err != nil {
		return &raftfsm.Error{Op: "propose", Group: shard.Name, Outcome: raftfsm.OutcomeUnknown, Err: err}
	}
	t.add(shard.Name, r.Index, p.positions, outcomes)
	return nil
}

// split encodes the documents into commands by shard. The split depends on the documents
// alone, so that the request ids of a repeated call name the same parts.
func (s *Service) split(docs []Document, t *tally) [][]part {
	parts := make([][]part, len(s.shards))
	var enc []byte
	for i := range docs {
		d := &docs[i]
		enc = AppendDocument(enc[:0], d)
		if len(enc) > MaxDocumentBytes {
			t.refuse(i, ReasonDocumentTooLarge, fmt.Sprintf("the document has %d bytes, more than %d", len(enc), MaxDocumentBytes))
			continue
		}
		n := s.router.shard(d.Tenant, d.ID)
		last := len(parts[n]) - 1
		// One varint of up to five bytes precedes the document.
		if last < 0 || len(parts[n][last].command)+len(enc)+5 > raftfsm.CommandBytesMax {
			parts[n] = append(parts[n], part{command: commandHeader()})
			last++
		}
		p := &parts[n][last]
		p.command = appendCommandDocument(p.command, enc)
		p.positions = append(p.positions, i)
	}
	return parts
}

func sortRefusals(r []Refusal) {
	slices.SortFunc(r, func(a, b Refusal) int { return a.Position - b.Position })
}
