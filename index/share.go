package index

import (
	"context"
	"errors"
	"math"
	"slices"
)

// Documents are spread over shards by a hash of their ids, so of a page each shard has its part, more
// or less. To read a whole page in every shard would be to read most documents in vain.

// shareOf is how many documents a shard is asked for first: three standard deviations more than its part
// of a page, which is too few for one page in hundreds.
func shareOf(limit, shards int) int {
	n, k := float64(limit), float64(shards)
	return min(limit, int(math.Ceil(n/k+3*math.Sqrt(n*(k-1))/k)))
}

// errNotAsked is the state of the shards that have enough.
var errNotAsked = errors.New("not asked")

// refill asks shards again that the page needs more of than they were asked for, which was q. When one
// cannot answer, or has sent as many bytes as it may, the page ends there.
func (s *Service) refill(ctx context.Context, q shardQuery, start *cursor, m *merger) error {
	asked := make([]int, len(m.replies))
	for m.dry >= 0 && len(m.items) < m.limit {
		i := m.dry
		if m.taken[i] < asked[i]+q.limit {
			return nil
		}
		a := m.replies[i].answer
		rest := shardQuery{conditions: q.conditions, text: q.text, limit: m.limit - len(m.items), bound: &a.bound}
		rest.order, rest.after = q.order, positionOf(m.last[i], q.order)
		asked[i] += rest.limit
		others := slices.Repeat([]error{errNotAsked}, len(s.shards))
		others[i] = nil
		r := s.scatter(ctx, rest, start, others, false)[i]
		if r.err != nil || r.answer.mistake != nil || r.answer.behind || r.answer.refusal != "" || r.answer.missing != a.missing {
			return nil
		}
		a.rows, a.more = r.answer.rows, r.answer.more
		if err := m.advance(i); err != nil {
			return err
		}
		if err := m.run(); err != nil {
			return err
		}
	}
	return nil
}
