package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"text/tabwriter"

	"github.com/maestro-conductor/maestro/api"
	limiterv1 "github.com/maestro-conductor/maestro/api/gen/mc/limiter/v1"
	"github.com/maestro-conductor/maestro/limiter"
)

// The sample file and every file in the documentation of limits can be set.
func TestLimitsInTheDocumentation(t *testing.T) {
	docs := filepath.Join("..", "..", "docs")
	sample, err := os.ReadFile(filepath.Join(docs, "examples", "limits.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile(filepath.Join(docs, "limits.md"))
	if err != nil {
		t.Fatal(err)
	}
	files := []string{string(sample)}
	for i, part := range strings.Split(string(page), "```yaml\n") {
		if file, _, ok := strings.Cut(part, "```"); ok && i > 0 {
			files = append(files, file)
		}
	}
	if len(files) < 6 {
		t.Errorf("only %d files were found", len(files))
	}
	for _, file := range files {
		if _, err := limiter.ParseLimits([]byte(file)); err != nil {
			t.Errorf("%v\n%s", err, file)
		}
	}
}

func TestDiffOfLimits(t *testing.T) {
	message := func(l limiter.Limit) *limiterv1.Limit {
		l.Scope, l.Selector = limiter.ScopeTenant, "acme"
		return api.LimitMessage(l)
	}
	bucket := limiter.TokenBucket{Rate: "1/s", Burst: 5}
	there := &limiterv1.ListLimitsResponse{Version: 7, Limits: []*limiterv1.Limit{
		message(limiter.Limit{ID: "same", TokenBucket: bucket}),
		message(limiter.Limit{ID: "other", TokenBucket: bucket}),
		message(limiter.Limit{ID: "stays", TokenBucket: bucket}),
	}}
	d := diffLimits([]*limiterv1.Limit{
		message(limiter.Limit{ID: "new", Window: limiter.Window{Limit: 10, Length: "1h"}, Enforcement: limiter.EnforcementShadow}),
		message(limiter.Limit{ID: "same", TokenBucket: bucket}),
		message(limiter.Limit{ID: "other", TokenBucket: bucket, Concurrency: limiter.Concurrency{Limit: 3, TTL: "30s"}, OnFailure: limiter.OnFailureDeny, Canary: 5, Expires: 1796079600, Calendar: limiter.Calendar{Limit: 9, Period: limiter.PeriodDay, TimeZone: "Europe/Berlin", Anchor: "06:00"}}),
		message(limiter.Limit{ID: "gone", Access: limiter.AccessBanned, Overrides: ""}),
	}, there)
	var out bytes.Buffer
	w := tabwriter.NewWriter(&out, 0, 8, 2, ' ', 0)
	d.table(w)
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	const want = `+  new    tenant  acme  10 in 1h, shadow
-  other  tenant  acme  1/s burst 5
+  other  tenant  acme  1/s burst 5, 9 a day from 06:00 Europe/Berlin, 3 at once for 30s, on failure deny, canary 5%, until 2026-11-30T23:00:00Z
+  gone   tenant  acme  banned
`
	if out.String() != want || len(d.Created) != 2 || len(d.Replaced) != 1 || len(d.Unchanged) != 1 || d.Version != 7 {
		t.Errorf("%+v\n%s", d, out.String())
	}
}
