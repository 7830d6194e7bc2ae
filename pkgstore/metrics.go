package pkgstore

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics is what the catalog counts on a node.
type metrics struct {
	publishes, installs, loads *prometheus.CounterVec
	verifyMs                   *prometheus.HistogramVec
}

func newMetrics(registry prometheus.Registerer) *metrics {
	counter := func(name, help string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, []string{"result"})
	}
	m := &metrics{
		publishes: counter("mc_pkg_publishes_total", "Packages offered here by what became of them: created, signed, existing, refused or failed."),
		installs:  counter("mc_pkg_installs_total", "Installs, upgrades and rollbacks asked for here by what became of them: installed, existing, refused or failed."),
		loads:     counter("mc_pkg_loads_total", "Loads of installed packages here by what became of them: loaded, refused or failed."),
		verifyMs: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "mc_pkg_verify_ms", Help: "Time to verify a package here, reading it included, in milliseconds, by stage.",
			Buckets: []float64{0.5, 1, 2.5, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000},
		}, []string{"stage"}),
	}
	registry.MustRegister(m.publishes, m.installs, m.loads, m.verifyMs)
	return m
}

// note counts one verification.
func (s *Service) note(stage Stage, began time.Time) {
	s.metrics.verifyMs.WithLabelValues(string(stage)).Observe(float64(s.clock().Sub(began)) / float64(time.Millisecond))
}

func (m *metrics) published(what Published, err error) {
	m.publishes.WithLabelValues(resultOf(what.String(), err)).Inc()
}

// resultOf is what became of a request.
func resultOf(done string, err error) string {
	switch {
	case err == nil:
		return done
	case refused(err):
		return "refused"
	}
	return "failed"
}
