package meta

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/maestro-conductor/maestro/index"
	"github.com/maestro-conductor/maestro/limiter"
	"github.com/maestro-conductor/maestro/pkgstore"
	"github.com/maestro-conductor/maestro/raftfsm"
)

// anyOwner is the actor that may touch every record, and the owner of the platform's.
const anyOwner = "*"

// Bounds of the tables.
const (
	// TokensMax bounds the API tokens of a region. When they are that many, a new one takes the
	// place of one that is revoked or expired.
	TokensMax     = 100_000
	settingsMax   = 100
	tombstonesMax = 10_000
	// NodesMax bounds the members of a region, those on their way out included: twice as many
	// as may be active, so that a whole region can be replaced at once.
	NodesMax = 2 * MembersMax
)

// rules are what a table wants of its records.
type rules struct {
	// recordsMax bounds the live records, but for those of which apart is true, which apartMax
	// bounds. Without apart there are none of these.
	recordsMax, apartMax uint32
	apart                func(key string) bool
	// tombstonesMax bounds those kept of deleted ones:
	// fewer would make readers that lag behind start over, more cost space for nothing.
	tombstonesMax uint32
	// valid refuses a value that the table's readers could not decode.
	valid func(key string, value []byte) error
	// dead tells whether a live record may be evicted to make room; nil means never.
	dead func(r record, wall int64) (bool, error)
}

// regionRules are the rules of a region's tables.
func regionRules(t table) rules {
	switch t {
	case tableTokens:
		return rules{recordsMax: TokensMax, tombstonesMax: tombstonesMax, valid: validToken, dead: tokenDead}
	case tableSettings:
		return rules{
			recordsMax: settingsMax, apartMax: index.RetentionRulesMax, apart: isRetention, tombstonesMax: tombstonesMax, valid: validSetting,
		}
	case tableNodes:
		return rules{recordsMax: NodesMax, tombstonesMax: tombstonesMax, valid: validNode}
	case tablePlacement:
		return rules{recordsMax: raftfsm.GroupsMax, tombstonesMax: tombstonesMax, valid: validPlacement}
	case tablePackages:
		return rules{recordsMax: pkgstore.PackagesMax, tombstonesMax: tombstonesMax, valid: validPackage}
	case tableInstalls:
		return rules{recordsMax: pkgstore.InstallsMax, tombstonesMax: tombstonesMax, valid: validInstall}
	case tableKeys:
		return rules{recordsMax: pkgstore.KeysMax, tombstonesMax: tombstonesMax, valid: validTrust}
	default:
		return rules{
			recordsMax: limiter.LimitsMax, apartMax: limiter.AssignmentsMax, apart: isAssignment,
			tombstonesMax: tombstonesMax, valid: validLimit,
		}
	}
}

func (r rules) isApart(key string) bool { return r.apart != nil && r.apart(key) }

// published is a changed record on its way to the views.
type published struct {
	table  table
	record record
}

// plan is what a change will write, once every step has been accepted.
type plan struct {
	origin        string
	before, after []record // after[i] replaces before[i], which may be the zero record
	result        changeResult
	// by how much the numbers of live records grow: those bounded by recordsMax, and those by
	// apartMax
	live, apart int64
}

// grow counts a live record that comes (1) or goes (-1).
func (p *plan) grow(key string, by int64, rules rules) {
	if rules.isApart(key) {
		p.apart += by
	} else {
		p.live += by
	}
}

// apply executes a change: all steps, or none with the outcome that says why.
func apply(tx *raftfsm.Tx, wall int64, c change, rules rules) (changeResult, []published, error) {
	count, _, err := getRow(tx, []byte{spaceTable, byte(c.table)}, decodeCounters)
	if err != nil {
		return changeResult{}, nil, err
	}
	if c.expect != 0 && c.expect != uint64(count.version)+1 {
		return changeResult{outcome: outcomeStale, version: count.version}, nil, nil
	}
	p, err := judge(tx, c, rules)
	if err != nil {
		return changeResult{}, nil, err
	}
	w := writer{tx: tx, table: c.table, rules: rules, count: count}
	if p.result.outcome == outcomeDone && len(p.after) > 0 {
		o, err := w.write(wall, p)
		if err != nil {
			return changeResult{}, nil, err
		}
		if o != outcomeDone {
			p.result = changeResult{outcome: o}
		}
	}
	p.result.version = w.count.version
	return p.result, w.changed, nil
}

// judge reads what the steps meet and plans their writes, up to the first that is refused.
func judge(tx *raftfsm.Tx, c change, rules rules) (plan, error) {
	p := plan{origin: c.origin}
	for i, s := range c.steps {
		if s.kind != kindDelete && s.kind != kindSeal {
			if err := rules.valid(s.key, s.value); err != nil {
				p.result = changeResult{outcome: outcomeMalformed, step: i, message: err.Error()}
				return p, nil
			}
		}
		before, _, err := getRecord(tx, c.table, s.key)
		if err != nil {
			return plan{}, err
		}
		if o := p.add(c, s, before, rules); o != outcomeDone {
			p.result = changeResult{outcome: o, step: i}
			return p, nil
		}
	}
	p.result.outcome = outcomeDone
	return p, nil
}

// add judges one step against the record it meets and plans its write.
func (p *plan) add(c change, s step, before record, rules rules) outcome {
	exists := before.version > 0 && !before.deleted
	own := c.actor == anyOwner || before.owner == c.actor
	after := before
	switch s.kind {
	case kindDelete, kindSeal:
		if !exists || !own {
			return outcomeUnknown
		}
		if s.kind == kindSeal && before.sealed {
			return outcomeDone
		}
		after.sealed = before.sealed || s.kind == kindSeal
		if s.kind == kindDelete {
			after.deleted, after.value = true, nil
			p.grow(s.key, -1, rules)
		}
	default:
		switch {
		case exists && s.kind == kindCreate:
			return outcomeExists
		case exists && s.kind == kindKeep:
			p.result.unchanged++
			return outcomeDone
		case exists && !own, c.actor != anyOwner && s.owner != c.actor:
			return outcomeForeign
		case exists && before.owner == s.owner && string(before.value) == string(s.value):
			p.result.unchanged++
			return outcomeDone
		case exists:
			p.result.replaced++
		default:
			p.result.created++
			p.grow(s.key, 1, rules)
		}
		after.key, after.owner, after.value, after.deleted = s.key, s.owner, s.value, false
	}
	p.before = append(p.before, before)
	p.after = append(p.after, after)
	return outcomeDone
}

// writer writes the records of one change and keeps the table's indexes and counters.
type writer struct {
	tx      *raftfsm.Tx
	table   table
	rules   rules
	count   counters
	stamp   timestamp
	changed []published
}

// write carries out a plan, or writes nothing and says why.
func (w *writer) write(wall int64, p plan) (outcome, error) {
	if w.count.version == math.MaxUint32 {
		return outcomeExhausted, nil
	}
	clock, _, err := getRow(w.tx, []byte{spaceClock}, decodeClock)
	if err != nil {
		return 0, err
	}
	w.stamp = clock.next(wall)
	if p.apart > 0 && int64(w.count.apart)+p.apart > int64(w.rules.apartMax) {
		return outcomeFull, nil
	}
	if excess := int64(w.count.live-w.count.apart) + p.live - int64(w.rules.recordsMax); excess > 0 && p.live > 0 {
		if ok, err := w.makeRoom(excess, p); err != nil || !ok {
			return outcomeFull, err
		}
	}
	w.count.version++
	for i, after := range p.after {
		after.origin = p.origin
		if err := w.replace(p.before[i], after); err != nil {
			return 0, err
		}
	}
	if err := w.prune(); err != nil {
		return 0, err
	}
	if err := w.tx.Set([]byte{spaceClock}, encodeClock(w.stamp)); err != nil {
		return 0, fmt.Errorf("meta: clock: %w", err)
	}
	if err := w.tx.Set([]byte{spaceTable, byte(w.table)}, encodeCounters(w.count)); err != nil {
		return 0, fmt.Errorf("meta: table %d: %w", w.table, err)
	}
	return outcomeDone, nil
}

// replace writes after in the place of before.
func (w *writer) replace(before, after record) error {
	if before.version > 0 {
		if err := w.erase(before); err != nil {
			return err
		}
	}
	after.version, after.stamp = before.version+1, w.stamp
	return w.put(after)
}

// put writes a record that has no row, as of the version that is being made.
func (w *writer) put(after record) error {
	after.tableVersion = w.count.version
	keys := [][]byte{changeKey(spaceChange, w.table, after.tableVersion, after.key)}
	if after.deleted {
		w.count.tombstones++
		keys = append(keys, changeKey(spaceTombstone, w.table, after.tableVersion, after.key))
	} else {
		w.count.live++
		if w.rules.isApart(after.key) {
			w.count.apart++
		}
	}
	err := w.tx.Set(recordKey(w.table, after.key), appendRecord(nil, after))
	for _, k := range keys {
		err = errors.Join(err, w.tx.Set(k, nil))
	}
	if err != nil {
		return fmt.Errorf("meta: write record %s: %w", after.key, err)
	}
	w.changed = append(w.changed, published{w.table, after})
	return nil
}

// erase removes a record and its places in the indexes.
func (w *writer) erase(r record) error {
	keys := [][]byte{recordKey(w.table, r.key), changeKey(spaceChange, w.table, r.tableVersion, r.key)}
	if r.deleted {
		w.count.tombstones--
		keys = append(keys, changeKey(spaceTombstone, w.table, r.tableVersion, r.key))
	} else {
		w.count.live--
		if w.rules.isApart(r.key) {
			w.count.apart--
		}
	}
	for _, k := range keys {
		if err := w.tx.Delete(k); err != nil {
			return fmt.Errorf("meta: erase record %s: %w", r.key, err)
		}
	}
	return nil
}

// prune forgets the oldest tombstones beyond what the rules keep. Sealed ones stay: forgetting one
// would undo the seal.
func (w *writer) prune() error {
	return w.walk(spaceTombstone, func(r record) (bool, error) {
		if w.count.tombstones <= w.rules.tombstonesMax {
			return false, nil
		}
		if r.sealed {
			return true, nil
		}
		w.count.floor = max(w.count.floor, r.tableVersion)
		return true, w.erase(r)
	})
}

// makeRoom evicts the n dead records that have been unchanged for longest and are no part of
// the plan, or none.
func (w *writer) makeRoom(n int64, p plan) (bool, error) {
	if w.rules.dead == nil {
		return false, nil
	}
	var victims []record
	err := w.walk(spaceChange, func(r record) (bool, error) {
		planned := slices.ContainsFunc(p.before, func(b record) bool { return b.key == r.key })
		if r.deleted || planned {
			return true, nil
		}
		is, err := w.rules.dead(r, w.stamp.wall)
		if is {
			victims = append(victims, r)
		}
		return int64(len(victims)) < n, err
	})
	if err != nil || int64(len(victims)) < n {
		return false, err
	}
	for _, r := range victims {
		if err := w.erase(r); err != nil {
			return false, err
		}
		// It leaves no trace in the version that is being made, so readers must start over.
		w.count.floor = w.count.version + 1
		r.deleted = true
		w.changed = append(w.changed, published{w.table, r})
	}
	return true, nil
}

// walk visits the table's records in the order of an index until f says stop.
func (w *writer) walk(index byte, f func(record) (goOn bool, err error)) error {
	it, err := w.tx.NewIter([]byte{index, byte(w.table)}, []byte{index, byte(w.table) + 1})
	if err != nil {
		return fmt.Errorf("meta: %w", err)
	}
	for ok := it.First(); ok; ok = it.Next() {
		_, key, err := splitChangeKey(it.Key())
		if err != nil {
			return errors.Join(err, it.Close())
		}
		r, _, err := getRecord(w.tx, w.table, key)
		if err != nil {
			return errors.Join(err, it.Close())
		}
		goOn, err := f(r)
		if err != nil || !goOn {
			return errors.Join(err, it.Close())
		}
	}
	return it.Close()
}
