package limiter

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"
	_ "time/tzdata" // nodes need not have a database of time zones

	"github.com/maestro-conductor/maestro/internal/wire"
	"github.com/maestro-conductor/maestro/raftfsm"
)

// Periods of a calendar window.
const (
	PeriodDay   = "day"
	PeriodMonth = "month"
)

const (
	zoneBytesMax   = 64
	anchorBytesMax = 5
	// calendarLongest is at least as long as any period, in microseconds of any clock.
	calendarLongest = int64(33 * 24 * time.Hour / time.Microsecond)
	// rollDelayMs is when to ask again while a new period is about to begin: nodes look once a
	// second whether one has begun.
	rollDelayMs = 1000
)

// Calendar admits at most Limit tokens in each period of the calendar. The next period begins
// for a group when the wall clocks of a majority of nodes have passed its boundary.
type Calendar struct {
	Limit uint32
	// Period is PeriodDay or PeriodMonth.
	Period string
	// TimeZone is of the IANA database; empty means UTC.
	TimeZone string
	// Anchor is where the period begins: the time of the day as HH:MM, empty for midnight, or the
	// day of the month from 1 to 28, empty for the first.
	Anchor string
}

// rule is the calendar without how much it admits.
func (c Calendar) rule() Calendar {
	c.Limit = 0
	return c
}

// calendarState is where a limit's calendar stands. Machines do not know time zones, because
// builds differ in them: the bounds come with a command.
type calendarState struct {
	// epoch counts the periods; counters of another epoch are unused.
	epoch uint64
	// begin and end are those of the present period, in seconds since 1970; 0 while they are not
	// known, which counts towards the period that will be.
	begin, end int64
	// since is the group time, in microseconds, at which the present period began; 0 for unknown. What
	// a counter lost before counts in an earlier period.
	since int64
}

// waitMs is how long the present period lasts, in real milliseconds, by a wall clock.
func (s calendarState) waitMs(wall int64) uint64 {
	if s.end == 0 || s.end*1000 <= wall {
		return rollDelayMs
	}
	return uint64(s.end*1000 - wall)
}

// periodOf returns the bounds of the period that a moment is in, in seconds since 1970. A boundary
// is the first instant at which clocks of the zone show the anchor or later.
func (c Calendar) periodOf(at time.Time) (begin, end int64, err error) {
	zone, err := c.zone()
	if err != nil {
		return 0, 0, err
	}
	local := at.In(zone)
	var bounds []int64
	for i := -2; i <= 2; i++ {
		b := c.boundary(local, i, zone)
		bounds = append(bounds, b)
	}
	for i := 1; i < len(bounds); i++ {
		if bounds[i-1] <= at.Unix() && at.Unix() < bounds[i] {
			return bounds[i-1], bounds[i], nil
		}
	}
	return 0, 0, fmt.Errorf("limiter: no %s of %s holds %v", c.Period, zone, at)
}

func (c Calendar) zone() (*time.Location, error) {
	if c.TimeZone == "" {
		return time.UTC, nil
	}
	zone, err := time.LoadLocation(c.TimeZone)
	if err != nil {
		return nil, fmt.Errorf("limiter: time zone %s: %w", c.TimeZone, err)
	}
	return zone, nil
}

// boundary is where the period begins that is i periods after the one named like local.
func (c Calendar) boundary(local time.Time, i int, zone *time.Location) int64 {
	hour, minute, day := 0, 0, local.Day()+i
	month := local.Month()
	switch {
	case c.Period == PeriodMonth:
		day, month = 1, month+time.Month(i)
		if c.Anchor != "" {
			day, _ = strconv.Atoi(c.Anchor)
		}
	case c.Anchor != "":
		t, _ := time.Parse("15:04", c.Anchor)
		hour, minute = t.Hour(), t.Minute()
	}
	return firstShowing(time.Date(local.Year(), month, day, hour, minute, 0, 0, time.UTC), zone)
}

// firstShowing is the first instant at which clocks of zone show what shown says, or later: it
// exists also when they skip it, and is the earlier one when they show it twice.
func firstShowing(shown time.Time, zone *time.Location) int64 {
	at := shown.Add(-48 * time.Hour).In(zone) // before it in every zone
	for {
		_, offset := at.Zone()
		begin, end := at.ZoneBounds()
		candidate := shown.Unix() - int64(offset)
		if !begin.IsZero() && candidate < begin.Unix() {
			return begin.Unix() // skipped when this offset began
		}
		if end.IsZero() || candidate < end.Unix() {
			return candidate
		}
		at = end
	}
}

// calendarProblems are what is wrong with a calendar, as far as every build agrees.
func calendarProblems(c Calendar) []problem {
	if c == (Calendar{}) {
		return nil
	}
	var out []problem
	switch c.Period {
	case PeriodDay:
		if t, err := time.Parse("15:04", c.Anchor); c.Anchor != "" && (err != nil || t.Format("15:04") != c.Anchor) {
			out = append(out, problem{"calendar.anchor", `must be a time of the day such as "06:00"`})
		}
	case PeriodMonth:
		if n, err := strconv.Atoi(c.Anchor); c.Anchor != "" && (err != nil || n < 1 || n > 28 || strconv.Itoa(n) != c.Anchor) {
			out = append(out, problem{"calendar.anchor", `must be a day from "1" to "28", which every month has`})
		}
	default:
		out = append(out, problem{"calendar.period", "must be day or month"})
	}
	if !validZoneName(c.TimeZone) {
		out = append(out, problem{"calendar.timeZone", zoneRule})
	}
	return out
}

const zoneRule = `must be a time zone of the IANA database such as "Europe/Berlin"; leave it out for UTC`

func validZoneName(s string) bool {
	if len(s) > zoneBytesMax || s == "Local" {
		return false
	}
	for _, c := range []byte(s) {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '/' && c != '_' && c != '-' && c != '+' {
			return false
		}
	}
	return true
}

// period is a calendar with its bounds at a moment.
type period struct {
	rule       Calendar
	begin, end int64
}

// rollCommand says that the wall clocks of a majority have passed a moment, and in which periods
// it is.
type rollCommand struct {
	wall    int64 // seconds since 1970
	periods []period
	// timed has the group remember when the periods began, which builds below raftfsm.LevelLeases
	// cannot.
	timed bool
}

func appendRoll(b []byte, c rollCommand) []byte {
	version := byte(codecLimits)
	if c.timed {
		version = codecLeases
	}
	b = append(b, version, opRoll)
	b = binary.AppendUvarint(b, uint64(c.wall))
	return appendPeriods(b, c.periods)
}

func appendPeriods(b []byte, periods []period) []byte {
	b = binary.AppendUvarint(b, uint64(len(periods)))
	for _, p := range periods {
		b = appendRule(b, p.rule)
		b = binary.AppendUvarint(b, uint64(p.begin))
		b = binary.AppendUvarint(b, uint64(p.end))
	}
	return b
}

func readPeriods(r *wire.Reader) []period {
	var out []period
	for n := r.Count(LimitsMax); n > 0 && !r.Failed(); n-- {
		out = append(out, period{rule: readRule(r), begin: readSeconds(r), end: readSeconds(r)})
	}
	return out
}

func readSeconds(r *wire.Reader) int64 { return int64(r.Uvarint(math.MaxInt64 / 1_000_000)) }

var periodCodes = [...]string{PeriodDay, PeriodMonth}

func appendRule(b []byte, c Calendar) []byte {
	b = append(b, codeOf(periodCodes[:], c.Period))
	b = wire.AppendString(b, c.TimeZone)
	return wire.AppendString(b, c.Anchor)
}

func readRule(r *wire.Reader) Calendar {
	return Calendar{Period: periodCodes[r.Byte(byte(len(periodCodes)-1))], TimeZone: r.String(zoneBytesMax), Anchor: r.String(anchorBytesMax)}
}

// roll begins the periods that the majority's clocks have reached. A period that has begun is
// never opened again, whatever clocks say later.
func (m *Machine) roll(tx *raftfsm.Tx, now int64, c rollCommand) ([]byte, error) {
	periods := make(map[Calendar]period, len(c.periods))
	for _, p := range c.periods {
		if c.wall < p.begin || c.wall >= p.end {
			return malformed(fmt.Errorf("%w: %d is outside of the period from %d to %d", errCodec, c.wall, p.begin, p.end)), nil
		}
		periods[p.rule] = p
	}
	sorted, changed := slices.Clone(m.set.sorted), 0
	for i, l := range sorted {
		p, known := periods[l.Calendar.rule()]
		if !known || !l.hasCalendar() || l.calendar.end > c.wall {
			continue
		}
		next := *l
		next.calendar.begin, next.calendar.end = p.begin, p.end
		if l.calendar.end != 0 {
			next.calendar.epoch++
			next.calendar.since = 0
			if c.timed {
				next.calendar.since = now
			}
		}
		if err := tx.Set(limitKey(l.ID), encodeLimitRow(&next)); err != nil {
			return nil, fmt.Errorf("limiter: next period of %s: %w", l.ID, err)
		}
		sorted[i], changed = &next, changed+1
	}
	clock := wallState{passed: max(m.set.wall.passed, c.wall), rolls: m.set.wall.rolls + 1}
	if err := tx.Set([]byte{tableWall}, encodeWall(clock)); err != nil {
		return nil, fmt.Errorf("limiter: wall clock: %w", err)
	}
	set := newLimitSet(m.set.version, sorted, m.set.emptied, clock)
	set.plans, set.blankets = m.set.plans, m.set.blankets
	m.set = set
	return binary.AppendUvarint([]byte{codecLimits, byte(outcomeRolled)}, uint64(changed)), nil
}

// wallState is what a group knows of the wall clocks.
type wallState struct {
	// passed is a moment that a majority's clocks have passed, in seconds since 1970.
	passed int64
	// rolls counts the commands that changed it, or periods: readers compare it.
	rolls uint64
}

func encodeWall(w wallState) []byte {
	b := binary.AppendUvarint([]byte{rowVersion}, uint64(w.passed))
	return binary.AppendUvarint(b, w.rolls)
}

func decodeWall(b []byte) (wallState, error) {
	r := wire.NewReader(b)
	v := r.Byte(rowVersion)
	w := wallState{passed: readSeconds(r), rolls: r.Uvarint(math.MaxUint64)}
	if err := r.Done(); err != nil || v != rowVersion {
		return wallState{}, errRow("wall clock")
	}
	return w, nil
}

func loadWall(store rows) (wallState, error) {
	v, err := store.Get([]byte{tableWall})
	if errors.Is(err, raftfsm.ErrNotFound) {
		return wallState{}, nil
	}
	if err != nil {
		return wallState{}, fmt.Errorf("limiter: load: %w", err)
	}
	return decodeWall(v)
}

// newEpoch is the epoch of a calendar that a limit gets. In a group that was restored within its
// period, counters of epoch 0 are full until it is over.
func newEpoch(old uint64, now, emptied int64) uint64 {
	if old == 0 && emptied > 0 && now-emptied < calendarLongest {
		return 0
	}
	return old + 1
}

// nextExpiry is when the next limit ends, as far as the group does not know that it has; 0 for never.
func (s *limitSet) nextExpiry() int64 {
	next := int64(0)
	for _, l := range s.sorted {
		if l.Expires > s.wall.passed && (next == 0 || l.Expires < next) {
			next = l.Expires
		}
	}
	return next
}

// calendars are the distinct rules of the limits with their bounds.
func (s *limitSet) calendars() []period {
	var out []period
	seen := map[period]bool{}
	for _, l := range s.sorted {
		if p := (period{l.Calendar.rule(), l.calendar.begin, l.calendar.end}); l.hasCalendar() && !seen[p] {
			seen[p] = true
			out = append(out, p)
		}
	}
	return out
}
