package main

import (
	"cmp"
	"slices"
	"time"
)

// admission is a check that was admitted: it debited cost somewhere between its times.
type admission struct {
	invoked, completed int64
	cost               int64
}

// checkOverAdmission holds every counter to what it may admit: a bucket in any interval of length t
// at most burst + rate*t, a window in any interval of its length at most its tokens.
//
// When exactly a check took effect is not visible from outside, but it was between its
// invocation and its completion. So all checks that were invoked at s or later and completed
// at e or earlier certainly took effect within [s, e], and their costs together must keep
// within burst + rate*(e-s). If that is exceeded for any s and e the limiter is certainly
// wrong; the reverse does not hold, because checks that reach over the ends are left out, and
// so are those of unknown outcome. It is enough to try invocations as s and completions as e:
// between them the left side does not change, and the right side only grows.
//
// Arithmetic is exact, in integers: (sum - burst) * period <= tokens * (e - s). For a window the
// same holds with intervals of its length.
func checkOverAdmission(h *History) Finding {
	f := Finding{Checker: "over-admission", What: "admitted checks"}
	for _, l := range h.Header.Limits {
		byCounter := map[string][]admission{}
		for i := range h.Ops {
			op := &h.Ops[i]
			if op.Check == nil || op.Outcome != outcomeOK || !op.Check.Allowed {
				continue
			}
			if name, ok := l.counter(op.Check); ok {
				byCounter[name] = append(byCounter[name], admission{op.Invoked, op.Completed, int64(op.Check.Cost)})
			}
		}
		for _, name := range sortedKeys(byCounter) {
			f.Checked += len(byCounter[name])
			worst := worstInterval
			if l.isWindow() {
				worst = worstWindow
			}
			if w, over := worst(l, byCounter[name]); over {
				f.violate("counter %s: %d admitted between %v and %v, the limit allows %d + %d per %v", name,
					w.cost, time.Duration(w.invoked), time.Duration(w.completed), l.Burst, l.Tokens, l.PeriodNs)
			}
		}
	}
	return f
}

// worstInterval finds the interval that exceeds the curve by most.
func worstInterval(l LimitModel, admitted []admission) (worst admission, over bool) {
	slices.SortFunc(admitted, func(a, b admission) int { return cmp.Compare(a.completed, b.completed) })
	var excess int64
	for _, from := range admitted {
		var sum int64
		for _, a := range admitted {
			if a.invoked < from.invoked {
				continue
			}
			sum += a.cost
			e := (sum-l.Burst)*int64(l.PeriodNs) - l.Tokens*(a.completed-from.invoked)
			if e > excess {
				excess, worst, over = e, admission{from.invoked, a.completed, sum}, true
			}
		}
	}
	return worst, over
}

// worstWindow finds the interval of the window's length in which most was admitted.
func worstWindow(l LimitModel, admitted []admission) (worst admission, over bool) {
	slices.SortFunc(admitted, func(a, b admission) int { return cmp.Compare(a.completed, b.completed) })
	most := l.Tokens
	for _, from := range admitted {
		var sum int64
		for _, a := range admitted {
			if a.invoked < from.invoked {
				continue
			}
			if a.completed > from.invoked+int64(l.PeriodNs) {
				break
			}
			if sum += a.cost; sum > most {
				most, worst, over = sum, admission{from.invoked, a.completed, sum}, true
			}
		}
	}
	return worst, over
}

// Utilisation: without faults at least utilisationPercent of what the limit gives is used
// when that much is asked for, so that a limiter that denies everything fails.
const utilisationPercent = 50

// quietMin is the least fault-free time that says anything about utilisation.
const quietMin = 2 * time.Second

// checkUtilisation looks at the fault-free stretches together.
func checkUtilisation(h *History) Finding {
	f := Finding{Checker: "utilisation", What: "counters"}
	quiet := quietStretches(h)
	var length time.Duration
	for _, q := range quiet {
		length += time.Duration(q.to - q.from)
	}
	if length < quietMin {
		f.violate("only %v of the run were free of faults; let it run longer", length)
		return f
	}
	type use struct{ asked, admitted int64 }
	for _, l := range h.Header.Limits {
		if !l.Binding {
			continue
		}
		telling, most := l.gives(quiet)
		uses := map[string]*use{}
		for i := range h.Ops {
			op := &h.Ops[i]
			if op.Check == nil || op.Outcome != outcomeOK || !within(telling, op.Completed) {
				continue
			}
			name, ok := l.counter(op.Check)
			if !ok {
				continue
			}
			u := uses[name]
			if u == nil {
				u = &use{}
				uses[name] = u
			}
			u.asked += int64(op.Check.Cost)
			if op.Check.Allowed {
				u.admitted += int64(op.Check.Cost)
			}
		}
		for _, name := range sortedKeys(uses) {
			u := uses[name]
			f.Checked++
			given := min(most, u.asked)
			if u.admitted*100 < given*utilisationPercent {
				f.violate("counter %s: %d admitted of %d asked for without faults; at least %d %% of %d must be",
					name, u.admitted, u.asked, utilisationPercent, given)
			}
		}
	}
	return f
}

// gives is what a counter of the limit surely gives in the quiet stretches that tell something of it.
// A bucket fills at any time. A window may be used up at the very end of a fault, and gives nothing then
// until its length is over: so it is held to its whole lengths within a stretch, and shorter stretches
// tell nothing.
func (l LimitModel) gives(quiet []stretch) (telling []stretch, tokens int64) {
	var length int64
	for _, q := range quiet {
		d := q.to - q.from
		if l.isWindow() {
			if d -= d % int64(l.PeriodNs); d == 0 {
				continue
			}
		}
		length += d
		telling = append(telling, q)
	}
	return telling, l.Tokens * length / int64(l.PeriodNs)
}

// stretch is an interval of the run.
type stretch struct{ from, to int64 }

// quietStretches is the time between the first and the last check in which no fault was
// under way.
func quietStretches(h *History) []stretch {
	var first, last int64 = -1, 0
	for i := range h.Ops {
		if op := &h.Ops[i]; op.Check != nil {
			if first < 0 || op.Invoked < first {
				first = op.Invoked
			}
			last = max(last, op.Completed)
		}
	}
	if first < 0 {
		return nil
	}
	faults := slices.Clone(h.Faults)
	slices.SortFunc(faults, func(a, b Fault) int { return cmp.Compare(a.Started, b.Started) })
	var out []stretch
	from := first
	for _, f := range faults {
		if f.Started > from {
			out = append(out, stretch{from, f.Started})
		}
		from = max(from, f.Ended)
	}
	if last > from {
		out = append(out, stretch{from, last})
	}
	return out
}

func within(stretches []stretch, at int64) bool {
	for _, s := range stretches {
		if at >= s.from && at <= s.to {
			return true
		}
	}
	return false
}

// checkRegisters looks for stale reads of limits. A read must not return a value that was
// certainly overwritten before it began: v is overwritten by u when the write of v had
// completed before that of u began, and u certainly took effect before the read began, since
// its write was acknowledged or another read had returned it by then. A value that nobody
// tried to write before the read ended, or whose write failed for certain, is an invention.
// Writes of unknown outcome may take effect at any later time, so they overwrite nothing and
// may be read for ever.
func checkRegisters(h *History) Finding {
	f := Finding{Checker: "registers", What: "reads of limits"}
	writes := map[string]map[uint32]*Op{}
	for i := range h.Ops {
		if op := &h.Ops[i]; op.Write != nil {
			if writes[op.Write.Register] == nil {
				writes[op.Write.Register] = map[uint32]*Op{}
			}
			writes[op.Write.Register][op.Write.Value] = op
		}
	}
	reads := map[string][]*Op{}
	for i := range h.Ops {
		if op := &h.Ops[i]; op.Read != nil && op.Outcome == outcomeOK {
			reads[op.Read.Register] = append(reads[op.Read.Register], op)
		}
	}
	for _, name := range sortedKeys(reads) {
		effective := effectiveFrom(writes[name], reads[name])
		for _, r := range reads[name] {
			f.Checked++
			judgeRead(&f, name, r, writes[name], effective)
		}
	}
	return f
}

// effectiveFrom is the time by which each value had certainly been written.
func effectiveFrom(writes map[uint32]*Op, reads []*Op) map[uint32]int64 {
	out := map[uint32]int64{}
	for v, w := range writes {
		if w.Outcome == outcomeOK {
			out[v] = w.Completed
		}
	}
	for _, r := range reads {
		if at, ok := out[r.Read.Value]; !ok || r.Completed < at {
			out[r.Read.Value] = r.Completed
		}
	}
	return out
}

func judgeRead(f *Finding, name string, r *Op, writes map[uint32]*Op, effective map[uint32]int64) {
	v := r.Read.Value
	w := writes[v]
	switch {
	case v == 0: // not there: anything that took effect before makes that stale
	case w == nil || w.Outcome == outcomeFailed || w.Invoked > r.Completed:
		f.violate("register %s: the read at %v returned %d, which was not written", name, time.Duration(r.Invoked), v)
		return
	case w.Outcome == outcomeUnknown:
		return
	}
	for u, at := range effective {
		newer := writes[u]
		if newer == nil || u == v || at > r.Invoked {
			continue
		}
		if v == 0 || w.Completed <= newer.Invoked {
			f.violate("register %s: the read at %v returned %d, although %d was in force at %v",
				name, time.Duration(r.Invoked), v, u, time.Duration(at))
			return
		}
	}
}
