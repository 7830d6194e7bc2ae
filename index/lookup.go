package index

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/maestro-conductor/maestro/index/query"
)

// Bounds of a lookup.
const (
	// LookupDigestsMax is how many digests one lookup has at most.
	LookupDigestsMax = 10_000
	// LookupDocumentsMax bounds the documents of one digest, and LookupTotalMax those of all
	// digests together.
	LookupDocumentsMax = 100
	LookupTotalMax     = 100_000
	// lookupBytesMax bounds the encoded documents of an answer.
	lookupBytesMax = 8 << 20
)

// LookupRequest asks for many digests at once.
type LookupRequest struct {
	// Digests are in any spelling of ParseDigest. Hex without an algorithm is read in every
	// algorithm with values of that length, as in searches.
	Digests []string
	// Documents is how many of the newest documents of each digest are wanted, 0 to
	// LookupDocumentsMax, and at most LookupTotalMax for all digests together.
	Documents int
	// Query, Tenant, Since and Until restrict the documents, as the Query, Tenant, From and To
	// of a search do.
	Query, Tenant string
	Since, Until  int64
	// RequireComplete makes a shard that cannot answer an error.
	RequireComplete bool
}

// LookupResult has an answer for each digest, in the order of the request.
type LookupResult struct {
	Digests []LookupAnswer
	// Cut is true when documents were left out because they have more than 8 MiB together.
	Cut bool
	// Complete is false when a shard could not answer; counts are lower bounds then.
	Complete bool
	Shards   []ShardState
}

// LookupAnswer is what is known of one digest.
type LookupAnswer struct {
	// Digest is as it was asked for.
	Digest string
	// Count is how many documents have it, in any direction; it is exact.
	Count int
	// Documents are the newest of them.
	Documents []Document
	// Problem says why this is no digest; it is empty for one.
	Problem string
}

// Lookup answers for many digests with one question to each shard. Errors are as those of
// Search; what is no digest has its Problem in the answer and does not hinder the others.
func (s *Service) Lookup(ctx context.Context, r LookupRequest) (LookupResult, error) {
	q, err := checkLookup(r)
	if err != nil {
		return LookupResult{}, err
	}
	out := LookupResult{Digests: make([]LookupAnswer, len(r.Digests))}
	asked := make([]int, 0, len(r.Digests)) // places of what are digests
	for i, text := range r.Digests {
		out.Digests[i].Digest = text
		readings, problem := lookupReadings(text)
		if out.Digests[i].Problem = problem; problem == "" {
			asked, q.lookup = append(asked, i), append(q.lookup, readings)
		}
	}
	replies := s.scatter(ctx, q, newCursor(len(s.shards)), nil, r.RequireComplete)
	states, err := s.gather(replies, SearchRequest{RequireComplete: r.RequireComplete})
	if err != nil {
		return LookupResult{}, err
	}
	out.Shards, out.Complete = states.Shards, states.Complete
	size := 0
	for n, i := range asked {
		if err := out.Digests[i].merge(replies, n, r.Documents, &size); err != nil {
			return LookupResult{}, err
		}
		out.Cut = out.Cut || len(out.Digests[i].Documents) < min(r.Documents, out.Digests[i].Count)
	}
	return out, nil
}

func checkLookup(r LookupRequest) (shardQuery, error) {
	q := shardQuery{conditions: conditions{tenant: r.Tenant, from: r.Since, to: r.Until}, text: r.Query, limit: 1}
	q.lookup, q.perDigest = [][]string{}, r.Documents
	n := len(r.Digests)
	switch {
	case n < 1 || n > LookupDigestsMax:
		return q, fmt.Errorf("%w: %d digests are not between 1 and %d", ErrCondition, n, LookupDigestsMax)
	case r.Documents < 0 || r.Documents > LookupDocumentsMax || r.Documents*n > LookupTotalMax:
		return q, fmt.Errorf("%w: %d documents of each of %d digests; at most %d of one, and %d of all", ErrCondition, r.Documents, n, LookupDocumentsMax, LookupTotalMax)
	case r.Since != 0 && r.Until != 0 && r.Since > r.Until:
		return q, fmt.Errorf("%w: the range of time ends before it begins", ErrCondition)
	}
	node, err := query.Parse(r.Query)
	if err != nil {
		return q, err
	}
	_, err = compile(node, q.conditions)
	return q, err
}

// lookupReadings are the digests that a text can mean, or why there are none.
func lookupReadings(text string) (readings []string, problem string) {
	text = strings.TrimSpace(text)
	if len(text) <= MaxTextBytes {
		readings = digestReadings(text)
	}
	if len(readings) > 0 {
		return readings, ""
	}
	var why *DocumentError
	if _, _, err := ParseDigest(text); errors.As(err, &why) {
		return nil, why.Message
	}
	return nil, quote(text) + " is not a digest; write ALGORITHM:HEX"
}

// merge joins what the shards have of the n-th digest. size is that of all documents so far.
func (a *LookupAnswer) merge(replies []reply, n, documents int, size *int) error {
	m := merger{limit: documents}
	for i := range replies {
		one := &shardAnswer{}
		if from := replies[i].answer; from != nil {
			if n >= len(from.lookup) {
				return fmt.Errorf("lookup: answer of a shard: %w", errWire)
			}
			found := from.lookup[n]
			a.Count += int(found.count)
			rows := found.rows
			for at, row := range rows {
				// The merger stops where a shard has more than is at hand.
				if *size+len(row) > lookupBytesMax {
					rows = rows[:at]
					break
				}
				*size += len(row)
			}
			one.rows, one.more = rows, uint64(len(rows)) < found.count
		}
		m.replies = append(m.replies, reply{answer: one})
	}
	if documents == 0 {
		return nil
	}
	err := m.run()
	a.Documents = m.items
	return err
}
