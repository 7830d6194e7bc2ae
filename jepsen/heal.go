package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect"

	clusterv1 "github.com/maestro-conductor/maestro/api/gen/mc/cluster/v1"
	limiterv1 "github.com/maestro-conductor/maestro/api/gen/mc/limiter/v1"
	provenancev1 "github.com/maestro-conductor/maestro/api/gen/mc/provenance/v1"
	"github.com/maestro-conductor/maestro/internal/client"
	"github.com/maestro-conductor/maestro/internal/devregion"
)

const (
	// healTimeout is how long after the last fault every group must serve again.
	healTimeout = 10 * time.Second
	// finalTimeout bounds each of the last searches, repeats included; finalWorkers do them.
	finalTimeout = 30 * time.Second
	finalWorkers = 4
	// spreadDocuments is enough documents for every shard to get some.
	spreadDocuments = 64
)

// probe demands service of the healed region: every node ready, every limiter group, every
// shard for writing and reading, and meta. All probes start together.
func probe(r *Recorder, region *devregion.Region, clients []*client.Client) {
	ctx, cancel := context.WithTimeout(context.Background(), healTimeout)
	defer cancel()
	var all sync.WaitGroup
	do := func(name string, f func(c *client.Client) error) {
		n := len(name) % len(clients)
		all.Go(func() {
			started := r.now()
			err := repeat(ctx, func() error { return f(clients[n]) })
			p := Probe{Name: name, TookNs: r.now() - started}
			if err != nil {
				p.Error = err.Error()
			}
			r.probe(p)
		})
	}
	do("every node is ready", func(*client.Client) error { return region.WaitReady(ctx) })
	do("every group has a leader and all its voters", func(c *client.Client) error { return wholeGroups(ctx, c) })
	for i := range checkTenants {
		do("a check of "+checkTenant(i), func(c *client.Client) error {
			_, err := c.Limiter().Check(ctx, connect.NewRequest(&limiterv1.CheckRequest{Tenant: checkTenant(i), Token: "probe", Key: "probe", Cost: 1}))
			return err
		})
	}
	do("a read of limits", func(c *client.Client) error {
		_, err := c.Limiter().ListLimits(ctx, connect.NewRequest(&limiterv1.ListLimitsRequest{}))
		return err
	})
	do("a write of limits", func(c *client.Client) error {
		_, err := c.Limiter().SetLimits(ctx, connect.NewRequest(&limiterv1.SetLimitsRequest{Limits: []*limiterv1.Limit{register("probe", 1)}}))
		return err
	})
	do("an ingest and a search over all shards", func(c *client.Client) error { return allShards(ctx, c) })
	all.Wait()
}

// wholeGroups says which group lacks something.
func wholeGroups(ctx context.Context, c *client.Client) error {
	resp, err := c.Cluster().Status(ctx, connect.NewRequest(&clusterv1.StatusRequest{}))
	if err != nil {
		return err
	}
	if len(resp.Msg.GetGroups()) == 0 {
		return errors.New("the region reports no groups")
	}
	for _, g := range resp.Msg.GetGroups() {
		if g.GetLeader() == "" || len(g.GetVoters()) != len(resp.Msg.GetNodes()) {
			return fmt.Errorf("group %s: leader %q, voters %v", g.GetName(), g.GetLeader(), g.GetVoters())
		}
	}
	return nil
}

// allShards writes to every shard that a search reads from, in a tenant of its own.
func allShards(ctx context.Context, c *client.Client) error {
	var docs []*provenancev1.Document
	for i := range spreadDocuments {
		d := document(fmt.Sprintf("probe-%d", i), "probe", "probe")
		d.Tenant = "probe"
		docs = append(docs, d)
	}
	stored, err := c.Provenance().Ingest(ctx, connect.NewRequest(&provenancev1.IngestRequest{Documents: docs}))
	if err != nil {
		return err
	}
	found, err := c.Provenance().Search(ctx, connect.NewRequest(&provenancev1.SearchRequest{Tenant: "probe", Exact: true, RequireComplete: true}))
	if err != nil {
		return err
	}
	if n := found.Msg.GetTotal().GetValue(); n != spreadDocuments {
		return fmt.Errorf("%d of %d documents found", n, spreadDocuments)
	}
	var written, read []string
	for _, p := range stored.Msg.GetPositions() {
		written = append(written, p.GetShard())
	}
	for _, s := range found.Msg.GetShards() {
		read = append(read, s.GetShard())
	}
	slices.Sort(written)
	slices.Sort(read)
	if !slices.Equal(written, read) {
		return fmt.Errorf("wrote to the shards %v and read from %v", written, read)
	}
	return nil
}

// readEverything does the last searches: one for every execution, for documents that must not
// be there, and one for every acknowledged document.
func readEverything(r *Recorder, clients []*client.Client) {
	var searches []SearchOp
	r.mu.Lock()
	executions := map[string]bool{}
	for i := range r.history.Ops {
		in := r.history.Ops[i].Ingest
		if in == nil || in.Mode != ingestNew {
			continue
		}
		if !executions[in.Execution] {
			executions[in.Execution] = true
			searches = append(searches, SearchOp{Execution: in.Execution})
		}
		if r.history.Ops[i].Outcome == outcomeOK {
			for _, id := range in.IDs {
				searches = append(searches, SearchOp{ID: id})
			}
		}
	}
	r.mu.Unlock()
	work := make(chan SearchOp)
	var all sync.WaitGroup
	for i := range finalWorkers {
		all.Go(func() {
			for s := range work {
				ctx, cancel := context.WithTimeout(context.Background(), finalTimeout)
				_ = repeat(ctx, func() error { // a search that never succeeds is a violation in the history
					return recordSearch(ctx, r, clients[i%len(clients)], fmt.Sprintf("final-%d", i), s)
				})
				cancel()
			}
		})
	}
	for _, s := range searches {
		work <- s
	}
	close(work)
	all.Wait()
}

// compareReplicas demands that all replicas of every group hold the same state.
func compareReplicas(r *Recorder, region *devregion.Region) {
	ctx, cancel := context.WithTimeout(context.Background(), finalTimeout)
	defer cancel()
	p := Probe{Name: "the replicas of every group hold the same state"}
	if groups, err := region.CompareStates(ctx); err != nil {
		p.Error = err.Error()
	} else if groups == 0 {
		p.Error = "there were no groups to compare"
	}
	r.probe(p)
}

// repeat calls f until it succeeds or ctx ends.
func repeat(ctx context.Context, f func() error) error {
	for {
		err := f()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// crashMarks are what a node's log holds when it ended itself rather than by a signal.
var crashMarks = []string{"panic:", "fatal error:", "DATA RACE", "the node ends itself"}

// probeLogs demands that no node ended itself: the supervisor would have hidden it.
func probeLogs(r *Recorder, region *devregion.Region) {
	for _, n := range region.State().Regions[0].Nodes {
		p := Probe{Name: "the log of " + n.ID + " tells of no crash"}
		data, err := os.ReadFile(n.Log)
		if err != nil {
			p.Error = err.Error()
		}
		for l := range strings.Lines(string(data)) {
			if p.Error == "" && slices.ContainsFunc(crashMarks, func(mark string) bool { return strings.Contains(l, mark) }) {
				p.Error = strings.TrimSpace(l)
			}
		}
		r.probe(p)
	}
}
