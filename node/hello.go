package node

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/maestro-conductor/maestro/api"
	"github.com/maestro-conductor/maestro/internal/busiest"
	"github.com/maestro-conductor/maestro/internal/version"
	"github.com/maestro-conductor/maestro/raftfsm"
)

const (
	bootstrapTimeout  = 5 * time.Second
	bootstrapBytesMax = 1 << 20
)

// hello is what a node tells about itself to any node with a certificate of the CA: to those
// that start a region with it, to those that look for a region to join, and to the one that
// adds it. Builds of different age read it: unknown fields are ignored, missing ones are zero.
type hello struct {
	Name    string  `json:"name"`
	ID      string  `json:"id"`
	Version string  `json:"version"`
	Plan    plan    `json:"plan"`
	Record  *record `json:"record,omitempty"`

	// Level is the highest protocol level that the node speaks; 0 means raftfsm.LevelFirst.
	Level int `json:"level,omitempty"`
	// Cluster and API are the addresses where others find it.
	Cluster string `json:"cluster,omitempty"`
	API     string `json:"api,omitempty"`
	// Started is set once groups have run on its data; Removed once it was a member.
	Started bool `json:"started,omitempty"`
	Removed bool `json:"removed,omitempty"`
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
	// Op is "hello", "init" or opBusiest.
	Op string `json:"op"`
	// Tenant and Denied say which keys opBusiest means.
	Tenant string `json:"tenant,omitempty"`
	Denied bool   `json:"denied,omitempty"`
}

type bootstrapResponse struct {
	Hello *hello `json:"hello,omitempty"`
	Error string `json:"error,omitempty"`
	// Initialised marks the error that the region runs already.
	Initialised bool `json:"initialised,omitempty"`
	// Busiest answers opBusiest, to members alone; a build that does not know it leaves it out.
	Busiest *[]busiest.Entry `json:"busiest,omitempty"`
}

func (b *bootstrap) hello() hello {
	seeds := slices.SortedFunc(slices.Values(b.cfg.Seeds), func(x, y Seed) int { return strings.Compare(x.Name, y.Name) })
	self := b.cfg.Self()
	b.mu.Lock()
	defer b.mu.Unlock()
	return hello{
		Name: b.cfg.Name, ID: b.id.id(), Version: version.String(), Record: b.rec,
		Level: raftfsm.LevelCurrent, Cluster: self.Cluster, API: self.API, Started: b.id.Started, Removed: b.id.Removed,
		Plan: plan{Region: b.cfg.Region, Seeds: seeds, Limiter: b.cfg.Groups.Limiter, Index: b.cfg.Groups.Index, Run: slices.Sorted(slices.Values(b.cfg.Services))},
	}
}

func (p plan) equal(o plan) bool {
	return p.Region == o.Region && p.Limiter == o.Limiter && p.Index == o.Index && slices.Equal(p.Seeds, o.Seeds) && slices.Equal(p.Run, o.Run)
}

// ask sends one request to a seed.
func (b *bootstrap) ask(ctx context.Context, s Seed, op string) (*hello, error) {
	resp, err := b.exchange(ctx, s, bootstrapRequest{Op: op})
	switch {
	case err != nil:
		return nil, err
	case resp.Initialised:
		return nil, api.ErrAlreadyInitialised
	case resp.Error != "":
		return nil, fmt.Errorf("%w: %s", api.ErrSeedsNotReady, resp.Error)
	case resp.Hello == nil:
		return nil, fmt.Errorf("node %s: empty answer", s.Name)
	}
	return resp.Hello, nil
}

// exchange sends one request to a node and waits for what it says.
func (b *bootstrap) exchange(ctx context.Context, s Seed, req bootstrapRequest) (resp bootstrapResponse, err error) {
	ctx, cancel := context.WithTimeout(ctx, bootstrapTimeout)
	defer cancel()
	c, err := b.mux.Dial(ctx, s.Cluster, s.Name, raftfsm.ClassBootstrap, 0)
	if err != nil {
		return resp, err
	}
	defer c.Close()
	if d, ok := ctx.Deadline(); ok {
		if err := c.SetDeadline(d); err != nil {
			return resp, fmt.Errorf("node %s: %w", s.Name, err)
		}
	}
	if err := errors.Join(sendJSON(c, req), receiveJSON(c, &resp)); err != nil {
		return resp, fmt.Errorf("node %s: %w", s.Name, err)
	}
	return resp, nil
}

// serve answers one request of another node, whose certificate names it peer.
func (b *bootstrap) serve(peer string, c net.Conn) {
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
	if req.Op == opBusiest {
		resp.Busiest = b.busiestFor(peer, req)
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
