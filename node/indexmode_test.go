package node

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"connectrpc.com/connect"

	commonv1 "github.com/maestro-conductor/maestro/api/gen/mc/common/v1"
	provenancev1 "github.com/maestro-conductor/maestro/api/gen/mc/provenance/v1"
	"github.com/maestro-conductor/maestro/api/gen/mc/provenance/v1/provenancev1connect"
)

func (r *testRegion) provenance(i int) provenancev1connect.ProvenanceClient {
	return provenancev1connect.NewProvenanceClient(r.admin, "https://"+r.configs[i].API.Listen)
}

// refusalOf is the stable reason of an error with its outcome.
func refusalOf(err error) string {
	var wire *connect.Error
	if !errors.As(err, &wire) {
		return fmt.Sprint(err)
	}
	for _, d := range wire.Details() {
		if v, err := d.Value(); err == nil {
			if detail, ok := v.(*commonv1.ErrorDetail); ok {
				return detail.GetReason() + " " + detail.GetOutcome()
			}
		}
	}
	return wire.Error()
}

// The mode of the index holds at every node and after a restart. While it is switched under load,
// every document is either acknowledged and found afterwards, or refused as a whole and not there.
func TestModeOfTheIndexUnderLoad(t *testing.T) {
	r := newRegion(t)
	r.run()
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	var stored, refused [3]atomic.Int64
	var mu sync.Mutex
	fate := map[string]string{} // of each document: "", or why it is not acknowledged
	var load sync.WaitGroup
	ingest := func(i int, id string) error {
		_, err := r.provenance(i).Ingest(context.Background(), connect.NewRequest(&provenancev1.IngestRequest{
			Documents: []*provenancev1.Document{{Id: id, Kind: "event", Tenant: "acme"}},
		}))
		reason := ""
		if err != nil {
			reason = refusalOf(err)
		}
		mu.Lock()
		fate[id] = reason
		mu.Unlock()
		return err
	}
	for i := range 3 {
		load.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				if ingest(i, fmt.Sprintf("load-%d-%d", i, n)) == nil {
					stored[i].Add(1)
				} else {
					refused[i].Add(1)
				}
			}
		})
	}
	search := func(i int) (*provenancev1.SearchResponse, error) {
		resp, err := r.provenance(i).Search(context.Background(), connect.NewRequest(&provenancev1.SearchRequest{Tenant: "acme", Limit: 1, Exact: true}))
		if err != nil {
			return nil, err
		}
		return resp.Msg, nil
	}
	set := func(i int, mode, before string) {
		t.Helper()
		resp, err := r.provenance(i).SetMode(context.Background(), connect.NewRequest(&provenancev1.SetModeRequest{Mode: mode}))
		check(t, err)
		if resp.Msg.Before != before {
			t.Errorf("set %s: it was %q, want %q", mode, resp.Msg.Before, before)
		}
		for i := range 3 {
			r.await("the metric to show the mode "+mode, func() bool {
				return strings.Contains(r.metrics(i), `mc_prov_index_mode{mode="`+mode+`"} 1`)
			})
		}
	}
	more := func(what string, of *[3]atomic.Int64) {
		t.Helper()
		for i := range 3 {
			from := of[i].Load()
			r.await(what, func() bool { return of[i].Load() > from+1 })
		}
	}
	more("documents to be stored", &stored)
	set(0, "read-only", "read-write")
	for i := range 3 {
		if err := ingest(i, fmt.Sprint("refused-", i)); refusalOf(err) != "index_read_only definite" {
			t.Errorf("ingest at node %d in read-only: %v", i+1, refusalOf(err))
		}
		if _, err := search(i); err != nil {
			t.Errorf("search at node %d in read-only: %v", i+1, err)
		}
	}
	more("documents to be refused", &refused)
	set(1, "off", "read-only")
	for i := range 3 {
		if err := ingest(i, fmt.Sprint("off-", i)); refusalOf(err) != "index_off definite" {
			t.Errorf("ingest at node %d in off: %v", i+1, refusalOf(err))
		}
		if _, err := search(i); refusalOf(err) != "index_off definite" {
			t.Errorf("search at node %d in off: %v", i+1, refusalOf(err))
		}
	}
	set(2, "read-write", "off")
	more("documents to be stored again", &stored)
	stop()
	load.Wait()
	// What was acknowledged is all there, and nothing else.
	want := uint32(0)
	for id, reason := range fate {
		switch {
		case reason == "":
			want++
		case !strings.HasSuffix(reason, " definite"):
			t.Errorf("%s: %s", id, reason)
		}
	}
	for i := range 3 {
		if got, err := search(i); err != nil || got.GetTotal().GetValue() != want || !got.GetComplete() {
			t.Errorf("node %d: %v, %v; want %d documents", i+1, got.GetTotal(), err, want)
		}
	}
}
