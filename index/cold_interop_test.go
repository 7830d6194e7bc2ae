//go:build interop

package index

import (
	"strings"
	"testing"
	"time"

	"github.com/maestro-conductor/maestro/internal/objectstore"
	"github.com/maestro-conductor/maestro/internal/objectstore/storetest"
)

// Cold segments in a real S3 server answer as before, are reached by retention, and are missed when it dies.
func TestColdSegmentsInS3(t *testing.T) {
	conf, end := storetest.SeaweedFS(t)
	s3, err := objectstore.NewS3(conf)
	must(t, err)
	f := newFrozenIn(t, 2, s3, layoutBatches)
	want := f.answers()
	f.pass(time.Hour)
	must(t, f.freeze())
	if n := f.leader().Cold(); n != 2 {
		t.Fatalf("%d cold segments", n)
	}
	f.sameState()
	f.same(want, "in S3")
	f.replicas[0].Restart()
	f.same(want, "in S3, after a restart")
	f.policy = RetentionPolicy{Version: 1, Rules: []RetentionRule{{Tenant: "acme", Age: time.Hour}}}
	f.pass(time.Hour)
	f.retain()
	f.lead()
	f.check()
	f.pass(23 * time.Hour)
	must(t, f.freeze())
	if n := f.leader().Cold(); n != 2 {
		t.Fatalf("%d cold segments again", n)
	}
	f.sameState()
	end()
	f.replicas[0].Restart()
	q := shardQuery{text: "decision:deny", limit: 1000, extension: extension{order: OrderOldest}}
	a, err := decodeShardAnswer(f.replicas[0].Query(q.encode()))
	if err != nil || !strings.Contains(a.missing, "cold segments with") {
		t.Errorf("without the server: %q, %v", a.missing, err)
	}
}
