package main

import (
	"fmt"
	"io"
	"text/tabwriter"
)

// Finding is what one checker says. A checker that had nothing to look at fails: it would
// prove nothing.
type Finding struct {
	Checker string
	// Checked counts what was looked at, in the unit What.
	Checked int
	What    string
	// Violations are at most violationsMax examples of Violated.
	Violations []string
	Violated   int
}

// violationsMax bounds the examples that are kept; the first ones say enough.
const violationsMax = 10

func (f *Finding) violate(format string, args ...any) {
	f.Violated++
	if len(f.Violations) < violationsMax {
		f.Violations = append(f.Violations, fmt.Sprintf(format, args...))
	}
}

// checkers judge a history; each is a pure function of it.
var checkers = []func(*History) Finding{
	checkOverAdmission,
	checkUtilisation,
	checkAcknowledged,
	checkReads,
	checkIngestCounts,
	checkRegisters,
	checkFaults,
	checkLiveness,
}

// judge runs all checkers.
func judge(h *History) []Finding {
	var out []Finding
	for _, check := range checkers {
		f := check(h)
		if f.Checked == 0 {
			f.violate("there was nothing to check, so this run proves nothing")
		}
		out = append(out, f)
	}
	return out
}

// report prints the findings and says whether all is well.
func report(w io.Writer, h *History, findings []Finding) (bool, error) {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, row := range opCounts(h) {
		fmt.Fprintln(tw, row)
	}
	for _, kind := range append([]string{faultUpgrade}, faultKinds...) {
		fmt.Fprintf(tw, "fault %s\t%d\n", kind, faultCount(h, kind))
	}
	if n := stormCount(h); n > 0 {
		fmt.Fprintf(tw, "kills at random moments\t%d\n", n)
	}
	good := true
	for _, f := range findings {
		verdict := "ok"
		if f.Violated > 0 {
			verdict, good = fmt.Sprintf("VIOLATED %d times", f.Violated), false
		}
		fmt.Fprintf(tw, "%s\t%d %s\t%s\n", f.Checker, f.Checked, f.What, verdict)
		for _, v := range f.Violations {
			fmt.Fprintf(tw, "  %s\n", v)
		}
	}
	return good, tw.Flush()
}

// opCounts are the operations by kind and outcome.
func opCounts(h *History) []string {
	kinds := []string{"check", "ingest", "search", "set limits", "list limits"}
	counts := map[string]map[string]int{}
	for _, k := range kinds {
		counts[k] = map[string]int{}
	}
	for i := range h.Ops {
		op := &h.Ops[i]
		switch {
		case op.Check != nil:
			counts["check"][op.Outcome]++
		case op.Ingest != nil:
			counts["ingest"][op.Outcome]++
		case op.Search != nil:
			counts["search"][op.Outcome]++
		case op.Write != nil:
			counts["set limits"][op.Outcome]++
		case op.Read != nil:
			counts["list limits"][op.Outcome]++
		}
	}
	var out []string
	for _, k := range kinds {
		c := counts[k]
		out = append(out, fmt.Sprintf("%s\t%d ok\t%d failed\t%d unknown", k, c[outcomeOK], c[outcomeFailed], c[outcomeUnknown]))
	}
	return out
}
