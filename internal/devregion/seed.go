package devregion

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	limiterv1 "github.com/maestro-conductor/maestro/api/gen/mc/limiter/v1"
	provenancev1 "github.com/maestro-conductor/maestro/api/gen/mc/provenance/v1"
	"github.com/maestro-conductor/maestro/internal/client"
)

// SampleTenant owns the sample content.
const SampleTenant = "demo"

const sampleRuns = 12

// seed gives a new region something to look at. It may be interrupted and repeated: limits
// and documents have fixed ids and content.
func (r *Region) seed(ctx context.Context) error {
	marker := filepath.Join(r.opts.Dir, "seeded")
	if _, err := os.Stat(marker); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	c, err := r.Client()
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := c.Limiter().SetLimits(ctx, connect.NewRequest(&limiterv1.SetLimitsRequest{
		Limits: sampleLimits(), RequestId: "dev-seed-limits",
	})); err != nil {
		return fmt.Errorf("devregion: sample limits: %w", err)
	}
	docs := sampleDocuments(r.state.Regions[0].Name, r.state.Created)
	resp, err := c.Provenance().Ingest(ctx, connect.NewRequest(&provenancev1.IngestRequest{
		Documents: docs, Tenant: SampleTenant, RequestId: "dev-seed-documents",
	}))
	if err != nil {
		return fmt.Errorf("devregion: sample documents: %w", err)
	}
	if refusals := resp.Msg.GetRefusals(); len(refusals) > 0 {
		return fmt.Errorf("devregion: %d of %d sample documents were refused, the first because: %s", len(refusals), len(docs), refusals[0].GetMessage())
	}
	r.opts.Report(fmt.Sprintf("seeded: %d limits, %d documents of tenant %s", len(sampleLimits()), len(docs), SampleTenant))
	return client.WriteFile(marker, []byte("sample content is in\n"))
}

func sampleLimits() []*limiterv1.Limit {
	limit := func(id, scope, selector, rate string, burst uint32) *limiterv1.Limit {
		return &limiterv1.Limit{
			Id: id, Scope: scope, Selector: selector,
			TokenBucket: &limiterv1.TokenBucket{Rate: rate, Burst: burst},
		}
	}
	return []*limiterv1.Limit{
		limit("demo-total", "tenant", SampleTenant, "50/s", 100),
		limit("demo-per-token", "token", SampleTenant+"/*", "10/s", 20),
		limit("demo-exports", "key", SampleTenant+"/export", "6/m", 2),
	}
}

// sampleDocuments are a dozen workflow runs up to created: each builds an artifact from a
// source, tests it, and is allowed or denied its release.
func sampleDocuments(region string, created time.Time) []*provenancev1.Document {
	var docs []*provenancev1.Document
	for i := range sampleRuns {
		run := fmt.Sprintf("run-%04d", i+1)
		at := created.Add(-time.Duration(sampleRuns-i) * 5 * time.Minute)
		source, artifact, report := sampleDigest("source", i/2), sampleDigest("artifact", i), sampleDigest("report", i)
		base := func(kind, step string, after time.Duration) *provenancev1.Document {
			return &provenancev1.Document{
				Id: run + "/" + step, Kind: kind, Tenant: SampleTenant, Region: region, Time: timestamppb.New(at.Add(after)),
				Execution: run, Task: step, Pack: "build/go@1.4.0",
			}
		}
		build := base("receipt", "build", 90*time.Second)
		build.Runner, build.DurationMs = fmt.Sprintf("pool-a/runner-%d", i%3+1), uint32(61000+1700*i)
		build.Cost = &provenancev1.Cost{MicroUnits: int64(3100 + 85*i), Currency: "USD"}
		build.Digests = []*provenancev1.Digest{
			{Digest: source, Direction: "input", Name: "app.tar"}, {Digest: artifact, Direction: "output", Name: "app"},
		}
		test := base("receipt", "test", 150*time.Second)
		test.Runner, test.DurationMs = fmt.Sprintf("pool-b/runner-%d", i%2+1), uint32(42000+900*i)
		test.Cost = &provenancev1.Cost{MicroUnits: int64(1900 + 40*i), Currency: "USD"}
		test.Digests = []*provenancev1.Digest{
			{Digest: artifact, Direction: "input", Name: "app"}, {Digest: report, Direction: "output", Name: "report.xml"},
		}
		pushed := base("event", "push", 0)
		pushed.Digests = []*provenancev1.Digest{{Digest: source, Direction: "subject", Name: "app.tar"}}
		pushed.Attributes = map[string]string{"branch": []string{"main", "feature"}[i%2], "actor": []string{"ana", "ben", "chris"}[i%3]}
		decided := base("decision", "release", 160*time.Second)
		decided.Decision, decided.Rule = "allow", "release.main_only"
		if i%2 == 1 {
			decided.Decision, decided.Reason = "deny", "only builds of the branch main are released"
		}
		decided.Digests = []*provenancev1.Digest{{Digest: artifact, Direction: "subject", Name: "app"}}
		docs = append(docs, pushed, build, test, decided)
	}
	return docs
}

func sampleDigest(what string, i int) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "maestro sample %s %d", what, i))
	return "sha256:" + hex.EncodeToString(sum[:])
}
