package raftfsm_test

import (
	"slices"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/maestro-conductor/maestro/raftfsm"
	"github.com/maestro-conductor/maestro/raftfsm/hosttest"
)

// A healthy node shows what its watchdogs count, and its transfers, as 0.
func TestCountersBeginAtZero(t *testing.T) {
	r := prometheus.NewRegistry()
	hosttest.Start(t, 1, twoGroups, hosttest.Configure(func(_ int, o *raftfsm.Options) { o.Registry = r }))
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	series := map[string][]string{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			labels := f.GetName()
			for _, l := range m.GetLabel() {
				labels += " " + l.GetValue()
			}
			series[f.GetName()] = append(series[f.GetName()], labels)
		}
	}
	for _, want := range []struct{ name, series string }{
		{"mc_watchdog_total", "mc_watchdog_total a " + raftfsm.ReasonTransferStuck},
		{"mc_watchdog_total", "mc_watchdog_total a " + raftfsm.ReasonDiskLow},
		{"mc_watchdog_total", "mc_watchdog_total  " + raftfsm.ReasonStateStalled},
		{"mc_raft_copies_total", "mc_raft_copies_total in a failed"},
		{"mc_raft_copies_resumed_total", "mc_raft_copies_resumed_total a"},
		{"mc_raft_proposals_refused_total", "mc_raft_proposals_refused_total a"},
	} {
		if !slices.Contains(series[want.name], want.series) {
			t.Errorf("%s has the series %q, want also %q", want.name, series[want.name], want.series)
		}
	}
}
