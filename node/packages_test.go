package node

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/maestro-conductor/maestro/api"
	packagesv1 "github.com/maestro-conductor/maestro/api/gen/mc/packages/v1"
	"github.com/maestro-conductor/maestro/api/gen/mc/packages/v1/packagesv1connect"
	provenancev1 "github.com/maestro-conductor/maestro/api/gen/mc/provenance/v1"
	"github.com/maestro-conductor/maestro/api/gen/mc/provenance/v1/provenancev1connect"
	"github.com/maestro-conductor/maestro/internal/certs"
	"github.com/maestro-conductor/maestro/internal/client"
	"github.com/maestro-conductor/maestro/internal/pkgtest"
)

func (r *testRegion) packages(i int) packagesv1connect.PackagesClient {
	return packagesv1connect.NewPackagesClient(r.admin, "https://"+r.configs[i].API.Advertise)
}

// everywhere is a client that goes to another node when one does not answer.
func (r *testRegion) everywhere() *client.Client {
	r.t.Helper()
	p := certs.AdminPaths(r.dir)
	o := client.Options{CAFile: certs.CAPath(r.dir), CertFile: p.Cert, KeyFile: p.Key}
	for _, c := range r.configs {
		o.Endpoints = append(o.Endpoints, "https://"+c.API.Advertise)
	}
	c, err := client.New(o)
	check(r.t, err)
	r.t.Cleanup(c.Close)
	return c
}

// leaderOfMeta is the node that leads meta, as another one sees it.
func (r *testRegion) leaderOfMeta() int {
	r.t.Helper()
	leader := -1
	r.await("a leader of meta", func() bool {
		for i := range r.configs {
			s, err := r.nodes[i].Load().services.Status(context.Background())
			if err != nil {
				continue
			}
			for _, g := range s.Groups {
				for n, c := range r.configs {
					if g.Name == metaName && g.Leader == c.Name {
						leader = n
					}
				}
			}
		}
		return leader >= 0
	})
	return leader
}

// The largest package is published while the leader of meta stops in the middle; nothing of it is visible
// before it is whole, and it is whole then. A revoked key counts nowhere within a second; a node that is cut
// off refuses instead. Receipts tell of all of it.
func TestPackagesInARegion(t *testing.T) {
	r := newRegion(t)
	r.run()
	// Storing the largest package takes a minute or more under the race detector.
	ctx, cancel := context.WithTimeout(context.Background(), 5*patience)
	defer cancel()
	key := pkgtest.NewKey(t)
	added, err := r.packages(0).AddKey(ctx, connect.NewRequest(&packagesv1.AddKeyRequest{Tenant: "acme", Pem: string(key.PEM), Publisher: "*"}))
	check(t, err)
	large := pkgtest.New(t, pkgtest.Options{Name: "large", Bytes: 31 << 20}, key)
	archive, err := large.Bytes()
	check(t, err)
	small := pkgtest.Archive(t, pkgtest.Options{Name: "small"}, key)
	anywhere := r.everywhere()
	transfer := &client.Transfer{Client: anywhere, Timeout: patience}
	_, err = transfer.Publish(ctx, "acme", small)
	check(t, err)
	_, err = r.packages(1).Install(ctx, connect.NewRequest(&packagesv1.InstallRequest{Tenant: "acme", Id: "small@0.1.0"}))
	check(t, err)

	stopped := -1
	var once sync.Once
	transfer.Progress = func(done, size int) {
		if done < size/2 {
			return
		}
		once.Do(func() {
			_, err := anywhere.Packages().GetPackage(ctx, connect.NewRequest(&packagesv1.GetPackageRequest{Tenant: "acme", Id: "large"}))
			if client.Reason(err) != "package_unknown" {
				t.Errorf("half a package: %v", err)
			}
			stopped = r.leaderOfMeta()
			r.Stop(stopped)
		})
	}
	published, err := transfer.Publish(ctx, "acme", archive)
	check(t, err)
	if published.GetResult() != "created" || published.GetPackage().GetDigest() != large.Digest.String() {
		t.Fatalf("published %v", published)
	}
	others := []int{(stopped + 1) % 3, (stopped + 2) % 3}
	for _, i := range others {
		var got bytes.Buffer
		one := &client.Transfer{Client: anywhere, Timeout: patience}
		_, err := one.Download(ctx, large.Digest.String(), "acme", "", 0, &got)
		if err != nil || !bytes.Equal(got.Bytes(), archive) {
			t.Errorf("download of %d bytes, %v", got.Len(), err)
		}
		_, err = r.packages(i).Load(ctx, connect.NewRequest(&packagesv1.LoadRequest{Tenant: "acme", Name: "small"}))
		check(t, err)
	}

	revoked := time.Now()
	_, err = r.packages(others[0]).RevokeKey(ctx, connect.NewRequest(&packagesv1.RevokeKeyRequest{Tenant: "acme", Id: added.Msg.GetKey().GetId(), Kind: "compromised"}))
	check(t, err)
	for _, i := range others {
		_, err := r.packages(i).Load(ctx, connect.NewRequest(&packagesv1.LoadRequest{Tenant: "acme", Name: "small"}))
		wantReasonOf(t, "load", err, "key_compromised")
		_, err = r.packages(i).Install(ctx, connect.NewRequest(&packagesv1.InstallRequest{Tenant: "acme", Id: "large"}))
		wantReasonOf(t, "install", err, "key_compromised")
	}
	t.Logf("every node refuses %v after the revocation was sent", time.Since(revoked))

	search := provenancev1connect.NewProvenanceClient(r.admin, "https://"+r.configs[others[0]].API.Advertise)
	for query, least := range map[string]int{
		"kind:receipt AND task:package.publish AND decision:allow":                     2,
		"kind:receipt AND task:package.load AND reason:key_compromised":                2,
		"kind:receipt AND task:package.install AND pack:\"small@0.1.0\"":               1,
		"kind:receipt AND attr.package.key:" + key.ID.String() + " AND decision:allow": 4,
	} {
		r.await("receipts of "+query, func() bool {
			res, err := search.Search(ctx, connect.NewRequest(&provenancev1.SearchRequest{Tenant: "acme", Query: query, Limit: 50}))
			return err == nil && len(res.Msg.GetItems()) >= least
		})
	}

	// Without the other two nodes, one cannot know of revocations.
	lone := others[0]
	r.Stop(others[1])
	r.await("the lone node to know that it is cut off", func() bool {
		// A call that was let in before waits for a leader, as long as it may.
		ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
		defer cancel()
		_, err := r.packages(lone).Load(ctx, connect.NewRequest(&packagesv1.LoadRequest{Tenant: "acme", Name: "small"}))
		return reasonOf(err) == "meta_stale"
	})
	if _, err := r.nodes[lone].Load().services.LoadPackage(ctx, "acme", "small", "runner"); !errors.Is(err, api.ErrMetaStale) {
		t.Errorf("a runner at the node that is cut off: %v", err)
	}
	_, err = r.packages(lone).Install(ctx, connect.NewRequest(&packagesv1.InstallRequest{Tenant: "acme", Id: "small"}))
	wantReasonOf(t, "install at the node that is cut off", err, "meta_stale")
}

func wantReasonOf(t *testing.T, what string, err error, want string) {
	t.Helper()
	if reasonOf(err) != want {
		t.Errorf("%s: %v, want %s", what, err, want)
	}
}
