package sidecar

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/maestro-conductor/maestro/limiter/client"
)

// jsonCodec writes defaults, as nodes do, so that "allow": false is there to read.
type jsonCodec struct{ name string }

// Name is the content type's second half.
func (c jsonCodec) Name() string { return c.name }

// Marshal writes a message.
func (jsonCodec) Marshal(m any) ([]byte, error) {
	p, ok := m.(proto.Message)
	if !ok {
		return nil, fmt.Errorf("%T is not a protobuf message", m)
	}
	return protojson.MarshalOptions{EmitDefaultValues: true}.Marshal(p)
}

// Unmarshal reads a message.
func (jsonCodec) Unmarshal(data []byte, m any) error {
	p, ok := m.(proto.Message)
	if !ok {
		return fmt.Errorf("%T is not a protobuf message", m)
	}
	return protojson.Unmarshal(data, p)
}

var (
	descChecks    = prometheus.NewDesc("mc_sidecar_checks_total", "Checks by who decided: local, from tokens that this process holds; node; fail_open and fail_deny, without the region.", []string{"by"}, nil)
	descRecalled  = prometheus.NewDesc("mc_sidecar_recalled_total", "Requests to give tokens back.", nil, nil)
	descLeases    = prometheus.NewDesc("mc_sidecar_leases", "Leases that this process knows, of one counter each.", nil, nil)
	descConnected = prometheus.NewDesc("mc_sidecar_connected", "1 while a node lends, else 0.", nil, nil)
)

// collector are the figures of a limiter.
type collector struct{ limiter *client.Limiter }

// Describe implements prometheus.Collector.
func (collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descChecks, descRecalled, descLeases, descConnected} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c collector) Collect(ch chan<- prometheus.Metric) {
	s := c.limiter.Stats()
	connected := 0.0
	if s.Connected {
		connected = 1
	}
	for by, n := range map[string]uint64{"local": s.Local, "node": s.Asked, "fail_open": s.FailedOpen, "fail_deny": s.FailedDeny} { // any order
		ch <- prometheus.MustNewConstMetric(descChecks, prometheus.CounterValue, float64(n), by)
	}
	ch <- prometheus.MustNewConstMetric(descRecalled, prometheus.CounterValue, float64(s.Recalled))
	ch <- prometheus.MustNewConstMetric(descLeases, prometheus.GaugeValue, float64(s.Leases))
	ch <- prometheus.MustNewConstMetric(descConnected, prometheus.GaugeValue, connected)
}
