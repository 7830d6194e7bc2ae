package limiter

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// timed is a command and the group time at which it was proposed.
type timed struct {
	at   time.Duration
	data []byte
}

// replaysTheSame plays a log several times: however its commands are grouped into entries, wherever the
// machine restarts and however much it caches, results and rows are the same; and where it is swept,
// results are.
func replaysTheSame(t *testing.T, rt *rapid.T, log []timed) {
	run := func(name string, cache int, swept bool) (results string, hash [32]byte) {
		d := drive(t, cache)
		for i := 0; i < len(log); {
			n := 1
			for i+n < len(log) && log[i+n].at == log[i].at && rapid.Bool().Draw(rt, name+" joins") {
				n++
			}
			var entry [][]byte
			for _, c := range log[i : i+n] {
				entry = append(entry, c.data)
			}
			d.Time = log[i].at
			for _, r := range d.Apply(entry...) {
				results += fmt.Sprintf("%x\n", r)
			}
			d.knowsItsRows()
			if rapid.IntRange(0, 4).Draw(rt, name+" restarts") == 0 {
				d.Restart()
			}
			if swept && rapid.Bool().Draw(rt, name+" sweeps") {
				d.sweep()
			}
			i += n
		}
		return results, d.StateHash()
	}
	results, hash := run("first", 1, false)
	again, sameHash := run("second", 1000, false)
	if again != results {
		rt.Fatalf("results differ:\n%s\nand\n%s", results, again)
	}
	if sameHash != hash {
		rt.Fatal("state hashes differ")
	}
	if swept, _ := run("swept", 3, true); swept != results {
		rt.Fatalf("sweeps change results:\n%s\nand\n%s", results, swept)
	}
}

// The same commands give the same results and the same state, whatever they are.
func TestReplayIsTheSame(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		var log []timed
		var now time.Duration
		version := uint32(0)
		seed := holdID{1}
		held := rapid.SampledFrom([]holdID{seed, {2}, newHoldID(seed, 0)})
		for range rapid.IntRange(1, 40).Draw(rt, "commands") {
			now += genPause().Draw(rt, "pause") * time.Duration(rapid.IntRange(0, 1).Draw(rt, "later"))
			data := []byte{codecFirst, opSweep}
			switch rapid.SampledFrom([]string{"check", "check", "check", "batch", "hold", "hold", "limits", "plans", "sweep", "roll", "noise"}).Draw(rt, "command") {
			case "check":
				data = appendCheck(nil, genRequest().Draw(rt, "request"))
			case "batch":
				data = appendBatch(nil, rapid.SliceOfN(genRequest(), 0, 4).Draw(rt, "requests"))
			case "hold":
				op := rapid.ByteRange(opReserve, opRelease).Draw(rt, "operation")
				data = appendHold(nil, op, holdCommand{Request: genRequest().Draw(rt, "request"), id: held.Draw(rt, "id"), renew: rapid.Bool().Draw(rt, "renew")})
			case "roll":
				data = genRoll().Draw(rt, "roll")
			case "limits":
				version++
				data = appendConfigure(nil, configureCommand{Change: Change{To: version, Puts: genAnything().Draw(rt, "limits")}, last: true})
			case "plans":
				c := genPlans().Draw(rt, "plans")
				c.From = version
				version++
				c.To = version
				for _, part := range parted(c, rapid.IntRange(1, 3).Draw(rt, "parts")) {
					log = append(log, timed{now, appendConfigure(nil, part)})
				}
				continue
			case "noise":
				data = append([]byte{rapid.ByteRange(codecFirst, codecLeases).Draw(rt, "version"), rapid.SampledFrom(operations).Draw(rt, "operation")}, rapid.SliceOfN(rapid.Byte(), 0, 8).Draw(rt, "noise")...)
			}
			log = append(log, timed{now, data})
		}
		replaysTheSame(t, rt, log)
	})
}

var operations = []byte{opCheck, opConfigure, opSweep, opVersion, opRoll, opCalendars, opPeek, opBatch, opReserve, opSettle, opRefund, opAcquire, opRelease}

// So do those about leases, of several counters, while limits change.
func TestLeasesReplayTheSame(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		var log []timed
		var now time.Duration
		change := func(version uint32) []byte {
			var puts []Limit
			for i := range rapid.IntRange(0, 3).Draw(rt, "limits") {
				l := genLent().Draw(rt, "limit")
				l.ID = fmt.Sprint("limit-", i)
				l.Scope = rapid.SampledFrom([]string{ScopeTenant, ScopeTenant, ScopeKey}).Draw(rt, "scope")
				if i == 0 { // a calendar that is added counts what died before and was not looked at
					l.Calendar = Calendar{Limit: rapid.Uint32Range(leaseTokensMin, 300).Draw(rt, "period"), Period: PeriodDay}
				} else {
					l.Calendar = Calendar{}
				}
				l.Oversize = rapid.SampledFrom([]string{"", "", OversizeDebt}).Draw(rt, "oversize")
				l.OnFailure = rapid.SampledFrom([]string{"", "", OnFailureDeny, OnFailureOpen}).Draw(rt, "on failure")
				l.Enforcement = rapid.SampledFrom([]string{"", "", "", EnforcementShadow, EnforcementOff}).Draw(rt, "enforcement")
				if len(problemsOf(l)) == 0 {
					puts = append(puts, l)
				}
			}
			return appendConfigure(nil, configureCommand{Change: Change{To: version, Puts: puts}, last: true})
		}
		request := rapid.Custom(func(t *rapid.T) Request {
			return Request{Tenant: "acme", Key: rapid.SampledFrom([]string{"a", "b"}).Draw(t, "key"), Cost: rapid.Uint32Range(0, 70).Draw(t, "cost")}
		})
		renewal := rapid.Custom(func(t *rapid.T) Renewal {
			small := rapid.Uint64Range(0, 12)
			r := Renewal{
				Limit: rapid.Uint64Range(1, 4).Draw(t, "limit"), Tenant: "acme", Subject: rapid.SampledFrom([]string{"", "", "a", "b"}).Draw(t, "subject"),
				Epoch: rapid.Uint64Range(1, 2).Draw(t, "epoch"), Seq: rapid.Uint64Range(1, 3).Draw(t, "seq"), Want: rapid.Uint64Range(0, 50).Draw(t, "want"),
			}
			if r.Seq > 1 {
				r.Spent, r.Returned = small.Draw(t, "spent"), small.Draw(t, "returned")
			}
			return r
		})
		version := uint32(1)
		log = append(log, timed{now, change(version)})
		for range rapid.IntRange(1, 50).Draw(rt, "commands") {
			now += time.Duration(rapid.Int64Range(0, rapid.SampledFrom([]int64{0, 1000, 100_000, 5_000_000, 200_000_000}).Draw(rt, "scale")).Draw(rt, "pause")) * time.Microsecond
			var data []byte
			switch rapid.SampledFrom([]string{"lease", "lease", "lease", "check", "check", "batch", "limits", "roll"}).Draw(rt, "command") {
			case "lease":
				data = appendLease(nil, leaseCommand{holder: Holder(rapid.IntRange(1, 3).Draw(rt, "holder")), renewals: rapid.SliceOfN(renewal, 1, 4).Draw(rt, "renewals")})
			case "check":
				data = appendRecallingCheck(nil, request.Draw(rt, "request"), holdID{})
			case "batch":
				data = appendRecallingBatch(nil, rapid.SliceOfN(request, 0, 4).Draw(rt, "requests"))
			case "roll":
				// As from raftfsm.LevelLeases on, when there are leases.
				data = append([]byte{codecLeases}, genRoll().Draw(rt, "roll")[1:]...)
			case "limits":
				version++
				data = change(version)
			}
			log = append(log, timed{now, data})
		}
		replaysTheSame(t, rt, log)
	})
}
