package index

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"hash/maphash"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/maestro-conductor/maestro/raftfsm"
)

// ReasonConflict refuses a document whose id is taken by a document with other content.
const ReasonConflict = "conflict"

// partBytes is how large the commands of a batch are, about; only a larger document makes a
// larger one. While a node writes, sends or applies a command, the checks on it wait: of 32 KiB, some
// three milliseconds, they notice little, of hundreds they notice most. Smaller ones, each an entry of its own
// while ingest is paced, cost more for each document: an entry takes as much on three nodes as fifty of
// its documents. At full speed the group puts many into one log entry. It is part of what a request id means; changing it makes a retry across the change
// find the documents existing.
const partBytes = 32 << 10

// BatchDocumentsMax is how many documents Ingest takes at once.
const BatchDocumentsMax = 50_000

// part is one command: some documents of a batch for one shard.
type part struct {
	command   []byte
	positions []int
	passed    bool // the pacer has let it through
}

// Ingest stores documents that Normalize has accepted. Of documents with the same id the
// first takes effect first. With a requestID a repeated call returns the first answer for ten minutes;
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
	leave, err := s.enter(parts)
	if err != nil {
		return IngestResult{}, err
	}
	defer leave()
	workers := partsInFlightMax
	if repeatsID(docs) {
		workers = 1
	}
	failures := make([]error, len(parts)*workers)
	var wg sync.WaitGroup
	for n, shardParts := range parts {
		var next atomic.Int64
		for w := range min(workers, len(shardParts)) {
			wg.Go(func() {
				failure := &failures[n*workers+w]
				for *failure == nil {
					i := int(next.Add(1)) - 1
					if i >= len(shardParts) {
						return
					}
					id := raftfsm.NewRequestID("index.ingest.3", docs[0].Tenant, requestID, s.shards[n].Name, strconv.Itoa(i))
					*failure = s.propose(ctx, s.shards[n], &shardParts[i], id, tally)
				}
			})
		}
	}
	wg.Wait()
	return tally.result(s.shards), tally.failure(worst(failures))
}

// enter asks the pacer for room for all parts; leave gives back what was not used.
func (s *Service) enter(parts [][]part) (leave func(), err error) {
	size := 0
	for _, shardParts := range parts {
		for _, p := range shardParts {
			size += len(p.command)
		}
	}
	if err := s.pacer.Enter(size); err != nil {
		return nil, &raftfsm.Error{Op: "ingest", Group: "index", Outcome: raftfsm.OutcomeDefinite, Err: errors.Join(raftfsm.ErrOverloaded, err)}
	}
	return func() {
		left := 0
		for _, shardParts := range parts {
			for _, p := range shardParts {
				if !p.passed {
					left += len(p.command)
				}
			}
		}
		s.pacer.Leave(left)
	}, nil
}

// repeatsID tells whether a batch has two documents with one id: their order matters then.
func repeatsID(docs []Document) bool {
	// Two whose hashes are equal by chance only make it slower.
	seen := make(map[uint64]struct{}, len(docs))
	for i := range docs {
		seen[3*maphash.String(headSeed, docs[i].ID)+maphash.String(headSeed, docs[i].Tenant)] = struct{}{}
	}
	return len(seen) < len(docs)
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
func (s *Service) propose(ctx context.Context, shard Shard, p *part, id raftfsm.RequestID, t *tally) error {
	notSent := func(err error) error {
		return &raftfsm.Error{Op: "propose", Group: shard.Name, Outcome: raftfsm.OutcomeDefinite, Err: err}
	}
	if err := s.pacer.Wait(ctx, len(p.command)); err != nil {
		return notSent(err)
	}
	p.passed = true
	select {
	case s.proposals <- struct{}{}:
		defer func() { <-s.proposals }()
	case <-ctx.Done():
		return notSent(ctx.Err())
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
	stamps := s.groups.Level() >= raftfsm.LevelSegments
	for i := range docs {
		d := docs[i]
		if d.TimeStamped && !stamps {
			d.Time = 0 // an earlier build stamps it again
		}
		enc = AppendDocument(enc[:0], &d)
		if len(enc) > MaxDocumentBytes {
			t.refuse(i, ReasonDocumentTooLarge, fmt.Sprintf("the document has %d bytes, more than %d", len(enc), MaxDocumentBytes))
			continue
		}
		n := s.router.shard(d.Tenant, d.ID)
		last := len(parts[n]) - 1
		// One varint of up to five bytes precedes the document.
		if last < 0 || len(parts[n][last].command)+len(enc)+5 > partBytes && len(parts[n][last].positions) > 0 {
			parts[n] = append(parts[n], part{command: append(make([]byte, 0, max(partBytes, len(enc)+8)), commandHeader()...)})
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
