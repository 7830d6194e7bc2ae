package meta

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/maestro-conductor/maestro/api"
	"github.com/maestro-conductor/maestro/limiter"
	"github.com/maestro-conductor/maestro/raftfsm"
)

// Groups is what the service needs of the cluster; *raftfsm.Host provides it.
type Groups interface {
	Propose(ctx context.Context, group raftfsm.GroupID, cmd raftfsm.Command) (raftfsm.Result, error)
	Query(ctx context.Context, group raftfsm.GroupID, query []byte, c raftfsm.Consistency) (raftfsm.Answer, error)
	// AwaitApplied waits until this node's replica has applied the entry at index.
	AwaitApplied(ctx context.Context, group raftfsm.GroupID, index uint64) error
	// Level is the protocol level of the region.
	Level() int
}

// LimitPusher brings limiter groups up to date; *limiter.Service is one.
type LimitPusher interface {
	Configure(ctx context.Context, group raftfsm.GroupID, changes limiter.Change) (needFull bool, version uint32, err error)
	Version(ctx context.Context, group raftfsm.GroupID, c raftfsm.Consistency) (uint32, error)
}

// ErrRefused means that the meta group could not read a command or a query, as may happen
// while nodes of different versions run; nothing was changed.
var ErrRefused = fmt.Errorf("meta: the group did not understand the command: %w", raftfsm.ErrVersion)

// ErrExhausted means that a table has no version numbers left.
var ErrExhausted = errors.New("meta: the table has been changed 2^32 times and cannot change any more")

// Options are what a Service is made of.
type Options struct {
	Groups Groups
	// Group is the meta group, and Machine this node's replica of it.
	Group   raftfsm.GroupID
	Machine *Machine
	// Limiter brings LimiterGroups up to date; without groups it is not used.
	Limiter       LimitPusher
	LimiterGroups []raftfsm.GroupID
	// Region is where changes made here come from.
	Region string
	// Clock tells whether tokens have expired.
	Clock func() time.Time
}

// Service keeps the records. Changes and lists go to the group; Authenticate, Settings,
// CursorKey and LimitsChanged answer from this node's replica.
type Service struct {
	groups        Groups
	group         raftfsm.GroupID
	machine       *Machine
	limiter       LimitPusher
	limiterGroups []raftfsm.GroupID
	region        string
	clock         func() time.Time
	lookups       chan struct{} // one place for each lookup under way
}

var (
	_ api.Authenticator = (*Service)(nil)
	_ api.TokenAdmin    = (*Service)(nil)
	_ api.LimitAdmin    = (*Service)(nil)
)

// NewService makes a service; all options count.
func NewService(o Options) *Service {
	return &Service{
		groups:        o.Groups,
		group:         o.Group,
		machine:       o.Machine,
		limiter:       o.Limiter,
		limiterGroups: o.LimiterGroups,
		region:        o.Region,
		clock:         o.Clock,
		lookups:       make(chan struct{}, lookupsMax),
	}
}

// change proposes a command; id, when not zero, makes a retry return the first result.
func (s *Service) change(ctx context.Context, c change, id raftfsm.RequestID) (changeResult, error) {
	c.origin = s.region
	cmd := raftfsm.Command{Data: encodeChange(c), RequestID: id}
	r, err := s.groups.Propose(ctx, s.group, cmd)
	if err != nil {
		return changeResult{}, err
	}
	res, err := decodeResult(r.Data)
	if err != nil {
		return changeResult{}, err
	}
	switch res.outcome {
	case outcomeMalformed:
		return changeResult{}, fmt.Errorf("%w: %s", ErrRefused, res.message)
	case outcomeExhausted:
		return changeResult{}, ErrExhausted
	}
	return res, nil
}

func unexpected(res changeResult) error {
	return fmt.Errorf("%w: outcome %d does not answer it", ErrRefused, res.outcome)
}

// Confirm returns nil once this node's replica holds everything that was committed before the
// call: it asks the leader, which confirms that it leads, and waits to have applied as much.
func (s *Service) Confirm(ctx context.Context) error {
	a, err := s.groups.Query(ctx, s.group, encodeRecordQuery(tableSettings, settingCluster), raftfsm.Linearizable)
	if err == nil {
		err = s.groups.AwaitApplied(ctx, s.group, a.Applied)
	}
	if err != nil {
		return fmt.Errorf("meta: confirm: %w", err)
	}
	return nil
}

// feed is what changed in a table.
type feed struct {
	// since is where it begins: the version that was asked for, or 0 when changes since then
	// are no longer known one by one.
	since uint32
	// counters are those of the table at the end.
	counters counters
	// records are the latest states of what changed, deleted ones included.
	records map[string]record
}

// readRestarts bounds how often a read starts over because deletions were forgotten meanwhile.
const readRestarts = 3

// read collects the changes of a table after a version, linearizably. With since 0 it is the
// whole table.
func (s *Service) read(ctx context.Context, t table, since uint32) (feed, error) {
	for range readRestarts {
		f, err := s.readOnce(ctx, t, since)
		if err != nil {
			return feed{}, err
		}
		if f.records != nil {
			return f, nil
		}
		since = 0
	}
	return feed{}, fmt.Errorf("meta: table %d changes faster than it can be read; try again", t)
}

// readOnce walks the pages once. Its records are nil when deletions that it would have to
// show have been forgotten.
func (s *Service) readOnce(ctx context.Context, t table, since uint32) (feed, error) {
	f := feed{since: since, records: map[string]record{}}
	after := position{}
	if since > 0 {
		after.version = since + 1
	}
	known := since // deletions after this version must not be missed
	for first := true; ; first = false {
		p, err := s.page(ctx, t, after)
		if err != nil {
			return feed{}, err
		}
		if first && since == 0 {
			known = p.counters.version
		}
		if p.counters.floor > known {
			return feed{}, nil
		}
		for _, r := range p.records {
			f.records[r.key] = r
			after = position{version: r.tableVersion, key: r.key}
		}
		if p.last {
			f.counters = p.counters
			return f, nil
		}
	}
}

func (s *Service) page(ctx context.Context, t table, after position) (page, error) {
	a, err := s.groups.Query(ctx, s.group, encodeFeedQuery(t, after), raftfsm.Linearizable)
	if err != nil {
		return page{}, err
	}
	return decodePage(a.Data)
}
