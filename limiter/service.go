package limiter

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/maestro-conductor/maestro/raftfsm"
)

// ErrTooManyLimits means that more than 64 limits match one request; nothing was debited.
var ErrTooManyLimits = errors.New("limiter: more than 64 limits match the request; make their selectors narrower")

// ErrRefused means that a machine could not read a command, as may happen while nodes of
// different versions run; nothing was changed.
var ErrRefused = errors.New("limiter: the group did not understand the command")

// partBytes is how many bytes of limits one command of a change carries: well below
// raftfsm.CommandBytesMax, so that one limit more never exceeds it.
const partBytes = raftfsm.CommandBytesMax / 2

// Service decides checks in the groups that hold the counters, or from what these have lent.
type Service struct {
	groups Groups
	ids    []raftfsm.GroupID
	mode   func() Mode
	leases *Leases // nil without NewLeases
	remote remoteGlobals
	probes map[raftfsm.GroupID]*probe
}

// NewService uses the limiter groups ids, at least one; their order does not matter.
func NewService(groups Groups, ids []raftfsm.GroupID) *Service {
	if len(ids) == 0 {
		panic("limiter: NewService needs at least one group")
	}
	s := &Service{groups: groups, ids: slices.Clone(ids), mode: func() Mode { return ModeEnforce }, probes: map[raftfsm.GroupID]*probe{}}
	for _, id := range ids {
		s.probes[id] = &probe{}
	}
	return s
}

// Group is the group that decides for tenant.
func (s *Service) Group(tenant string) raftfsm.GroupID {
	if tenant == globalTenant {
		return slices.Min(s.ids)
	}
	return place(tenant, s.ids)
}

// Check decides one request. It returns an *InvalidError for a malformed request,
// ErrTooManyLimits, or an error of the group; raftfsm.OutcomeOf tells whether tokens may have
// been taken.
//
// A request that takes nothing and has no request id is only read: it sees the counters as of
// the group's last entry, so in a group without traffic Remaining may be too low.
func (s *Service) Check(ctx context.Context, r Request) (Decision, error) {
	var d Decision
	if err := s.CheckInto(ctx, r, &d); err != nil {
		return Decision{}, err
	}
	return d, nil
}

// Peek tells what Check would answer now, with all that is known of the levels, and takes nothing.
// It sees the counters as of the group's last entry, also when limits are off.
func (s *Service) Peek(ctx context.Context, r Request) (Decision, error) {
	if err := validRequest(r); err != nil {
		return Decision{}, err
	}
	mode := s.mode()
	d, err := s.peekTenant(ctx, mode, r)
	if err != nil {
		return Decision{}, err
	}
	some, _, err := s.globals(ctx)
	if !some || err != nil {
		return d, err
	}
	g, err := s.peekTenant(ctx, mode, Request{Tenant: globalTenant, Token: r.Tenant, Cost: r.Cost})
	if err == nil {
		d.join(&g)
	}
	return d, err
}

func (s *Service) peekTenant(ctx context.Context, mode Mode, r Request) (Decision, error) {
	res, err := s.query(ctx, s.Group(r.Tenant), inMode(mode, appendPeek(nil, r)), raftfsm.Linearizable)
	if err != nil {
		return Decision{}, fmt.Errorf("limiter: peek for tenant %s: %w", r.Tenant, err)
	}
	return decisionOf(res, outcomePeeked, r.Tenant, mode)
}

// CheckBatch decides checks with as few log entries as it can, those of one tenant, token and key in
// their order. It is not atomic: each check is decided for itself. Those with a request id are decided one by
// one as Check does, in any order, so that a retry of the batch finds their first decisions. The error is an
// *InvalidError, and then nothing was done.
func (s *Service) CheckBatch(ctx context.Context, all []Request) ([]Outcome, error) {
	out := make([]Outcome, len(all))
	if err := s.CheckBatchInto(ctx, all, out); err != nil {
		return nil, err
	}
	return out, nil
}

// CheckBatchInto is CheckBatch into outcomes, one for each check, whose levels are used again where
// they can be. It keeps nothing of the requests.
func (s *Service) CheckBatchInto(ctx context.Context, all []Request, out []Outcome) error {
	var errs []error
	for i, r := range all {
		if err := validRequest(r); err != nil && len(errs) < problemsMax {
			errs = append(errs, fmt.Errorf("checks[%d]: %w", i, err))
		}
	}
	if len(errs) > 0 {
		return errors.Join(errs...)
	}
	mode := s.mode()
	if mode == ModeOff {
		for i := range out {
			out[i] = Outcome{Decision: Decision{Allow: true, Mode: mode}}
		}
		return nil
	}
	places, named := make([]int, 0, len(all)), []int(nil)
	for i := range all {
		if out[i].Err = nil; all[i].RequestID != "" {
			named = append(named, i)
		} else {
			places = append(places, i)
		}
	}
	if len(named) > 0 {
		var apart sync.WaitGroup
		apart.Go(func() { atOnce(named, func(i int) { out[i].Decision, out[i].Err = s.Check(ctx, all[i]) }) })
		defer apart.Wait()
	}
	some, canaries, err := s.globals(ctx)
	switch {
	case err != nil:
		for _, i := range places {
			out[i].Err = err
		}
	case len(places) == 0:
	case some:
		s.batchWithGlobals(ctx, mode, all, places, out, canaries)
	default:
		s.decideMany(ctx, mode, all, places, out)
	}
	return nil
}

// decideMany decides what tenants' limits say of the checks at places.
func (s *Service) decideMany(ctx context.Context, mode Mode, all []Request, places []int, out []Outcome) {
	if !s.covers() {
		s.askMany(ctx, mode, all, places, out)
		return
	}
	covered, others := s.coveredPlaces(mode, all, places)
	byGroup := map[raftfsm.GroupID][]int{}
	for _, i := range places {
		if covered[i] != nil {
			g := s.Group(all[i].Tenant)
			byGroup[g] = append(byGroup[g], i)
		}
	}
	var wg sync.WaitGroup
	for group, places := range byGroup {
		wg.Go(func() { s.decideManyAway(ctx, mode, group, all, places, covered, out) })
	}
	s.askMany(ctx, mode, all, others, out)
	wg.Wait()
}

// askMany decides checks from leases, and by their groups.
func (s *Service) askMany(ctx context.Context, mode Mode, all []Request, places []int, out []Outcome) {
	if l := s.holding(); l != nil && mode == ModeEnforce {
		places = l.checkMany(ctx, all, places, out)
	}
	byGroup := map[raftfsm.GroupID][]int{}
	for _, i := range places {
		g := s.Group(all[i].Tenant)
		byGroup[g] = append(byGroup[g], i)
	}
	var wg sync.WaitGroup
	for group, places := range byGroup {
		wg.Go(func() { s.checkBatch(ctx, mode, group, all, places, out) })
	}
	wg.Wait()
}

// checkBatch decides the checks of one group at places.
func (s *Service) checkBatch(ctx context.Context, mode Mode, group raftfsm.GroupID, all []Request, places []int, out []Outcome) {
	if s.groups.Level() < raftfsm.LevelLimits {
		for _, i := range places { // a member does not know batches yet
			out[i].Decision, out[i].Err = s.Check(ctx, all[i])
		}
		return
	}
	if l := s.holding(); l != nil && mode == ModeEnforce {
		first, more := firstOfEachKey(all, places)
		if len(more) > 0 {
			s.decideBatch(ctx, mode, group, all, first, out, true)
			places = l.checkMany(ctx, all, deniedLikeFirst(all, more, out), out)
		}
	}
	s.decideBatch(ctx, mode, group, all, places, out, true)
}

// another is a check of the same tenant, token and key as one before it.
type another struct{ place, first int }

// firstOfEachKey parts places into those of requests whose tenant, token and key come first, and the
// others.
func firstOfEachKey(all []Request, places []int) (first []int, more []another) {
	type key struct{ tenant, token, key string }
	seen := make(map[key]int, len(places))
	first = places[:0:0]
	for _, i := range places {
		k := key{all[i].Tenant, all[i].Token, all[i].Key}
		if at, ok := seen[k]; ok {
			more = append(more, another{i, at})
			continue
		}
		seen[k] = i
		first = append(first, i)
	}
	return first, more
}

// deniedLikeFirst answers those whose first was denied the same cost: they were asked at the same time,
// so what denied it denies them for as long. It returns the places of the others.
func deniedLikeFirst(all []Request, more []another, out []Outcome) (others []int) {
	for _, m := range more {
		d := &out[m.first].Decision
		if out[m.first].Err != nil || d.Allow || d.Reason != ReasonLimited || all[m.place].Cost != all[m.first].Cost {
			others = append(others, m.place)
			continue
		}
		levels := append(out[m.place].Decision.Levels[:0], d.Levels...)
		out[m.place].Decision = *d
		out[m.place].Decision.Levels = levels
	}
	return others
}

// decideBatch lets the group decide checks at places; with recall, it asks once more about those that
// leases were in the way of.
func (s *Service) decideBatch(ctx context.Context, mode Mode, group raftfsm.GroupID, all []Request, places []int, out []Outcome, recall bool) {
	lent := lentBatch{}
	for len(places) > 0 {
		n, size := 0, 0
		part := make([]Request, 0, min(len(places), batchCommandMax))
		for ; n < len(places) && n < batchCommandMax; n++ {
			r := all[places[n]]
			if size += len(r.Tenant) + len(r.Token) + len(r.Key) + 16; size > partBytes {
				break
			}
			part = append(part, r)
		}
		sent := s.steady()
		res, err := s.propose(ctx, group, raftfsm.Command{Data: inMode(mode, s.encodeBatch(part))})
		if err == nil && (res.outcome != outcomeBatch || len(res.batch) != n) {
			err = unexpected(res)
		}
		for at, i := range places[:n] {
			if err != nil {
				out[i].Decision, out[i].Err = Decision{}, fmt.Errorf("limiter: check for tenant %s: %w", all[i].Tenant, err)
				continue
			}
			out[i].Decision, out[i].Err = decisionOf(res.batch[at], outcomeDecided, all[i].Tenant, mode)
			if !recall || !lent.add(i, all[i].Tenant, &res.batch[at], sent) {
				s.decided(&all[i], &out[i].Decision, sent, len(res.batch[at].recalls) > 0)
			}
		}
		places = places[n:]
	}
	if l := s.holding(); l != nil && lent.recall(ctx, l, group) {
		s.decideBatch(ctx, mode, group, all, lent.places, out, false)
		return
	}
	for _, i := range lent.places {
		s.decided(&all[i], &out[i].Decision, lent.sent, true)
	}
}

// decisionOf is the decision in a result that should have one, as it counts under a mode.
func decisionOf(res result, want outcome, tenant string, mode Mode) (Decision, error) {
	if res.outcome == outcomeScarce && want == outcomeDecided {
		res.outcome = want
	}
	switch res.outcome {
	case want:
		res.decision.Mode, res.decision.Source = mode, SourceLeader
		return res.decision, nil
	case outcomeTooManyLimits:
		return Decision{}, fmt.Errorf("tenant %s: %w", tenant, ErrTooManyLimits)
	}
	return Decision{}, unexpected(res)
}

// Configure brings a group to the limits of version changes.To. needFull means that the group
// is older than changes.From and nothing was done: send a change from version 0. version is
// the one in force afterwards; when it is below changes.To without needFull, another change
// got in between: start again from version.
func (s *Service) Configure(ctx context.Context, group raftfsm.GroupID, changes Change) (needFull bool, version uint32, err error) {
	for _, part := range splitChange(changes) {
		res, err := s.propose(ctx, group, raftfsm.Command{Data: appendConfigure(nil, part)})
		if err != nil {
			return false, 0, fmt.Errorf("limiter: bring group %d to version %d of the limits: %w", group, changes.To, err)
		}
		switch res.outcome {
		case outcomeStaged:
		case outcomeConfigured, outcomeSuperseded:
			return false, res.version, nil
		case outcomeNeedFull:
			return true, res.version, nil
		default:
			return false, 0, unexpected(res)
		}
	}
	return false, 0, fmt.Errorf("%w: it wants more parts of version %d", ErrRefused, changes.To)
}

// Version is the version of the limits that a group applies.
func (s *Service) Version(ctx context.Context, group raftfsm.GroupID, c raftfsm.Consistency) (uint32, error) {
	res, err := s.query(ctx, group, []byte{codecFirst, opVersion}, c)
	if err != nil {
		return 0, fmt.Errorf("limiter: version of the limits in group %d: %w", group, err)
	}
	if res.outcome != outcomeConfigured {
		return 0, unexpected(res)
	}
	return res.version, nil
}

// Sweep removes counters that equal fresh ones, a bounded number a call; more tells whether
// the walk over all counters has rows left. Calling it changes no answer.
func (s *Service) Sweep(ctx context.Context, group raftfsm.GroupID) (more bool, err error) {
	res, err := s.propose(ctx, group, raftfsm.Command{Data: []byte{codecFirst, opSweep}})
	if err != nil {
		return false, fmt.Errorf("limiter: sweep group %d: %w", group, err)
	}
	if res.outcome != outcomeSwept {
		return false, unexpected(res)
	}
	return res.more, nil
}

// Roll begins the calendar periods that have come in a group, and ends the limits that expire. wall
// is a moment that the clocks of a majority of nodes have passed. Who leads the group calls it about
// once a second; calling it more often, or from several nodes, does no harm.
func (s *Service) Roll(ctx context.Context, group raftfsm.GroupID, wall time.Time) error {
	res, err := s.query(ctx, group, []byte{codecLimits, opCalendars}, raftfsm.Bounded)
	if err != nil {
		return fmt.Errorf("limiter: calendars of group %d: %w", group, err)
	}
	if res.outcome != outcomeCalendars {
		return unexpected(res)
	}
	c := rollCommand{wall: wall.Unix(), timed: s.groups.Level() >= raftfsm.LevelLeases}
	var errs []error
	known := map[Calendar]bool{}
	for _, p := range res.periods {
		if p.end > c.wall || known[p.rule] {
			continue
		}
		known[p.rule] = true
		next := period{rule: p.rule}
		if next.begin, next.end, err = p.rule.periodOf(wall); err != nil {
			errs = append(errs, err)
			continue
		}
		c.periods = append(c.periods, next)
	}
	if len(c.periods) == 0 && (res.expires == 0 || res.expires > c.wall) {
		return errors.Join(errs...)
	}
	res, err = s.propose(ctx, group, raftfsm.Command{Data: appendRoll(nil, c)})
	if err == nil && res.outcome != outcomeRolled {
		err = unexpected(res)
	}
	if err != nil {
		errs = append(errs, fmt.Errorf("limiter: next periods of group %d: %w", group, err))
	}
	return errors.Join(errs...)
}

func (s *Service) propose(ctx context.Context, group raftfsm.GroupID, cmd raftfsm.Command) (result, error) {
	r, err := s.groups.Propose(ctx, group, cmd)
	if err != nil {
		return result{}, err
	}
	return decodeResult(r.Data)
}

func (s *Service) query(ctx context.Context, group raftfsm.GroupID, data []byte, c raftfsm.Consistency) (result, error) {
	a, err := s.groups.Query(ctx, group, data, c)
	if err != nil {
		return result{}, err
	}
	return decodeResult(a.Data)
}

func unexpected(r result) error {
	if r.outcome == outcomeMalformed {
		return fmt.Errorf("%w: %s", ErrRefused, r.message)
	}
	return fmt.Errorf("%w: outcome %d does not answer it", ErrRefused, r.outcome)
}

// splitChange cuts a change into commands that fit into log entries.
func splitChange(c Change) []configureCommand {
	var parts []configureCommand
	part, size := configureCommand{Change: Change{From: c.From, To: c.To}}, 0
	room := func(bytes int) {
		if size += bytes; size > partBytes {
			parts = append(parts, part)
			part = configureCommand{Change: Change{From: c.From, To: c.To}, part: part.part + 1}
			size = bytes
		}
	}
	for _, l := range c.Puts {
		room(len(appendLimit(nil, l, codecLimits)))
		part.Puts = append(part.Puts, l)
	}
	for _, id := range c.Deletes {
		room(1 + len(id))
		part.Deletes = append(part.Deletes, id)
	}
	for _, a := range c.Plans {
		room(2 + len(a.Tenant) + len(a.Plan))
		part.Plans = append(part.Plans, a)
	}
	for _, tenant := range c.Leavers {
		room(1 + len(tenant))
		part.Leavers = append(part.Leavers, tenant)
	}
	part.last = true
	return append(parts, part)
}

func validRequest(r Request) error {
	var errs []error
	bad := func(field, message string) {
		errs = append(errs, &InvalidError{Field: field, Message: message})
	}
	if !ValidName(r.Tenant) {
		bad("tenant", nameRule)
	}
	for _, text := range []struct {
		field, value string
		bytesMax     int
	}{
		{"token", r.Token, SubjectBytesMax},
		{"key", r.Key, SubjectBytesMax},
		{"request_id", r.RequestID, RequestIDBytesMax},
	} {
		if len(text.value) > text.bytesMax {
			bad(text.field, fmt.Sprintf("must be at most %d bytes, not %d", text.bytesMax, len(text.value)))
		} else if !utf8.ValidString(text.value) {
			bad(text.field, "must be valid UTF-8")
		}
	}
	return errors.Join(errs...)
}
