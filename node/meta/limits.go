package meta

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/maestro-conductor/maestro/api"
	"github.com/maestro-conductor/maestro/internal/wire"
	"github.com/maestro-conductor/maestro/limiter"
	"github.com/maestro-conductor/maestro/raftfsm"
)

// pushWait bounds how long a change waits for the limiter groups to take it over. It is
// committed by then; what is late follows in the background.
const pushWait = 2 * time.Second

// pushAttempts bounds how often one push starts over because other changes got in between.
const pushAttempts = 8

// A plain limit keeps the first layout of its value, which every build reads.
const (
	limitValueFirst   = 1
	limitValueLimits  = 2 // as the limiter writes it; so with the next one
	limitValueLeases  = 3 // with a concurrency, or for a plan
	limitValueFailure = 4 // that says what becomes of checks without its group
)

// limitValue is the layout of the value of a limit.
func limitValue(l limiter.Limit) byte {
	switch level := l.Level(); {
	case level >= raftfsm.LevelFailure:
		return limitValueFailure
	case level >= raftfsm.LevelLeases:
		return limitValueLeases
	case level >= raftfsm.LevelLimits:
		return limitValueLimits
	}
	return limitValueFirst
}

func encodeLimit(l limiter.Limit) []byte {
	if version := limitValue(l); version != limitValueFirst {
		return limiter.AppendLimit([]byte{version}, l)
	}
	b := wire.AppendString([]byte{limitValueFirst}, l.Scope)
	b = wire.AppendString(b, l.Selector)
	b = wire.AppendString(b, l.TokenBucket.Rate)
	return binary.AppendUvarint(b, uint64(l.TokenBucket.Burst))
}

func decodeLimit(id string, value []byte) (limiter.Limit, error) {
	if len(value) > 0 && value[0] >= limitValueLimits && value[0] <= limitValueFailure {
		l, err := limiter.DecodeLimit(value[1:])
		if err != nil || l.ID != id || max(limitValueLimits, limitValue(l)) != value[0] {
			return limiter.Limit{}, errRow("limit " + id)
		}
		return l, nil
	}
	r := wire.NewReader(value)
	v := r.Byte(limitValueFirst)
	l := limiter.Limit{
		ID:       id,
		Scope:    r.String(nameBytesMax),
		Selector: r.String(limiter.SelectorBytesMax),
		TokenBucket: limiter.TokenBucket{
			Rate:  r.String(nameBytesMax),
			Burst: uint32(r.Uvarint(math.MaxUint32)),
		},
	}
	if err := r.Done(); err != nil || v != limitValueFirst {
		return limiter.Limit{}, errRow("limit " + id)
	}
	return l, nil
}

// validLimit judges limits, and assignments to plans beside them.
func validLimit(id string, value []byte) error {
	if isAssignment(id) {
		_, err := decodeAssignment(id, value)
		return err
	}
	l, err := decodeLimit(id, value)
	if err != nil {
		return err
	}
	return limiter.ValidateStored([]limiter.Limit{l})
}

// SetLimits implements api.LimitAdmin. Beside its errors it returns *limiter.InvalidError for
// limits that are not valid, or when the region would have more than limiter.LimitsMax.
func (s *Service) SetLimits(ctx context.Context, tenant string, limits []limiter.Limit, requestID string) (api.LimitChange, error) {
	if err := validCall(tenant, "limits", len(limits), requestID); err != nil {
		return api.LimitChange{}, err
	}
	if err := limiter.Validate(limits); err != nil {
		return api.LimitChange{}, err
	}
	steps := make([]step, len(limits))
	for i, l := range limits {
		if l.Level() > s.groups.Level() {
			return api.LimitChange{}, fmt.Errorf("limit %s: %w", l.ID, api.ErrLevel)
		}
		steps[i] = step{kind: kindPut, key: l.ID, owner: l.Keeper(), value: encodeLimit(l)}
	}
	return s.changeLimits(ctx, "meta.limits.set", tenant, steps, requestID)
}

// DeleteLimits implements api.LimitAdmin.
func (s *Service) DeleteLimits(ctx context.Context, tenant string, ids []string, requestID string) (api.LimitChange, error) {
	if err := validCall(tenant, "ids", len(ids), requestID); err != nil {
		return api.LimitChange{}, err
	}
	steps := make([]step, len(ids))
	seen := make(map[string]int, len(ids))
	for i, id := range ids {
		field := fmt.Sprintf("ids[%d]", i)
		if !limiter.ValidName(id) {
			return api.LimitChange{}, &limiter.InvalidError{Field: field, Message: "must be a limit's id: 1 to 63 of the characters a-z 0-9 . _ -"}
		}
		if first, ok := seen[id]; ok {
			return api.LimitChange{}, &limiter.InvalidError{Field: field, Message: fmt.Sprintf("%q is ids[%d] already", id, first)}
		}
		seen[id] = i
		steps[i] = step{kind: kindDelete, key: id}
	}
	return s.changeLimits(ctx, "meta.limits.delete", tenant, steps, requestID)
}

// validCall checks what every change of limits has.
func validCall(tenant, field string, count int, requestID string) error {
	switch {
	case tenant != api.AllTenants && !limiter.ValidName(tenant):
		return &limiter.InvalidError{Field: "tenant", Message: "must be a tenant, or * for the platform"}
	case count == 0 || count > opsMax:
		return &limiter.InvalidError{Field: field, Message: fmt.Sprintf("must hold 1 to %d, not %d", opsMax, count)}
	case len(requestID) > limiter.RequestIDBytesMax:
		return &limiter.InvalidError{Field: "request_id", Message: fmt.Sprintf("must be at most %d bytes", limiter.RequestIDBytesMax)}
	}
	return nil
}

func (s *Service) changeLimits(ctx context.Context, op, tenant string, steps []step, requestID string) (api.LimitChange, error) {
	res, err := s.changeTable(ctx, op, tenant, steps, requestID)
	if err != nil {
		return api.LimitChange{}, err
	}
	switch res.outcome {
	case outcomeDone:
	case outcomeForeign:
		return api.LimitChange{}, fmt.Errorf("limit %s: %w", steps[res.step].key, api.ErrLimitForeign)
	case outcomeUnknown:
		return api.LimitChange{}, fmt.Errorf("limit %s: %w", steps[res.step].key, api.ErrLimitUnknown)
	case outcomeFull:
		return api.LimitChange{}, &limiter.InvalidError{Field: "limits", Message: fmt.Sprintf(
			"a region holds at most %d limits; delete some first", limiter.LimitsMax)}
	default:
		return api.LimitChange{}, unexpected(res)
	}
	return api.LimitChange{
		Version:   res.version,
		Created:   int(res.created),
		Replaced:  int(res.replaced),
		Unchanged: int(res.unchanged),
		InForce:   s.pushAll(ctx),
	}, nil
}

// changeTable proposes steps on the table of limits.
func (s *Service) changeTable(ctx context.Context, op, tenant string, steps []step, requestID string) (changeResult, error) {
	var id raftfsm.RequestID
	if requestID != "" {
		id = raftfsm.NewRequestID(op, tenant, requestID)
	}
	res, err := s.change(ctx, change{table: tableLimits, actor: tenant, steps: steps}, id)
	if err != nil {
		return changeResult{}, fmt.Errorf("%s: %w", op, err)
	}
	return res, nil
}

// ListLimits implements api.LimitAdmin.
func (s *Service) ListLimits(ctx context.Context) ([]limiter.Limit, uint32, error) {
	records, version, err := s.readLimits(ctx)
	if err != nil {
		return nil, 0, fmt.Errorf("meta.limits.list: %w", err)
	}
	limits := make([]limiter.Limit, 0, len(records))
	for id, r := range records { // any order, sorted below
		l, err := decodeLimit(id, r.value)
		if err != nil {
			return nil, 0, err
		}
		limits = append(limits, l)
	}
	slices.SortFunc(limits, func(a, b limiter.Limit) int { return strings.Compare(a.ID, b.ID) })
	return limits, version, nil
}

// readLimits are the live records of limits.
func (s *Service) readLimits(ctx context.Context) (map[string]record, uint32, error) {
	if s.groups.Level() >= raftfsm.LevelLeases {
		return s.readRange(ctx, tableLimits, "", assignmentPrefix)
	}
	f, err := s.read(ctx, tableLimits, 0) // there are no assignments yet
	if err != nil {
		return nil, 0, err
	}
	maps.DeleteFunc(f.records, func(id string, r record) bool { return r.deleted })
	return f.records, f.counters.version, nil
}

// limitsSince is what brings a limiter group from a version to the present one.
func (s *Service) limitsSince(ctx context.Context, version uint32) (limiter.Change, error) {
	f, err := s.read(ctx, tableLimits, version)
	if err != nil {
		return limiter.Change{}, err
	}
	c := limiter.Change{From: f.since, To: f.counters.version}
	for id, r := range f.records {
		switch {
		case isAssignment(id):
			if err := addAssignment(&c, r); err != nil {
				return limiter.Change{}, err
			}
		case !r.deleted:
			l, err := decodeLimit(id, r.value)
			if err != nil {
				return limiter.Change{}, err
			}
			c.Puts = append(c.Puts, l)
		case c.From > 0:
			c.Deletes = append(c.Deletes, id)
		}
	}
	slices.SortFunc(c.Puts, func(a, b limiter.Limit) int { return strings.Compare(a.ID, b.ID) })
	slices.Sort(c.Deletes)
	slices.SortFunc(c.Plans, func(a, b limiter.Assignment) int { return strings.Compare(a.Tenant, b.Tenant) })
	slices.Sort(c.Leavers)
	return c, nil
}

// LimitsChanged returns a channel that is closed when the limits change. Take it before
// PushLimits, so that a change during the push is not missed.
func (s *Service) LimitsChanged() <-chan struct{} { return s.machine.views.limitsChanged() }

// PushLimits brings one limiter group to the limits of this moment. Whoever leads the group
// calls it when its leadership starts and whenever the limits have changed; several callers
// at once do no harm.
func (s *Service) PushLimits(ctx context.Context, group raftfsm.GroupID) error {
	version, err := s.limiter.Version(ctx, group, raftfsm.Linearizable)
	if err != nil {
		return fmt.Errorf("meta: push limits: %w", err)
	}
	for range pushAttempts {
		c, err := s.limitsSince(ctx, version)
		if err != nil {
			return fmt.Errorf("meta: push limits to group %d: %w", group, err)
		}
		if c.To == version {
			return nil
		}
		if c.To < version {
			return fmt.Errorf("meta: push limits to group %d: it is at version %d of the limits, the region at %d; if a restore was interrupted, repeat it", group, version, c.To)
		}
		needFull, reached, err := s.limiter.Configure(ctx, group, c)
		if err != nil {
			return fmt.Errorf("meta: push limits: %w", err)
		}
		if reached >= c.To {
			return nil
		}
		if version = reached; needFull {
			version = 0
		}
	}
	return fmt.Errorf("meta: push limits to group %d: other changes kept getting in between; the next change or leader tries again", group)
}

// pushAll tells whether every limiter group has the limits of this moment before the wait is
// over.
func (s *Service) pushAll(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, pushWait)
	defer cancel()
	errs := make([]error, len(s.limiterGroups))
	var wg sync.WaitGroup
	for i, group := range s.limiterGroups {
		wg.Go(func() { errs[i] = s.PushLimits(ctx, group) })
	}
	wg.Wait()
	return errors.Join(errs...) == nil
}
