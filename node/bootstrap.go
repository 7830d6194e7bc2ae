package node

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/maestro-conductor/maestro/api"
	"github.com/maestro-conductor/maestro/internal/version"
	"github.com/maestro-conductor/maestro/raftfsm"
)

const (
	bootstrapTimeout  = 5 * time.Second
	bootstrapPoll     = 200 * time.Millisecond
	bootstrapBytesMax = 1 << 20
)

// bootstrap brings a node from an empty data folder to a cluster record.
//
// The region is started once, by Cluster/Init. One node coordinates, the seed whose name
// sorts first: when every seed is reachable, empty and configured alike, it mints the record
// and stores it; that is the moment the cluster exists. The others ask the seeds for a record
// that lists them, by name and incarnation, and store it too. A node that lost its data has
// another incarnation and is not let in by an old record.
type bootstrap struct {
	cfg  Config
	id   identity
	mux  *raftfsm.Mux
	log  *slog.Logger
	path string

	minting sync.Mutex // held while this node coordinates a start

	mu   sync.Mutex
	rec  *record
	done chan struct{} // closed once rec is set
}

// hello is what a node tells about itself before it is part of a cluster.
type hello struct {
	Name    string  `json:"name"`
	ID      string  `json:"id"`
	Version string  `json:"version"`
	Plan    plan    `json:"plan"`
	Record  *record `json:"record,omitempty"`
}

// plan is the part of the configuration that must be alike on all seeds.
type plan struct {
	Region  string   `json:"region"`
	Seeds   []Seed   `json:"seeds"`
	Limiter int      `json:"limiterGroups"`
	Index   int      `json:"indexGroups"`
	Run     []string `json:"services"`
}

type bootstrapRequest struct {
	// Op is "hello" or "init".
	Op string `json:"op"`
}

type bootstrapResponse struct {
	Hello *hello `json:"hello,omitempty"`
	Error string `json:"error,omitempty"`
	// Initialised marks the error that the region runs already.
	Initialised bool `json:"initialised,omitempty"`
}

func newBootstrap(cfg Config, id identity, mux *raftfsm.Mux, log *slog.Logger) (*bootstrap, error) {
	b := &bootstrap{cfg: cfg, id: id, mux: mux, log: log, path: filepath.Join(cfg.DataDir, recordFile), done: make(chan struct{})}
	var r record
	ok, err := readJSON(b.path, &r)
	if err != nil {
		return nil, err
	}
	if ok {
		if err := r.check(cfg, id.id()); err != nil {
			return nil, err
		}
		b.rec = &r
		close(b.done)
	}
	mux.Handle(raftfsm.ClassBootstrap, func(_ raftfsm.GroupID, _ string, c net.Conn) bool {
		go b.serve(c)
		return true
	})
	return b, nil
}

// await returns the record, asking the seeds for it until there is one.
func (b *bootstrap) await(ctx context.Context) (*record, error) {
	tick := time.NewTicker(bootstrapPoll)
	defer tick.Stop()
	if b.current() == nil {
		b.log.Info("waiting for the region to be started with: maestro cluster init")
	}
	for {
		select {
		case <-b.done:
			return b.current(), nil
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-tick.C:
		}
		for _, s := range b.others() {
			h, err := b.ask(ctx, s, "hello")
			if err != nil || h.Record == nil {
				continue
			}
			if err := b.adopt(h.Record); err != nil {
				b.log.Warn("cluster record not taken over", "from", s.Name, "err", err)
			}
		}
	}
}

func (b *bootstrap) current() *record {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.rec
}

// adopt stores a record that lists this node.
func (b *bootstrap) adopt(r *record) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.rec != nil {
		return nil
	}
	if r.member(b.id.id()) == nil && r.has(b.id.Name) {
		return fmt.Errorf("the cluster knows node %s under another incarnation: its data folder was replaced after the region had started", b.id.Name)
	}
	if err := r.check(b.cfg, b.id.id()); err != nil {
		return err
	}
	if err := writeJSON(b.path, r); err != nil {
		return err
	}
	b.rec = r
	close(b.done)
	b.log.Info("part of a cluster", "cluster", r.ClusterID, "id", b.id.id())
	return nil
}

// init starts the region and returns its id.
func (b *bootstrap) init(ctx context.Context) (string, error) {
	if b.current() != nil {
		return "", api.ErrAlreadyInitialised
	}
	if first := b.coordinator(); first.Name != b.cfg.Name {
		if _, err := b.ask(ctx, first, "init"); errors.Is(err, api.ErrAlreadyInitialised) || errors.Is(err, api.ErrSeedsNotReady) {
			return "", err
		} else if err != nil {
			return "", fmt.Errorf("%w: %w", api.ErrSeedsNotReady, err)
		}
		select {
		case <-b.done:
			return b.current().ClusterID, nil
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}
	b.minting.Lock()
	defer b.minting.Unlock()
	if b.current() != nil {
		return "", api.ErrAlreadyInitialised
	}
	r, err := b.mint(ctx)
	if err != nil {
		return "", err
	}
	return r.ClusterID, b.adopt(r)
}

// mint asks every seed and makes the record.
func (b *bootstrap) mint(ctx context.Context) (*record, error) {
	own := b.hello()
	var problems []string
	members := map[string]string{own.Name: own.ID}
	for _, s := range b.others() {
		h, err := b.ask(ctx, s, "hello")
		switch {
		case err != nil:
			problems = append(problems, err.Error())
		case h.Record != nil && h.Record.member(own.ID) != nil:
			return h.Record, nil // a start that was interrupted
		case h.Record != nil:
			problems = append(problems, fmt.Sprintf("node %s is part of cluster %s", s.Name, h.Record.ClusterID))
		case !own.Plan.equal(h.Plan):
			problems = append(problems, fmt.Sprintf("node %s is configured with another region, other seeds, groups or services", s.Name))
		default:
			members[h.Name] = h.ID
		}
	}
	if len(problems) > 0 {
		return nil, fmt.Errorf("%w: %s", api.ErrSeedsNotReady, strings.Join(problems, "; "))
	}
	var id raftfsm.ClusterID
	if _, err := rand.Read(id[:]); err != nil {
		return nil, fmt.Errorf("node: cluster id: %w", err)
	}
	r := &record{Version: recordVersion, ClusterID: hex.EncodeToString(id[:]), Region: b.cfg.Region, Limiter: b.cfg.Groups.Limiter, Index: b.cfg.Groups.Index, Services: own.Plan.Run}
	for _, s := range b.cfg.Seeds {
		r.Members = append(r.Members, recordMember{ID: members[s.Name], Name: s.Name, Cluster: s.Cluster, API: s.API})
	}
	return r, nil
}

func (b *bootstrap) coordinator() Seed {
	return slices.MinFunc(b.cfg.Seeds, func(x, y Seed) int { return strings.Compare(x.Name, y.Name) })
}

func (b *bootstrap) others() []Seed {
	return slices.DeleteFunc(slices.Clone(b.cfg.Seeds), func(s Seed) bool { return s.Name == b.cfg.Name })
}

func (b *bootstrap) hello() hello {
	seeds := slices.SortedFunc(slices.Values(b.cfg.Seeds), func(x, y Seed) int { return strings.Compare(x.Name, y.Name) })
	return hello{
		Name: b.cfg.Name, ID: b.id.id(), Version: version.String(), Record: b.current(),
		Plan: plan{Region: b.cfg.Region, Seeds: seeds, Limiter: b.cfg.Groups.Limiter, Index: b.cfg.Groups.Index, Run: slices.Sorted(slices.Values(b.cfg.Services))},
	}
}

func (p plan) equal(o plan) bool {
	return p.Region == o.Region && p.Limiter == o.Limiter && p.Index == o.Index && slices.Equal(p.Seeds, o.Seeds) && slices.Equal(p.Run, o.Run)
}

// ask sends one request to a seed.
func (b *bootstrap) ask(ctx context.Context, s Seed, op string) (*hello, error) {
	ctx, cancel := context.WithTimeout(ctx, bootstrapTimeout)
	defer cancel()
	c, err := b.mux.Dial(ctx, s.Cluster, s.Name, raftfsm.ClassBootstrap, 0)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	if d, ok := ctx.Deadline(); ok {
		if err := c.SetDeadline(d); err != nil {
			return nil, fmt.Errorf("node %s: %w", s.Name, err)
		}
	}
	var resp bootstrapResponse
	if err := errors.Join(sendJSON(c, bootstrapRequest{Op: op}), receiveJSON(c, &resp)); err != nil {
		return nil, fmt.Errorf("node %s: %w", s.Name, err)
	}
	switch {
	case resp.Initialised:
		return nil, api.ErrAlreadyInitialised
	case resp.Error != "":
		return nil, fmt.Errorf("%w: %s", api.ErrSeedsNotReady, resp.Error)
	case resp.Hello == nil:
		return nil, fmt.Errorf("node %s: empty answer", s.Name)
	}
	return resp.Hello, nil
}

// serve answers one request of another seed.
func (b *bootstrap) serve(c net.Conn) {
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(bootstrapTimeout)); err != nil {
		return
	}
	var req bootstrapRequest
	if err := receiveJSON(c, &req); err != nil {
		b.log.Info("bootstrap request refused", "from", c.RemoteAddr().String(), "err", err)
		return
	}
	var resp bootstrapResponse
	if req.Op == "init" {
		ctx, cancel := context.WithTimeout(context.Background(), bootstrapTimeout)
		defer cancel()
		if b.coordinator().Name != b.cfg.Name {
			resp.Error = fmt.Sprintf("node %s does not coordinate the start; the seeds' configurations differ", b.cfg.Name)
		} else if _, err := b.init(ctx); err != nil {
			resp.Error, resp.Initialised = err.Error(), errors.Is(err, api.ErrAlreadyInitialised)
		}
	}
	h := b.hello()
	resp.Hello = &h
	if err := sendJSON(c, resp); err != nil {
		b.log.Debug("bootstrap answer not sent", "err", err)
	}
}

func sendJSON(w io.Writer, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, err = w.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(b))), b...))
	return err
}

func receiveJSON(r io.Reader, v any) error {
	var n [4]byte
	if _, err := io.ReadFull(r, n[:]); err != nil {
		return err
	}
	size := binary.BigEndian.Uint32(n[:])
	if size > bootstrapBytesMax {
		return fmt.Errorf("message of %d bytes, at most %d", size, bootstrapBytesMax)
	}
	b := make([]byte, size)
	if _, err := io.ReadFull(r, b); err != nil {
		return err
	}
	return json.Unmarshal(b, v)
}
