package node

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"connectrpc.com/connect"

	clusterv1 "github.com/maestro-conductor/maestro/api/gen/mc/cluster/v1"
	limiterv1 "github.com/maestro-conductor/maestro/api/gen/mc/limiter/v1"
	provenancev1 "github.com/maestro-conductor/maestro/api/gen/mc/provenance/v1"
	"github.com/maestro-conductor/maestro/internal/backup"
	"github.com/maestro-conductor/maestro/internal/certs"
	"github.com/maestro-conductor/maestro/internal/client"
)

// client talks to all nodes of the region, with a token or as its administrator.
func (r *testRegion) client(token string) *client.Client {
	r.t.Helper()
	o := client.Options{CAFile: certs.CAPath(r.dir), Token: token}
	if token == "" {
		p := certs.AdminPaths(r.dir)
		o.CertFile, o.KeyFile = p.Cert, p.Key
	}
	for _, c := range r.configs {
		o.Endpoints = append(o.Endpoints, "https://"+c.API.Advertise)
	}
	c, err := client.New(o)
	check(r.t, err)
	r.t.Cleanup(c.Close)
	return c
}

// run starts all nodes and the region, and waits until they are ready.
func (r *testRegion) run() {
	r.t.Helper()
	for i := range r.configs {
		r.Start(i)
	}
	r.init(0)
	for i := range r.configs {
		r.await("readiness", func() bool { return r.ready(i) })
	}
}

func patiently(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// found are the ids that a query finds, in order, through all pages.
func found(t *testing.T, c *client.Client, query string) (ids []string) {
	t.Helper()
	q := &provenancev1.SearchRequest{Query: query, Tenant: "acme", Limit: 20, RequireComplete: true}
	for {
		resp, err := c.Provenance().Search(patiently(t), connect.NewRequest(q))
		check(t, err)
		for _, d := range resp.Msg.GetItems() {
			ids = append(ids, d.GetId())
		}
		if q.Cursor = resp.Msg.GetNext(); q.Cursor == "" {
			return ids
		}
	}
}

// ingest stores documents of about nine kilobytes.
func ingest(t *testing.T, c *client.Client, from, to int) {
	t.Helper()
	var docs []*provenancev1.Document
	for i := range to - from {
		docs = append(docs, &provenancev1.Document{
			Kind: "receipt", Tenant: "acme", Id: fmt.Sprint("d", from+i), Execution: fmt.Sprint("e", i%3),
			Attributes: map[string]string{"a": strings.Repeat("x", 3000), "b": strings.Repeat("y", 3000), "c": strings.Repeat("z", 3000)},
		})
	}
	resp, err := c.Provenance().Ingest(patiently(t), connect.NewRequest(&provenancev1.IngestRequest{Documents: docs}))
	check(t, err)
	if resp.Msg.GetRefused() > 0 {
		t.Fatalf("refused: %v", resp.Msg.GetRefusals()[0])
	}
}

func token(t *testing.T, c *client.Client) (secret, id string) {
	t.Helper()
	resp, err := c.Tokens().CreateToken(patiently(t), connect.NewRequest(&clusterv1.CreateTokenRequest{Tenant: "acme", Role: "operator"}))
	check(t, err)
	return resp.Msg.GetToken(), resp.Msg.GetInfo().GetId()
}

func restorer(c *client.Client) *backup.Region {
	return backup.NewRegion(c, patience, func(string, backup.Group) {})
}

// A region of three nodes is backed up and restored into regions of one and of five nodes with
// other names: the same documents, limits and tokens; counters begin empty and refill.
func TestBackupIsRestoredIntoNewRegions(t *testing.T) {
	old := newRegion(t)
	old.run()
	admin := old.client("")
	good, _ := token(t, admin)
	ended, endedID := token(t, admin)
	_, err := admin.Tokens().RevokeToken(patiently(t), connect.NewRequest(&clusterv1.RevokeTokenRequest{Id: endedID}))
	check(t, err)
	_, err = admin.Limiter().SetLimits(patiently(t), connect.NewRequest(&limiterv1.SetLimitsRequest{Limits: []*limiterv1.Limit{
		{Id: "slow", Scope: "key", Selector: "acme/slow", TokenBucket: &limiterv1.TokenBucket{Rate: "1/d", Burst: 3}},
		{Id: "fast", Scope: "key", Selector: "acme/fast", TokenBucket: &limiterv1.TokenBucket{Rate: "10/s", Burst: 3}},
	}}))
	check(t, err)
	ingest(t, admin, 0, 120)
	want := map[string][]string{}
	for _, q := range []string{"", "execution:e1", "kind:receipt AND execution:e2"} {
		want[q] = found(t, admin, q)
	}
	if len(want[""]) != 120 {
		t.Fatalf("%d documents", len(want[""]))
	}
	dir := filepath.Join(t.TempDir(), "backup")
	m, err := restorer(admin).Take(patiently(t), dir)
	check(t, err)
	if last := m.Groups[len(m.Groups)-1]; last.Name != metaName || m.Groups[0].Chunks == 0 {
		t.Errorf("groups %+v", m.Groups)
	}
	if _, err := restorer(admin).Take(patiently(t), dir); err == nil {
		t.Error("a backup was written over another")
	}
	var refused *client.Error
	if _, err := restorer(admin).Restore(patiently(t), dir); !errors.As(err, &refused) || refused.Reason != "group_not_empty" {
		t.Errorf("a restore into the region itself: %v", err)
	}
	ingest(t, admin, 200, 201) // it goes on as before
	for i := range old.configs {
		old.Stop(i)
	}

	for _, nodes := range []int{1, 5} {
		r := newRegionNamed(t, nodes, 10)
		r.run()
		restored, err := restorer(r.client("")).Restore(patiently(t), dir)
		check(t, err)
		if again, err := restorer(r.client("")).Restore(patiently(t), dir); err != nil || again.ID != restored.ID {
			t.Errorf("the same restore again: %v", err)
		}
		// The token is good at a node once it has heard of it.
		tenant := r.client(good)
		r.await("the old token to be good", func() bool {
			_, err := tenant.Limiter().ListLimits(patiently(t), connect.NewRequest(&limiterv1.ListLimitsRequest{}))
			return err == nil
		})
		_, err = r.client(ended).Limiter().ListLimits(patiently(t), connect.NewRequest(&limiterv1.ListLimitsRequest{}))
		if !errors.As(err, &refused) || refused.Reason != "token_revoked" {
			t.Errorf("a revoked token: %v", err)
		}
		for q, ids := range want {
			if got := found(t, r.client(""), q); !slices.Equal(got, ids) {
				t.Errorf("%d nodes: %q finds %d documents, want %d", nodes, q, len(got), len(ids))
			}
		}
		allowed := func(key string) bool {
			resp, err := tenant.Limiter().Check(patiently(t), connect.NewRequest(&limiterv1.CheckRequest{Tenant: "acme", Key: key, Cost: 1}))
			check(t, err)
			return resp.Msg.GetAllow()
		}
		if allowed("slow") {
			t.Errorf("%d nodes: a counter that nobody had used was not empty", nodes)
		}
		r.await("a counter to refill", func() bool { return allowed("fast") })
		ingest(t, tenant, 300, 303)
		if got := found(t, tenant, ""); len(got) != 123 {
			t.Errorf("%d nodes: %d documents after more came, want 123", nodes, len(got))
		}
		for i := range r.configs {
			r.Stop(i)
		}
	}
}

// A restore that is interrupted in any place is repeated, also while leaders change, and a
// region that is being restored says so.
func TestInterruptedRestoreGoesOn(t *testing.T) {
	old := newRegionOf(t, 1)
	old.run()
	ingest(t, old.client(""), 0, 300)
	dir := filepath.Join(t.TempDir(), "backup")
	_, err := restorer(old.client("")).Take(patiently(t), dir)
	check(t, err)
	old.Stop(0)

	r := newRegion(t)
	r.run()
	c := r.client("")
	for round := range 3 {
		// It ends after some groups, and with it the client.
		ctx, cancel := context.WithCancel(patiently(t))
		done := 0
		_, err := backup.NewRegion(c, patience, func(string, backup.Group) {
			if done++; done > 2*round {
				cancel()
			}
		}).Restore(ctx, dir)
		cancel()
		if err == nil {
			t.Fatalf("round %d was not interrupted", round)
		}
		r.Stop(round)
		r.Start(round)
	}
	_, err = restorer(c).Restore(patiently(t), dir)
	check(t, err)
	if got := found(t, c, ""); len(got) != 300 {
		t.Errorf("%d documents, want 300", len(got))
	}
}
