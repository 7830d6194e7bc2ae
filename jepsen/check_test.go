package main

import (
	"fmt"
	"io"
	"math/rand/v2"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

const ms = int64(time.Millisecond)

// testSeed is the seed of the histories in these tests.
const testSeed = 7

// finding runs one checker and demands a violation that contains want, or none for "".
func finding(t *testing.T, check func(*History) Finding, h *History, want string) {
	t.Helper()
	f := check(h)
	switch all := strings.Join(f.Violations, "\n"); {
	case want == "" && f.Violated > 0:
		t.Errorf("%s: unexpected violations:\n%s", f.Checker, all)
	case want == "" && f.Checked == 0:
		t.Errorf("%s: checked nothing", f.Checker)
	case !strings.Contains(all, want):
		t.Errorf("%s: got violations %q, want one with %q", f.Checker, all, want)
	}
}

func history(ops ...Op) *History {
	return &History{Header: Header{Seed: testSeed, Limits: []LimitModel{
		{ID: "total", Scope: "tenant", Tenant: "acme", Tokens: 10, PeriodNs: time.Second, Burst: 5, Binding: true},
		{ID: "each", Scope: "token", Tenant: "acme", Tokens: 10, PeriodNs: time.Second, Burst: 3},
	}}, Ops: ops}
}

func checked(invoked, completed int64, token string, allowed bool) Op {
	return Op{
		Invoked: invoked * ms, Completed: completed * ms, Outcome: outcomeOK,
		Check: &CheckOp{Tenant: "acme", Token: token, Cost: 1, Allowed: allowed},
	}
}

func TestOverAdmission(t *testing.T) {
	same := func(n int, invoked, completed int64, token string) (ops []Op) {
		for i := range n {
			tok := token
			if token == "" {
				tok = fmt.Sprint("token-", i)
			}
			ops = append(ops, checked(invoked, completed, tok, true))
		}
		return ops
	}
	for _, tc := range []struct {
		name string
		ops  []Op
		want string
	}{
		{"the burst at once", same(5, 0, 1, ""), ""},
		{"one more than the burst", same(6, 0, 1, ""), "counter total: 6 admitted"},
		{"one more, but one token came meanwhile", same(6, 0, 100, ""), ""},
		{"one nanosecond too early", append(same(5, 0, 1, ""), Op{
			Invoked: 1, Completed: 100*ms - 1, Outcome: outcomeOK, Check: &CheckOp{Tenant: "acme", Cost: 1, Allowed: true},
		}), "counter total: 6 admitted"},
		{"a token's own counter", same(4, 0, 1, "ana"), "counter each/ana: 4 admitted"},
		{"two tokens", append(same(3, 0, 1, "ana"), same(2, 0, 1, "ben")...), ""},
		{"a fresh bucket after a leader change", append(same(5, 0, 10, ""), same(5, 1000, 1010, "")...), ""},
		{"a fresh bucket too early", append(same(5, 0, 10, ""), same(5, 200, 210, "")...), "10 admitted between 0s and 210ms"},
		{"long checks could have been spread", same(15, 0, 1000, ""), ""},
		{"long checks could not", same(16, 0, 1000, ""), "16 admitted"},
		{"costs count", []Op{{Completed: ms, Outcome: outcomeOK, Check: &CheckOp{Tenant: "acme", Cost: 6, Allowed: true}}}, "6 admitted"},
		{"another tenant is not limited", append(same(1, 0, 1, ""), Op{
			Completed: ms, Outcome: outcomeOK, Check: &CheckOp{Tenant: "other", Cost: 100, Allowed: true},
		}), ""},
		{"unknown outcomes do not count", append(same(5, 0, 1, ""), Op{
			Completed: ms, Outcome: outcomeUnknown, Check: &CheckOp{Tenant: "acme", Cost: 1},
		}), ""},
	} {
		t.Run(tc.name, func(t *testing.T) { finding(t, checkOverAdmission, history(tc.ops...), tc.want) })
	}
}

func TestOverAdmissionOfWindows(t *testing.T) {
	h := func(ops ...Op) *History {
		return &History{Header: Header{Limits: []LimitModel{{ID: "window", Scope: "tenant", Tenant: "acme", Tokens: 3, PeriodNs: time.Second}}}, Ops: ops}
	}
	at := func(times ...int64) (ops []Op) {
		for _, ms := range times {
			ops = append(ops, checked(ms, ms+1, "", true))
		}
		return ops
	}
	finding(t, checkOverAdmission, h(at(0, 500, 999)...), "")
	finding(t, checkOverAdmission, h(at(0, 1, 2, 1000, 1001, 1002)...), "")
	finding(t, checkOverAdmission, h(at(0, 1, 2, 999)...), "counter window: 4 admitted")
	finding(t, checkOverAdmission, h(at(0, 998, 999, 1000, 1001)...), "4 admitted between 998ms")
	finding(t, checkOverAdmission, h(append(at(0, 1, 2), Op{ // may have taken effect when the window was over
		Invoked: 5 * ms, Completed: 1001 * ms, Outcome: outcomeOK, Check: &CheckOp{Tenant: "acme", Cost: 1, Allowed: true},
	})...), "")
}

// TestATokenBucketIsNeverAccused simulates a right limiter, whose checks take effect at a
// random moment of theirs.
func TestATokenBucketIsNeverAccused(t *testing.T) {
	r := rand.New(rand.NewPCG(testSeed, 0))
	var ops []Op
	level, last := 5*time.Second.Nanoseconds(), int64(0) // in tokens of 10/s times nanoseconds
	for at := int64(0); len(ops) < 2000; at += r.Int64N(60 * ms) {
		level, last = min(5*time.Second.Nanoseconds(), level+10*(at-last)), at
		op := checked(0, 0, fmt.Sprint("token-", len(ops)), level >= time.Second.Nanoseconds())
		op.Invoked, op.Completed = at-r.Int64N(50*ms), at+r.Int64N(50*ms)
		if op.Check.Allowed {
			level -= time.Second.Nanoseconds()
		}
		ops = append(ops, op)
	}
	finding(t, checkOverAdmission, history(ops...), "")
}

func TestUtilisation(t *testing.T) {
	// Every 20 ms one check, admitted when admit says so.
	run := func(admit func(i int) bool) *History {
		var ops []Op
		for i := range 500 {
			ops = append(ops, checked(int64(20*i), int64(20*i+1), "ana", admit(i)))
		}
		return history(ops...)
	}
	full := func(i int) bool { return i%5 == 0 } // 10/s
	finding(t, checkUtilisation, run(full), "")
	finding(t, checkUtilisation, run(func(i int) bool { return i%9 == 0 }), "")
	finding(t, checkUtilisation, run(func(i int) bool { return i%11 == 0 }), "counter total: 46 admitted of 500")
	finding(t, checkUtilisation, run(func(int) bool { return false }), "0 admitted")

	during := run(func(i int) bool { return i < 250 && full(i) })
	finding(t, checkUtilisation, during, "")
	during.Faults = []Fault{{Kind: faultPause, Started: 0, Ended: 5000 * ms}} // now only what was denied counts
	finding(t, checkUtilisation, during, "0 admitted of 250")
	during.Faults[0].Ended = 9000 * ms
	finding(t, checkUtilisation, during, "free of faults")
}

// TestUtilisationOfWindows uses up windows of three seconds just before a fault ends.
func TestUtilisationOfWindows(t *testing.T) {
	run := func(quiet time.Duration, admit func(at int64) bool) *History {
		var ops []Op
		for at := int64(0); at < 30_000; at += 20 {
			ops = append(ops, checked(at, at+1, "ana", admit(at)))
		}
		h := history(ops...)
		h.Header.Limits = []LimitModel{{ID: "window", Scope: "tenant", Tenant: "acme", Tokens: 30, PeriodNs: 3 * time.Second, Binding: true}}
		for at := int64(0); at < 30_000; at += 10_000 {
			h.Faults = append(h.Faults, Fault{Kind: faultPause, Started: at * ms, Ended: (at+10_000)*ms - int64(quiet)})
		}
		return h
	}
	early := func(at int64) bool { return at%3000 < 600 } // its 30 tokens at once, as the window allows
	finding(t, checkUtilisation, run(4*time.Second, early), "")
	h := run(2*time.Second, early)
	h.Header.Limits = append(h.Header.Limits, LimitModel{ID: "bucket", Scope: "token", Tenant: "acme", Tokens: 10, PeriodNs: time.Second, Burst: 5, Binding: true})
	h.Ops = slices.DeleteFunc(h.Ops, func(op Op) bool { return op.Check.Allowed })
	finding(t, checkUtilisation, h, "counter bucket/ana: 0 admitted") // two seconds tell of a bucket, and nothing of a window
	finding(t, checkUtilisation, run(4*time.Second, func(at int64) bool { return at%3000 < 120 }), "counter window")
}

// doc ids of the tests; all belong to the execution "run".
func ingested(invoked, completed int64, outcome string, ids ...string) Op {
	return Op{Invoked: invoked * ms, Completed: completed * ms, Outcome: outcome, Ingest: &IngestOp{
		Mode: ingestNew, Execution: "run", IDs: ids, Indexed: len(ids),
	}}
}

func searched(invoked, completed int64, s SearchOp, ids ...string) Op {
	s.Complete, s.Total = true, len(ids)
	for _, id := range ids {
		s.Found = append(s.Found, Found{id, content(testSeed, id)})
	}
	return Op{Worker: "w", Phase: phaseFaults, Invoked: invoked * ms, Completed: completed * ms, Outcome: outcomeOK, Search: &s}
}

func TestReads(t *testing.T) {
	ofRun := SearchOp{Execution: "run"}
	wrong := searched(20, 21, SearchOp{ID: "a"}, "a")
	wrong.Search.Found[0].Content = "forged"
	partial := searched(20, 21, ofRun)
	partial.Search.Complete = false
	counted := searched(20, 21, ofRun, "a")
	counted.Search.Total = 2
	for _, tc := range []struct {
		name string
		ops  []Op
		want string
	}{
		{"found", []Op{ingested(0, 10, outcomeOK, "a", "b"), searched(20, 21, ofRun, "b", "a")}, ""},
		{"missed", []Op{ingested(0, 10, outcomeOK, "a", "b"), searched(20, 21, ofRun, "a")}, "missed document b"},
		{"missed by its id", []Op{ingested(0, 10, outcomeOK, "a"), searched(20, 21, SearchOp{ID: "a"})}, "missed document a"},
		{"missed while it was being stored", []Op{ingested(0, 10, outcomeOK, "a"), searched(5, 21, ofRun)}, ""},
		{"incomplete answers may miss", []Op{ingested(0, 10, outcomeOK, "a"), partial, searched(5, 9, ofRun)}, ""},
		{"unknown and not there", []Op{ingested(0, 10, outcomeUnknown, "a"), searched(20, 21, ofRun)}, ""},
		{"unknown and there", []Op{ingested(0, 10, outcomeUnknown, "a"), searched(20, 21, ofRun, "a")}, ""},
		{"unknown, there, then gone", []Op{
			ingested(0, 10, outcomeUnknown, "a"), searched(20, 21, ofRun, "a"), searched(22, 23, ofRun),
		}, "missed document a, stored by 21ms"},
		{"twice", []Op{ingested(0, 10, outcomeUnknown, "a"), searched(20, 21, ofRun, "a", "a")}, "holds document a twice"},
		{"failed and there", []Op{ingested(0, 10, outcomeFailed, "a"), searched(20, 21, ofRun, "a")}, "certainly failed"},
		{"before it was sent", []Op{ingested(30, 40, outcomeOK, "a"), searched(20, 21, ofRun, "a")}, "had not been sent"},
		{"never sent", []Op{searched(20, 21, ofRun, "x")}, "had not been sent"},
		{"other content", []Op{ingested(0, 10, outcomeOK, "a"), wrong}, "other content"},
		{"another document", []Op{ingested(0, 10, outcomeOK, "a", "b"), searched(20, 21, SearchOp{ID: "a"}, "a", "b")}, "does not match"},
		{"a wrong total", []Op{ingested(0, 10, outcomeOK, "a"), counted}, "counts 2 and holds 1"},
	} {
		t.Run(tc.name, func(t *testing.T) { finding(t, checkReads, history(tc.ops...), tc.want) })
	}
}

func TestAcknowledged(t *testing.T) {
	final := func(complete bool, ids ...string) Op {
		op := searched(100, 101, SearchOp{ID: "a"}, ids...)
		op.Phase, op.Search.Complete = phaseFinal, complete
		return op
	}
	acked := ingested(0, 10, outcomeOK, "a")
	for _, tc := range []struct {
		name string
		ops  []Op
		want string
	}{
		{"found", []Op{acked, final(true, "a")}, ""},
		{"lost", []Op{acked, final(true)}, "found it 0 times"},
		{"twice", []Op{acked, final(true, "a", "a")}, "found it 2 times"},
		{"never looked for", []Op{acked, searched(20, 21, SearchOp{ID: "a"}, "a")}, "not answered"},
		{"incomplete", []Op{acked, final(false, "a")}, "incomplete"},
		{"unknown ones are free", []Op{acked, final(true, "a"), ingested(0, 10, outcomeUnknown, "b")}, ""},
	} {
		t.Run(tc.name, func(t *testing.T) { finding(t, checkAcknowledged, history(tc.ops...), tc.want) })
	}
}

func TestIngestCounts(t *testing.T) {
	answer := func(mode string, indexed, existing, refused int) *History {
		op := ingested(0, 1, outcomeOK, "a", "b")
		op.Ingest.Mode, op.Ingest.Indexed, op.Ingest.Existing, op.Ingest.Refused = mode, indexed, existing, refused
		return history(op)
	}
	for _, tc := range []struct {
		mode                       string
		indexed, existing, refused int
		want                       string
	}{
		{ingestNew, 2, 0, 0, ""},
		{ingestNew, 1, 1, 0, ""},
		{ingestNew, 1, 0, 0, "1 indexed, 0 existing, 0 refused"},
		{ingestNew, 1, 0, 1, "1 refused"},
		{ingestRepeat, 0, 2, 0, ""},
		{ingestRepeat, 1, 1, 0, "(repeat)"},
		{ingestConflict, 0, 0, 2, ""},
		{ingestConflict, 0, 2, 0, "(conflict)"},
	} {
		finding(t, checkIngestCounts, answer(tc.mode, tc.indexed, tc.existing, tc.refused), tc.want)
	}
}

func TestRegisters(t *testing.T) {
	write := func(invoked, completed int64, outcome string, value uint32) Op {
		return Op{Invoked: invoked, Completed: completed, Outcome: outcome, Write: &WriteOp{"r", value}}
	}
	read := func(invoked, completed int64, value uint32) Op {
		return Op{Invoked: invoked, Completed: completed, Outcome: outcomeOK, Read: &ReadOp{"r", value}}
	}
	first := write(0, 1, outcomeOK, 1)
	for _, tc := range []struct {
		name string
		ops  []Op
		want string
	}{
		{"fresh", []Op{first, write(2, 3, outcomeOK, 2), read(4, 5, 2)}, ""},
		{"stale", []Op{first, write(2, 3, outcomeOK, 2), read(4, 5, 1)}, "returned 1, although 2 was in force"},
		{"gone", []Op{first, read(4, 5, 0)}, "returned 0"},
		{"old or new during the write", []Op{first, write(2, 9, outcomeOK, 2), read(3, 4, 1), read(3, 4, 2)}, ""},
		{"new, then old", []Op{first, write(2, 9, outcomeOK, 2), read(3, 4, 2), read(5, 6, 1)}, "returned 1"},
		{"unknown and seen", []Op{first, write(2, 3, outcomeUnknown, 2), read(4, 5, 2), read(6, 7, 2)}, ""},
		{"unknown and late", []Op{first, write(2, 3, outcomeUnknown, 2), write(4, 5, outcomeOK, 3), read(6, 7, 2)}, ""},
		{"unknown, seen, then back", []Op{first, write(2, 3, outcomeUnknown, 2), read(4, 5, 2), read(6, 7, 1)}, "returned 1"},
		{"failed and seen", []Op{first, write(2, 3, outcomeFailed, 2), read(4, 5, 2)}, "was not written"},
		{"invented", []Op{first, read(4, 5, 9)}, "was not written"},
		{"from the future", []Op{first, read(2, 3, 2), write(4, 5, outcomeOK, 2)}, "was not written"},
	} {
		t.Run(tc.name, func(t *testing.T) { finding(t, checkRegisters, history(tc.ops...), tc.want) })
	}
}

func TestFaultsAndLiveness(t *testing.T) {
	h := history()
	for _, kind := range faultKinds {
		h.Faults = append(h.Faults, Fault{Kind: kind, Node: "node-1", Ended: ms, Recovered: true})
	}
	h.Probes = []Probe{{Name: "a check", TookNs: ms}}
	finding(t, checkFaults, h, "")
	finding(t, checkLiveness, h, "")

	h.Header.Kills = 12
	h.Faults = append(h.Faults, Fault{Kind: faultStorm, Kills: 10, Recovered: true})
	finding(t, checkFaults, h, "10 of 12 kills")
	h.Faults = append(h.Faults, Fault{Kind: faultStorm, Kills: 2, Recovered: true})
	finding(t, checkFaults, h, "")

	h.Faults[1].Error = "waited for the process to be replaced"
	finding(t, checkFaults, h, "no "+h.Faults[1].Kind+" happened")
	h.Faults[2].Recovered = false
	finding(t, checkFaults, h, "not whole again")
	h.Probes = append(h.Probes, Probe{Name: "an ingest", Error: "no leader"}, Probe{Name: "slow", TookNs: int64(healTimeout) + 1})
	finding(t, checkLiveness, h, "an ingest: no leader")
	finding(t, checkLiveness, h, "slow: took")
}

// TestAnEmptyHistoryFails: a checker that had nothing to check proves nothing.
func TestAnEmptyHistoryFails(t *testing.T) {
	for _, f := range judge(&History{}) {
		if f.Violated == 0 {
			t.Errorf("%s is content with nothing", f.Checker)
		}
	}
	if good, err := report(io.Discard, &History{}, judge(&History{})); good || err != nil {
		t.Errorf("report: good %v, err %v", good, err)
	}
}

func TestHistoryFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "history.jsonl")
	want := history()
	r, err := newRecorder(path, want.Header)
	if err != nil {
		t.Fatal(err)
	}
	op := r.begin("w")
	op.Check = &CheckOp{Tenant: "acme", Cost: 1}
	r.end(op, io.ErrUnexpectedEOF)
	r.setPhase(phaseFinal)
	op = r.begin("w")
	op.Search = &SearchOp{ID: "a", Found: []Found{{"a", "text"}}}
	r.end(op, nil)
	r.fault(Fault{Kind: faultKill, Node: "node-1"})
	r.probe(Probe{Name: "p", Error: "e"})
	written, err := r.close()
	if err != nil {
		t.Fatal(err)
	}
	read, err := readHistory(path)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(written, read) {
		t.Errorf("wrote %+v\nread  %+v", written, read)
	}
	if got := read.Ops[0]; got.Outcome != outcomeUnknown || got.Phase != phaseFaults || got.Completed < got.Invoked {
		t.Errorf("first operation %+v", got)
	}
	if got := read.Ops[1]; got.Outcome != outcomeOK || got.Phase != phaseFinal {
		t.Errorf("second operation %+v", got)
	}
}
