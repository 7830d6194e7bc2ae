package node

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/maestro-conductor/maestro/api"
	"github.com/maestro-conductor/maestro/internal/busiest"
	"github.com/maestro-conductor/maestro/internal/certs"
	"github.com/maestro-conductor/maestro/raftfsm"
)

const bootstrapPoll = 200 * time.Millisecond

// bootstrap brings a node from an empty data folder to a cluster record.
//
// The region is started once, by Cluster/Init. One node coordinates, the seed whose name
// sorts first: when every seed is reachable, empty and configured alike, it mints the record
// and stores it; that is the moment the cluster exists. The others ask the seeds for a record
// that lists them, by name and incarnation, and store it too. A node that lost its data has
// another incarnation and is not let in by an old record. A node that joins a running region
// waits in the same way, until Cluster/Add has made the nodes' records list it.
type bootstrap struct {
	cfg  Config
	mux  *raftfsm.Mux
	log  *slog.Logger
	path string

	minting sync.Mutex // held while this node coordinates a start

	busiest atomic.Pointer[busiest.Sketch] // nil until the services stand

	mu   sync.Mutex
	id   identity
	rec  *record       // what it points to does not change
	done chan struct{} // closed once rec is set
	said string        // why a record was not taken over, as last logged
}

func newBootstrap(cfg Config, id identity, mux *raftfsm.Mux, log *slog.Logger) (*bootstrap, error) {
	b := &bootstrap{cfg: cfg, id: id, mux: mux, log: log, path: filepath.Join(cfg.DataDir, recordFile), done: make(chan struct{})}
	var r record
	ok, err := readJSON(b.path, &r)
	if err != nil {
		return nil, err
	}
	if ok && id.Removed {
		b.rec = &r
	} else if ok {
		if err := r.check(cfg, id.id()); err != nil {
			return nil, err
		}
		b.rec = &r
		close(b.done)
	}
	mux.Handle(raftfsm.ClassBootstrap, func(_ raftfsm.GroupID, peer string, c net.Conn) bool {
		go b.serve(peer, c)
		return true
	})
	return b, nil
}

// await returns the record, asking the seeds for it until there is one.
func (b *bootstrap) await(ctx context.Context) (*record, error) {
	tick := time.NewTicker(bootstrapPoll)
	defer tick.Stop()
	if b.current() == nil {
		b.log.Info("waiting for the region to be started (maestro cluster init), or for this node to be added to it (maestro cluster add)", "id", b.self())
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
			switch {
			case errors.Is(err, certs.ErrRefused):
				b.sayOnce(s.Name, err) // it would wait for ever
				continue
			case err != nil || h.Record == nil:
				continue
			}
			if err := b.adopt(h.Record); err != nil {
				b.sayOnce(s.Name, err)
			}
		}
	}
}

// sayOnce logs why a record is not taken over, until the reason is another one.
func (b *bootstrap) sayOnce(from string, err error) {
	b.mu.Lock()
	said := b.said
	b.said = err.Error()
	b.mu.Unlock()
	if said != err.Error() {
		b.log.Warn("not part of a running region", "from", from, "err", err)
	}
}

func (b *bootstrap) current() *record {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.rec
}

// self is this node's member id.
func (b *bootstrap) self() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.id.id()
}

// identity is what node.json says.
func (b *bootstrap) identity() identity {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.id
}

// mark changes node.json.
func (b *bootstrap) mark(f func(*identity)) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	next := b.id
	if f(&next); next == b.id {
		return nil
	}
	if err := writeJSON(filepath.Join(b.cfg.DataDir, identityFile), next); err != nil {
		return err
	}
	b.id = next
	return nil
}

// follow replaces the record by a later one of the same region.
func (b *bootstrap) follow(r *record) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := writeJSON(b.path, r); err != nil {
		return err
	}
	b.rec = r
	return nil
}

// adopt stores a record that lists this node.
func (b *bootstrap) adopt(r *record) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.rec != nil {
		return nil
	}
	if r.member(b.id.id()) == nil {
		if r.has(b.id.Name) {
			return fmt.Errorf("the region knows node %s under another incarnation: its data folder was replaced; let this one take its place with: maestro cluster replace %s %s", b.id.Name, b.id.Name, b.id.Name)
		}
		return fmt.Errorf("the region does not list this node; add it with: maestro cluster add %s --cluster %s", b.id.Name, b.cfg.Self().Cluster)
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
	level := raftfsm.LevelCurrent
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
			level = min(level, max(raftfsm.LevelFirst, h.Level))
		}
	}
	if len(problems) > 0 {
		return nil, fmt.Errorf("%w: %s", api.ErrSeedsNotReady, strings.Join(problems, "; "))
	}
	var id raftfsm.ClusterID
	if _, err := rand.Read(id[:]); err != nil {
		return nil, fmt.Errorf("node: cluster id: %w", err)
	}
	r := &record{Version: recordFirst, ClusterID: hex.EncodeToString(id[:]), Region: b.cfg.Region, Limiter: b.cfg.Groups.Limiter, Index: b.cfg.Groups.Index, Services: own.Plan.Run}
	for _, s := range b.cfg.Seeds {
		r.Members = append(r.Members, recordMember{ID: members[s.Name], Name: s.Name, Cluster: s.Cluster, API: s.API})
	}
	if level == raftfsm.LevelFirst {
		return r, nil // a seed of an older build could not read more
	}
	r.Level = level
	return r.with(r.membership()), nil
}

func (b *bootstrap) coordinator() Seed {
	return slices.MinFunc(b.cfg.Seeds, func(x, y Seed) int { return strings.Compare(x.Name, y.Name) })
}

func (b *bootstrap) others() []Seed {
	return slices.DeleteFunc(slices.Clone(b.cfg.Seeds), func(s Seed) bool { return s.Name == b.cfg.Name })
}
