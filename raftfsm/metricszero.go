package raftfsm

// startAtZero shows what is counted for the group before anything was: a rate over a counter
// misses the first event if that is what makes the counter appear, and for a watchdog the first
// one matters.
func (m *hostMetrics) startAtZero(g Group) {
	reasons := []string{
		ReasonLogSlow, ReasonLogStalled, ReasonTransferStuck, ReasonReplicationStuck,
		ReasonSnapshotConflict, ReasonClockWrong, ReasonDiskSlow, ReasonDiskLow,
	}
	if g.Bulk {
		reasons = append(reasons, ReasonDiskFull)
	}
	for _, r := range reasons {
		m.watchdogs.WithLabelValues(g.Name, r)
	}
	// The state is the whole node's.
	m.watchdogs.WithLabelValues("", ReasonStateSlow)
	m.watchdogs.WithLabelValues("", ReasonStateStalled)
	m.overloads.WithLabelValues(g.Name)
	m.copyResumed.WithLabelValues(g.Name)
	for _, d := range []string{copyIn, copyOut} {
		m.copyBytes.WithLabelValues(g.Name, d)
		for _, outcome := range []string{"failed", "installed"} {
			m.copyCount.WithLabelValues(g.Name, d, outcome)
		}
	}
}
