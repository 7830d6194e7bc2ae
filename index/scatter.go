package index

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/maestro-conductor/maestro/internal/stack"
	"github.com/maestro-conductor/maestro/raftfsm"
)

// shardGrace is how long a search waits for the other shards once one has answered. A shard
// that lost its leader takes longer than that; the answer then says what is missing.
const shardGrace = 400 * time.Millisecond

// errNoAnswer is the state of a shard that is not waited for any longer.
var errNoAnswer = fmt.Errorf("no answer in time: %w", context.DeadlineExceeded)

// Readings is what Groups may be able to do besides: read from any replica that is as fresh as the
// leader; *raftfsm.Host can.
type Readings interface {
	BeginRead(groups []raftfsm.GroupID) *raftfsm.Reading
}

// reply is what came of asking one shard.
type reply struct {
	answer  *shardAnswer
	applied uint64
	err     error
}

// scattered is one question to all shards.
type scattered struct {
	s       *Service
	reading *raftfsm.Reading // nil where only leaders can be asked
	queries [][]byte         // by shard; nil for those that are not asked
	done    chan shardReply
	begun   time.Time
}

type shardReply struct {
	shard int
	reply
	hedged bool
}

// scatter asks all shards at once, but those with an error in failed, which is their reply. It
// waits for all of them when the caller wants all, else for shardGrace after the first answer, and not
// for those that are known to be missing.
func (s *Service) scatter(ctx context.Context, q shardQuery, start *cursor, failed []error, all bool) []reply {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	replies := make([]reply, len(s.shards))
	c := &scattered{s: s, queries: make([][]byte, len(s.shards)), done: make(chan shardReply, 2*len(s.shards)), begun: time.Now()}
	groups := make([]raftfsm.GroupID, 0, len(s.shards))
	var lost []bool
	if !all {
		lost = s.missing.lost()
	}
	for n, shard := range s.shards {
		replies[n].err = errNoAnswer
		switch {
		case failed != nil && failed[n] != nil:
			replies[n].err = failed[n]
			continue
		case lost != nil && lost[n]:
			replies[n].err = errMissing
			continue
		}
		mine := q
		mine.since = start.since[n]
		if start.bounds[n] > 0 {
			bound := start.bounds[n] - 1
			mine.bound = &bound
		}
		c.queries[n] = mine.encode()
		groups = append(groups, shard.Group)
	}
	if r, ok := s.groups.(Readings); ok {
		c.reading = r.BeginRead(groups)
	}
	for n, query := range c.queries {
		if query != nil {
			go c.ask(ctx, n, false)
		}
	}
	c.gather(ctx, replies, len(groups), all)
	for n, query := range c.queries {
		if query != nil && errors.Is(replies[n].err, errNoAnswer) && ctx.Err() == nil {
			s.suspect(n)
		}
	}
	return replies
}

// gather waits for replies. A shard that takes long is asked a second time; its first answer counts, and
// its error only when nothing is under way any more.
func (c *scattered) gather(ctx context.Context, replies []reply, open int, all bool) {
	under := make([]int, len(replies))
	for n, query := range c.queries {
		if query != nil {
			under[n] = 1
		}
	}
	hedge := time.NewTimer(c.s.hedger.begin(open))
	defer hedge.Stop()
	var grace <-chan time.Time
	for open > 0 {
		select {
		case r := <-c.done:
			under[r.shard]--
			switch {
			case replies[r.shard].answer != nil:
				continue
			case r.err == nil:
				c.s.hedger.answered(time.Since(c.begun), r.hedged)
				replies[r.shard] = r.reply
				open--
			case !r.hedged:
				replies[r.shard] = r.reply // unless the other does better
			}
			if r.err != nil && under[r.shard] == 0 {
				open--
			}
			if grace == nil && r.err == nil && !all && open > 0 {
				timer := time.NewTimer(shardGrace)
				defer timer.Stop()
				grace = timer.C
			}
		case <-hedge.C:
			for n := range under {
				if under[n] > 0 && replies[n].answer == nil && c.reading != nil && c.s.hedger.spend() {
					under[n]++
					go c.ask(ctx, n, true)
				}
			}
		case <-grace:
			return
		case <-ctx.Done():
			return
		}
	}
}

// ask asks a shard, or another replica of it than before.
func (c *scattered) ask(ctx context.Context, n int, hedged bool) {
	stack.Grow()
	var a raftfsm.Answer
	var err error
	group := c.s.shards[n].Group
	switch {
	case c.reading == nil:
		a, err = c.s.groups.Query(ctx, group, c.queries[n], raftfsm.Linearizable)
	case hedged:
		a, err = c.reading.QueryOther(ctx, group, c.queries[n])
	default:
		a, err = c.reading.Query(ctx, group, c.queries[n])
	}
	r := shardReply{shard: n, hedged: hedged, reply: reply{applied: a.Applied, err: err}}
	if err == nil {
		if r.answer, r.err = decodeShardAnswer(a.Data); r.err != nil {
			r.answer = nil
		}
	}
	c.done <- r
}
