package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// config says under which circumstances a figure holds.
type config map[string]any

func (c config) String() string {
	var out []string
	for _, k := range slices.Sorted(maps.Keys(c)) {
		out = append(out, fmt.Sprintf("%s=%v", k, c[k]))
	}
	return strings.Join(out, " ")
}

// figure is one line of BENCH_OUT.
type figure struct {
	Name   string  `json:"name"`
	Value  float64 `json:"value"`
	Unit   string  `json:"unit"`
	Config config  `json:"config"`
}

// report collects figures, and writes each as soon as it is known.
type report struct {
	machine config // part of every figure's config
	out     *os.File
	failed  error
	table   [][]string
}

func newReport(path string, o options) (*report, error) {
	r := &report{machine: config{
		"cores": runtime.NumCPU(), "cpu": cpuModel(), "os": runtime.GOOS + "/" + runtime.GOARCH, "go": runtime.Version(),
		"commit": commit(), "date": time.Now().UTC().Format(time.DateOnly), "nodes": 3, "window_s": o.window.Seconds(),
	}}
	if path == "" {
		return r, nil
	}
	var err error
	if r.out, err = os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644); err != nil {
		return nil, fmt.Errorf("BENCH_OUT: %w", err)
	}
	return r, nil
}

// scalar reports one value.
func (r *report) scalar(name string, value float64, unit string, c config) {
	r.write(name, value, unit, c)
	r.table = append(r.table, []string{name, format(value) + " " + unit, "", "", "", "", "", "", c.String()})
}

// skipped says in the table why a step has no figures.
func (r *report) skipped(name string, why error) {
	fmt.Fprintf(os.Stderr, "%s skipped: %v\n", name, why)
	r.table = append(r.table, []string{name, "skipped: " + why.Error()})
}

// latency reports the percentiles of a measurement, in milliseconds, and how many operations
// it did in a second.
func (r *report) latency(name string, m measured, c config) {
	c = maps.Clone(c)
	c["samples"], c["errors"] = len(m.samples), m.errors
	p := func(q float64) float64 { return milliseconds(percentile(m.samples, q)) }
	row := []string{name}
	for _, q := range []struct {
		name string
		q    float64
	}{{"p50", 0.5}, {"p95", 0.95}, {"p99", 0.99}, {"p99_9", 0.999}, {"max", 1}} {
		r.write(name+"."+q.name, p(q.q), "ms", c)
		row = append(row, format(p(q.q))+" ms")
	}
	r.write(name+".throughput", m.throughput(), "1/s", c)
	row = append(row, format(m.throughput())+"/s", "")
	if m.cpu > 0 {
		each := float64(m.cpu.Microseconds()) / float64(max(1, len(m.samples)))
		r.write(name+".server_cpu", each, "us", c)
		row[len(row)-1] = format(each) + " us"
	}
	r.table = append(r.table, append(row, c.String()))
}

func (r *report) write(name string, value float64, unit string, c config) {
	all := maps.Clone(r.machine)
	maps.Copy(all, c)
	data, err := json.Marshal(figure{name, value, unit, all})
	if err == nil && r.out != nil {
		_, err = r.out.Write(append(data, '\n'))
	}
	if r.failed == nil {
		r.failed = err
	}
}

// table is printed as Markdown, at once: what compares many figures.
type table struct {
	title string
	head  []string
	rows  [][]string
}

func newTable(title string, head ...string) *table { return &table{title: title, head: head} }

func (r *report) print(t *table) error {
	var out strings.Builder
	line := func(cells []string) { fmt.Fprintf(&out, "| %s |\n", strings.Join(cells, " | ")) }
	fmt.Fprintf(&out, "\n### %s\n\n", t.title)
	line(t.head)
	line(slices.Repeat([]string{"---"}, len(t.head)))
	for _, row := range t.rows {
		line(row)
	}
	_, err := fmt.Println(out.String())
	return err
}

// close prints the table.
func (r *report) close(w io.Writer) error {
	fmt.Fprintf(w, "%s\n\n", r.machine)
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "NAME\tVALUE OR P50\tP95\tP99\tP99.9\tMAX\tRATE\tSERVER CPU EACH\tCONFIG")
	for _, row := range r.table {
		fmt.Fprintln(tw, strings.Join(row, "\t"))
	}
	err := errors.Join(r.failed, tw.Flush())
	if r.out != nil {
		err = errors.Join(err, r.out.Close())
	}
	return err
}

// format writes three significant digits, and whole numbers from 100 on.
func format(v float64) string {
	if math.Abs(v) >= 100 || v == 0 {
		return fmt.Sprintf("%.0f", v)
	}
	return fmt.Sprintf("%.3g", v)
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// commit is the checkout's commit, marked when files differ from it.
func commit() string {
	out, err := exec.Command("git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*").Output()
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(out))
}

func cpuModel() string {
	data, _ := os.ReadFile("/proc/cpuinfo") // not there on every system
	for line := range strings.Lines(string(data)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return "unknown"
}
