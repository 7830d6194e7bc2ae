package limiter

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// leaseMetrics are the figures of a node's leases. What shards count is added up when asked for.
type leaseMetrics struct {
	table   *holderTable
	failed  prometheus.Counter
	recalls prometheus.Counter
	leader  atomic.Uint64 // checks
}

var (
	descChecks   = prometheus.NewDesc("mc_rl_checks_total", "Checks decided through this node by source: lease, from tokens that it holds; cached, denied again until the leader's retry time; leader.", []string{"source"}, nil)
	descRenewals = prometheus.NewDesc("mc_rl_lease_renewals_total", "Reports of single leases to their groups; those of a group share a log entry.", nil, nil)
	descRefused  = prometheus.NewDesc("mc_rl_lease_refused_total", "Reports that were refused: nothing to lend, or too late.", nil, nil)
	descTokens   = prometheus.NewDesc("mc_rl_lease_tokens_total", "Tokens lent to this node: granted, given back unspent, or expired unspent.", []string{"state"}, nil)
	descLeases   = prometheus.NewDesc("mc_rl_leases", "Leases that this node knows, of one counter each.", nil, nil)
	descBlankets = prometheus.NewDesc("mc_rl_leases_by_blanket_total", "Leases that began without a message, by what this node was lent of all counters without a row.", nil, nil)
	descReturned = prometheus.NewDesc("mc_rl_lease_recalled_total", "Requests to this node to give leases back.", nil, nil)
)

func newLeaseMetrics(t *holderTable, r prometheus.Registerer) *leaseMetrics {
	m := &leaseMetrics{
		table: t,
		failed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "mc_rl_lease_messages_failed_total",
			Help: "Messages about leases of which nobody knows what became; they are sent again.",
		}),
		recalls: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "mc_rl_recalls_total",
			Help: "Denied checks for which other holders were asked to give leases back.",
		}),
	}
	if r != nil {
		r.MustRegister(m.failed, m.recalls, m)
	}
	return m
}

// Describe implements prometheus.Collector.
func (m *leaseMetrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descChecks, descRenewals, descRefused, descTokens, descLeases, descBlankets, descReturned} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (m *leaseMetrics) Collect(ch chan<- prometheus.Metric) {
	sum, leases := m.table.sum()
	counter := func(d *prometheus.Desc, v uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	counter(descChecks, sum.spent+sum.denied, SourceLease)
	counter(descChecks, sum.cached, SourceCached)
	counter(descChecks, m.leader.Load(), SourceLeader)
	counter(descRenewals, sum.renewals)
	counter(descRefused, sum.refused)
	counter(descTokens, sum.granted, "granted")
	counter(descTokens, sum.returned, "returned")
	counter(descTokens, sum.unspent, "expired")
	counter(descReturned, sum.recalls)
	counter(descBlankets, sum.adopted)
	ch <- prometheus.MustNewConstMetric(descLeases, prometheus.GaugeValue, float64(leases))
}

// sum adds up what the shards count, and how many leases there are.
func (t *holderTable) sum() (sum holderCounts, leases int) {
	for i := range t.shards {
		s := &t.shards[i]
		s.mu.Lock()
		c := &s.counts
		sum.spent += c.spent
		sum.denied += c.denied
		sum.cached += c.cached
		sum.renewals += c.renewals
		sum.refused += c.refused
		sum.granted += c.granted
		sum.returned += c.returned
		sum.unspent += c.unspent
		sum.recalls += c.recalls
		sum.adopted += c.adopted
		for class := range s.leases {
			leases += s.leases[class].n
		}
		s.mu.Unlock()
	}
	return sum, leases
}
