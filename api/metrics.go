package api

import (
	"time"

	"connectrpc.com/connect"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/maestro-conductor/maestro/limiter"
)

// metrics is what the API counts. Tenants are never a label: their number has no bound.
type metrics struct {
	requests     *prometheus.CounterVec
	requestMs    *prometheus.HistogramVec
	unknownRoute prometheus.Counter
	checkMs      prometheus.Histogram
	denies       *prometheus.CounterVec
	onFailure    *prometheus.CounterVec
	wouldDeny    prometheus.Counter
	descriptors  *prometheus.CounterVec
	searchMs     prometheus.Histogram
	lookupMs     prometheus.Histogram
	lineageMs    prometheus.Histogram
	documents    *prometheus.CounterVec
	shed         *prometheus.CounterVec
}

// bucketsMs reach from a check answered in memory to the longest deadline, in milliseconds.
var bucketsMs = []float64{0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000, 30000, 60000}

// decided counts a decision.
func (m *metrics) decided(d *limiter.Decision) {
	if !d.Allow {
		m.denies.WithLabelValues(d.Reason).Inc()
	}
	m.failed(d)
	if d.WouldDeny() {
		m.wouldDeny.Inc()
	}
}

// failed counts a decision that no group has made.
func (m *metrics) failed(d *limiter.Decision) {
	if d.Source != limiter.SourceFailure {
		return
	}
	answer := limiter.OnFailureDeny
	if d.Allow {
		answer = limiter.OnFailureOpen
	}
	m.onFailure.WithLabelValues(answer).Inc()
}

// decidedAll counts the decisions of a message, each reason once.
func (m *metrics) decidedAll(all []limiter.Outcome) {
	var denied []reasonCount
	wouldDeny := 0
	for i := range all {
		o := &all[i]
		if o.Err != nil {
			continue
		}
		m.failed(&o.Decision)
		if o.Decision.WouldDeny() {
			wouldDeny++
		}
		if !o.Decision.Allow {
			denied = countReason(denied, o.Decision.Reason)
		}
	}
	m.wouldDeny.Add(float64(wouldDeny))
	for _, d := range denied {
		m.denies.WithLabelValues(d.reason).Add(float64(d.n))
	}
}

// reasonCount is how often one of the few reasons came.
type reasonCount struct {
	reason string
	n      int
}

func countReason(all []reasonCount, reason string) []reasonCount {
	for i := range all {
		if all[i].reason == reason {
			all[i].n++
			return all
		}
	}
	return append(all, reasonCount{reason, 1})
}

func newMetrics(registry prometheus.Registerer) *metrics {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "mc_api_requests_total",
			Help: "Requests by procedure and code; each message of a stream is one.",
		}, []string{"procedure", "code"}),
		requestMs: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "mc_api_request_ms", Buckets: bucketsMs,
			Help: "Time from the request's header to its answer, in milliseconds.",
		}, []string{"procedure"}),
		checkMs: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "mc_rl_check_ms", Buckets: bucketsMs,
			Help: "Time the limiter took to decide a check, in milliseconds.",
		}),
		denies: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "mc_rl_denies_total",
			Help: "Denied checks by reason.",
		}, []string{"reason"}),
		onFailure: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "mc_rl_on_failure_total",
			Help: "Checks that no group decided because one could not be reached, by what the limits' onFailure said: open, which was not counted, or deny.",
		}, []string{"answer"}),
		wouldDeny: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "mc_rl_would_deny_total",
			Help: "Checks that a limit in shadow would have denied.",
		}),
		descriptors: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "mc_rl_envoy_descriptors_total",
			Help: "Descriptors that Envoy asked about, by domain and by what became of them: ok, over_limit, or unmatched when they are no check.",
		}, []string{"domain", "result"}),
		searchMs: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "mc_prov_search_ms", Buckets: bucketsMs,
			Help: "Time the index took to answer a search, in milliseconds.",
		}),
		lookupMs: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "mc_prov_lookup_ms", Buckets: bucketsMs,
			Help: "Time the index took to answer for the digests of a lookup, in milliseconds.",
		}),
		lineageMs: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "mc_prov_lineage_ms", Buckets: bucketsMs,
			Help: "Time the index took to answer a walk from digest to digest, in milliseconds.",
		}),
		documents: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "mc_prov_ingest_documents_total",
			Help: "Documents offered for ingest by what became of them: indexed, existing or refused.",
		}, []string{"result"}),
		shed: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "mc_api_shed_total",
			Help: "Requests shed by class and by reason: overloaded, because of the node, a group or the pace of ingest; tenant_overloaded, because of the tenant's share.",
		}, []string{"class", "reason"}),
	}
	m.unknownRoute = m.requests.WithLabelValues("unknown", connect.CodeUnimplemented.String())
	if registry != nil {
		registry.MustRegister(m.requests, m.requestMs, m.checkMs, m.denies, m.onFailure, m.wouldDeny, m.descriptors, m.searchMs, m.lookupMs, m.lineageMs, m.documents, m.shed)
	}
	return m
}

// routeMetrics are a procedure's, looked up once: the lookup costs more than the counting.
type routeMetrics struct {
	name     string
	requests *prometheus.CounterVec
	ok       prometheus.Counter
	ms       prometheus.Observer
}

func (m *metrics) route(name string) *routeMetrics {
	return &routeMetrics{
		name: name, requests: m.requests,
		ok: m.requests.WithLabelValues(name, codeName(0)), ms: m.requestMs.WithLabelValues(name),
	}
}

func (m *routeMetrics) observe(code connect.Code, took time.Duration) {
	m.ms.Observe(milliseconds(took))
	if code == 0 {
		m.ok.Inc()
		return
	}
	m.requests.WithLabelValues(m.name, codeName(code)).Inc()
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
