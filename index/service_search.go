package index

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/maestro-conductor/maestro/index/internal/segment"
	"github.com/maestro-conductor/maestro/index/query"
	"github.com/maestro-conductor/maestro/raftfsm"
)

// Search returns one page. It asks every shard for its first documents, as fresh as all
// writes acknowledged before, and merges them. A page may hold less than the limit when its
// documents are large; the last page alone has no Next.
//
// With Follow the last page has a Next too. It finds what was stored since the first page, as
// a search of its own with pages and a total, and so on for ever: each document is found once.
//
// A shard that cannot answer is reported in Shards and makes Complete false; when none can,
// or with RequireComplete or Follow when one cannot, the error is a *ShardsError. Other errors are
// ErrQuery, ErrCondition, ErrCursor and ErrNotReady.
func (s *Service) Search(ctx context.Context, r SearchRequest) (SearchResult, error) {
	n, c, err := check(r)
	if err != nil {
		return SearchResult{}, err
	}
	search := fingerprint(n, c, r.Order, s.shards)
	start := newCursor(len(s.shards))
	start.order = r.Order
	q := shardQuery{conditions: c, text: r.Query, limit: r.Limit, exact: r.Exact}
	for _, f := range r.Facets {
		q.facets = append(q.facets, string(f))
	}
	q.histogram, q.order, q.explain = r.Histogram, r.Order, r.Explain
	r.Exact = r.Exact || q.aggregates()
	key, keyKnown := s.cursorKey()
	if r.Cursor != "" {
		if !keyKnown {
			return SearchResult{}, ErrNotReady
		}
		if start, err = decodeCursor(r.Cursor, key, search, r.Order, len(s.shards)); err != nil {
			return SearchResult{}, err
		}
		q.after = start.after
	}
	// What a missing shard has for this page would never be found later.
	r.RequireComplete = r.RequireComplete || r.Follow
	begun := time.Now()
	q.limit = shareOf(r.Limit, len(s.shards))
	replies := s.scatter(ctx, q, start, nil, r.RequireComplete)
	result, err := s.gather(replies, r)
	if err != nil {
		return SearchResult{}, err
	}
	result.Facets = joinFacets(&r, replies, result.Complete)
	if result.Histogram, err = joinHistograms(&r, replies); err != nil {
		return SearchResult{}, err
	}
	m := merger{replies: replies, limit: r.Limit, order: r.Order}
	if err := m.run(); err != nil {
		return SearchResult{}, err
	}
	if err := s.refill(ctx, q, start, &m); err != nil {
		return SearchResult{}, err
	}
	result.Items = m.items
	if r.Explain {
		result.Explain = explainOf(n.String(), begun, s.shards, replies)
	}
	next := start.next(replies, &m, r.Follow)
	result.Last = next == nil || next.after == nil
	if next == nil {
		return result, nil
	}
	if !keyKnown {
		return SearchResult{}, ErrNotReady
	}
	result.Next = next.encode(key, search)
	return result, nil
}

// next is where the page after the one that began at c begins; nil when there is none.
func (c *cursor) next(replies []reply, m *merger, follow bool) *cursor {
	if m.more && len(m.items) > 0 {
		next := &cursor{order: c.order, after: positionOf(&m.items[len(m.items)-1], c.order), bounds: c.bounds, since: c.since}
		for i, reply := range replies {
			if reply.answer != nil {
				next.bounds[i] = reply.answer.bound + 1
			}
		}
		return next
	}
	if !follow {
		return nil
	}
	next := newCursor(len(replies))
	next.order = c.order
	for i, reply := range replies {
		next.since[i] = reply.answer.bound
	}
	return next
}

// check validates a request before any shard is asked.
func check(r SearchRequest) (query.Node, conditions, error) {
	c := conditions{tenant: r.Tenant, pack: r.Pack, digest: r.Digest, from: r.From, to: r.To}
	if r.Limit < 1 || r.Limit > PageMax {
		return nil, c, fmt.Errorf("%w: limit %d is not between 1 and %d", ErrCondition, r.Limit, PageMax)
	}
	if r.From != 0 && r.To != 0 && r.From > r.To {
		return nil, c, fmt.Errorf("%w: the range of time ends before it begins", ErrCondition)
	}
	if int(r.Order) >= len(OrderNames) {
		return nil, c, fmt.Errorf("%w: there is no order %d", ErrCondition, r.Order)
	}
	if err := checkAggregates(&r); err != nil {
		return nil, c, err
	}
	n, err := query.Parse(r.Query)
	if err != nil {
		return nil, c, err
	}
	_, err = compile(n, c)
	return n, c, err
}

// gather turns the replies into shard states and a total.
func (s *Service) gather(replies []reply, r SearchRequest) (SearchResult, error) {
	out := SearchResult{Complete: true, TotalExact: true}
	var errs, partial []error
	total := uint64(0)
	for i := range replies {
		reply := &replies[i]
		state := ShardState{Shard: s.shards[i].Name, State: ShardOK, Applied: reply.applied}
		switch {
		case reply.err != nil:
			reply.answer = nil
			state.State, state.Message = shardState(reply.err)
			state.Missing = missingOf(len(replies))
			errs = append(errs, reply.err)
			out.Complete = false
		case reply.answer.mistake != nil:
			return out, reply.answer.mistake
		case reply.answer.behind:
			return out, &CursorError{CursorStale, "it counts documents that this region does not have; start the search again"}
		case reply.answer.refusal != "":
			return out, fmt.Errorf("%w: %s", ErrCondition, reply.answer.refusal)
		default:
			total += reply.answer.total
			out.TotalExact = out.TotalExact && !reply.answer.capped
			if missing := reply.answer.missing; missing != "" {
				state.State, state.Message, state.Missing = ShardPartial, messageAway, missing
				out.Complete = false
				partial = append(partial, errAway)
			}
		}
		out.Shards = append(out.Shards, state)
	}
	if len(errs) == len(replies) || len(errs)+len(partial) > 0 && r.RequireComplete {
		return out, &ShardsError{Shards: out.Shards, errs: append(errs, partial...)}
	}
	if !r.Exact && total > TotalMax {
		total, out.TotalExact = TotalMax, false
	}
	out.Total = int(total)
	out.TotalExact = out.TotalExact && out.Complete
	return out, nil
}

// messageAway is the message of a shard that leaves out cold segments.
const messageAway = "the store of cold segments cannot be read"

var errAway = errors.New(messageAway)

// shardState names what kept a shard from answering, in words that callers may see: the
// error itself can hold addresses.
func shardState(err error) (state, message string) {
	switch {
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return ShardTimeout, "no answer in time"
	case errors.Is(err, raftfsm.ErrNoLeader), errors.Is(err, raftfsm.ErrLost), errors.Is(err, raftfsm.ErrShutdown):
		return ShardUnreachable, "no reachable leader"
	}
	return ShardError, "it failed to answer"
}

// missingOf says what a shard has that cannot answer: documents are spread over shards evenly, by id.
func missingOf(shards int) string {
	if shards == 1 {
		return "all documents"
	}
	return fmt.Sprintf("the documents of this shard, about 1 in %d of all, of every time and tenant", shards)
}

// merger joins the shards' documents in order.
type merger struct {
	replies []reply
	limit   int
	order   Order
	heads   []*Document // the next document of each shard, nil at its end
	last    []*Document // the one before
	taken   []int       // documents of each shard so far
	items   []Document
	// more is set when documents follow the last item.
	more bool
	// dry is the shard that has more, but not at hand, and so ended the page; -1 for none.
	dry int
}

// run merges what is at hand. It goes on when there is more of the shard that was dry.
func (m *merger) run() error {
	m.more, m.dry = false, -1
	if m.heads == nil {
		m.heads, m.last, m.taken = make([]*Document, len(m.replies)), make([]*Document, len(m.replies)), make([]int, len(m.replies))
		for i := range m.replies {
			if err := m.advance(i); err != nil {
				return err
			}
		}
	}
	for {
		best := -1
		for i, d := range m.heads {
			if d == nil {
				// Beyond the last row of a shard that has more, nobody knows what comes next.
				if a := m.replies[i].answer; a != nil && a.more {
					m.more, m.dry = true, i
					return nil
				}
				continue
			}
			if best < 0 || m.order.compare(sortKey(d), sortKey(m.heads[best])) < 0 {
				best = i
			}
		}
		if best < 0 {
			return nil
		}
		if len(m.items) == m.limit {
			m.more = true
			return nil
		}
		m.items = append(m.items, *m.heads[best])
		if err := m.advance(best); err != nil {
			return err
		}
	}
}

func (m *merger) advance(i int) error {
	a := m.replies[i].answer
	if m.heads[i] != nil {
		m.last[i] = m.heads[i]
	}
	if m.heads[i] = nil; a == nil || len(a.rows) == 0 {
		return nil
	}
	d, err := DecodeDocument(a.rows[0])
	if err != nil {
		return fmt.Errorf("search: answer of a shard: %w", err)
	}
	m.heads[i], a.rows = &d, a.rows[1:]
	m.taken[i]++
	return nil
}

func sortKey(d *Document) *segment.Document {
	return &segment.Document{Time: d.Time, ID: d.ID, Tenant: d.Tenant, Cost: max(d.CostMicros, costMin), HasCost: d.Currency != ""}
}
