package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/maestro-conductor/maestro/internal/client"
	"github.com/maestro-conductor/maestro/internal/devregion"
)

// callTimeout bounds every call.
const callTimeout = 30 * time.Second

// userHz is how many ticks of /proc/PID/stat make a second on every Linux platform of Go.
const userHz = 100

// bench is one run. The region starts when the first step needs it.
type bench struct {
	options
	dir    string
	report *report

	region  *devregion.Region
	clients []*client.Client
	loaded  bool         // the documents are in
	written atomic.Int64 // documents that writers have taken up

	idx          *indexed // the corpus that is in; nil without one
	regionFolder string   // where the region is, if not in dir
}

// regionDir is the folder of the region.
func (b *bench) regionDir() string {
	if b.regionFolder != "" {
		return b.regionFolder
	}
	return filepath.Join(b.dir, "region")
}

// up starts the region.
func (b *bench) up(ctx context.Context) error {
	if b.region != nil {
		return nil
	}
	var err error
	b.region, err = devregion.Start(ctx, devregion.Options{Dir: b.regionDir(), Binary: b.binary, NoSeed: true})
	return err
}

// stop ends the region, when there is one.
func (b *bench) stop() error {
	for _, c := range b.clients {
		c.Close()
	}
	b.clients = nil
	if b.region == nil {
		return nil
	}
	region := b.region
	b.region = nil
	return region.Stop()
}

// newClients returns n clients, each with a connection of its own. They start at one node
// after the other, or all at the first when spread is false.
func (b *bench) newClients(n int, spread bool) ([]*client.Client, error) {
	where := b.region.Context()
	token, err := where.ReadToken()
	if err != nil {
		return nil, err
	}
	var out []*client.Client
	for i := range n {
		endpoints := where.Endpoints
		if k := i % len(endpoints); spread {
			endpoints = append(append([]string(nil), endpoints[k:]...), endpoints[:k]...)
		}
		c, err := client.New(client.Options{Endpoints: endpoints, CAFile: where.CA, Token: token})
		if err != nil {
			return nil, err
		}
		out = append(out, c)
	}
	b.clients = append(b.clients, out...)
	return out, nil
}

func (b *bench) nodes() []devregion.NodeState { return b.region.State().Regions[0].Nodes }

// withCPU runs a load and adds the processor time that the nodes took meanwhile.
func (b *bench) withCPU(load func() (measured, error)) (measured, error) {
	return withCPUOf(b.cpu, load)
}

// withCPUOf runs a load and adds the processor time that its servers and this process took meanwhile.
func withCPUOf(servers func() (time.Duration, error), load func() (measured, error)) (measured, error) {
	before, err := servers()
	if err != nil {
		return measured{}, err
	}
	own, err := ownCPU()
	if err != nil {
		return measured{}, err
	}
	m, err := load()
	if err != nil {
		return m, err
	}
	ownAfter, ownErr := ownCPU()
	after, err := servers()
	m.cpu, m.client = after-before, ownAfter-own
	return m, errors.Join(err, ownErr)
}

// ownCPU is the processor time of this process so far.
func ownCPU() (time.Duration, error) {
	var use syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &use); err != nil {
		return 0, fmt.Errorf("processor time of this process: %w", err)
	}
	return time.Duration(use.Utime.Nano() + use.Stime.Nano()), nil
}

// cpu is the processor time of all nodes so far.
func (b *bench) cpu() (time.Duration, error) {
	var total time.Duration
	for _, n := range b.nodes() {
		used, err := cpuOf(n.PID)
		if err != nil {
			return 0, fmt.Errorf("processor time of %s: %w", n.ID, err)
		}
		total += used
	}
	return total, nil
}

// cpuOf is the processor time of a process so far.
func cpuOf(pid int) (time.Duration, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// Fields are counted behind the command in parentheses, which is field 2; user and system time
	// are fields 14 and 15.
	_, rest, _ := strings.Cut(string(data), ") ")
	fields := strings.Fields(rest)
	if len(fields) < 13 {
		return 0, fmt.Errorf("cannot read %q", data)
	}
	var total time.Duration
	for _, f := range fields[11:13] {
		ticks, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return 0, err
		}
		total += time.Duration(ticks) * time.Second / userHz
	}
	return total, nil
}

// rss is the resident memory of the largest node, in bytes.
func (b *bench) rss() (int64, error) {
	var largest int64
	for _, n := range b.nodes() {
		rss, err := rssOf(n.PID)
		if err != nil {
			return 0, fmt.Errorf("memory of %s: %w", n.ID, err)
		}
		largest = max(largest, rss)
	}
	return largest, nil
}

// rssOf is the resident memory of a process, in bytes.
func rssOf(pid int) (int64, error) { return statusOf(pid, "VmRSS") }

// statusOf reads an amount of memory from /proc/PID/status.
func statusOf(pid int, field string) (int64, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(data)) {
		var kib int64
		if _, err := fmt.Sscanf(line, field+": %d kB", &kib); err == nil {
			return kib << 10, nil
		}
	}
	return 0, fmt.Errorf("no %s in /proc/PID/status", field)
}

// diskUse is what the data folders of all nodes hold.
type diskUse struct {
	// occupied is the files' blocks on the disk, including those reserved beyond a file's end
	// for what will be written next. written leaves those out, and the holes inside files too.
	written, occupied int64
}

func (b *bench) diskUse() (diskUse, error) {
	var total diskUse
	for _, n := range b.nodes() {
		err := filepath.WalkDir(n.Data, func(_ string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			use, err := blocksOf(d)
			if err != nil {
				return err
			}
			total.written += use.written
			total.occupied += use.occupied
			return nil
		})
		if err != nil {
			return diskUse{}, fmt.Errorf("disk of %s: %w", n.ID, err)
		}
	}
	return total, nil
}

// blocksOf weighs one file; one that compaction has removed meanwhile weighs nothing.
func blocksOf(d fs.DirEntry) (diskUse, error) {
	info, err := d.Info()
	if errors.Is(err, fs.ErrNotExist) {
		return diskUse{}, nil
	}
	if err != nil {
		return diskUse{}, err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return diskUse{}, fmt.Errorf("%s: the system does not tell its blocks", d.Name())
	}
	blocks := st.Blocks * 512 // the unit of st_blocks, whatever the file system's
	return diskUse{written: min(info.Size(), blocks), occupied: blocks}, nil
}

// isReady asks a node whether it can serve.
func isReady(ctx context.Context, admin string) bool {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, admin+"/readyz", nil)
	if err != nil {
		return false
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	_ = resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// until polls every few milliseconds until holds, and returns how long that took.
func until(ctx context.Context, limit time.Duration, what string, holds func() bool) (time.Duration, error) {
	began := time.Now()
	for !holds() {
		if time.Since(began) > limit || ctx.Err() != nil {
			return 0, fmt.Errorf("waited %v for %s", limit, what)
		}
		time.Sleep(2 * time.Millisecond)
	}
	return time.Since(began), nil
}

// summary takes sorted durations.
func summary(d []time.Duration) (median, longest time.Duration) {
	return percentile(d, 0.5), percentile(d, 1)
}
