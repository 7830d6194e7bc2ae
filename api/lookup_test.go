package api

import (
	"encoding/json"
	"net/http"
	"reflect"
	"testing"
	"time"

	"connectrpc.com/connect"

	provenancev1 "github.com/maestro-conductor/maestro/api/gen/mc/provenance/v1"
	"github.com/maestro-conductor/maestro/api/gen/mc/provenance/v1/provenancev1connect"
	"github.com/maestro-conductor/maestro/index"
)

// TestLookupREST: the fields reach the index, and the answer has the documented names.
func TestLookupREST(t *testing.T) {
	e := newEnv(t, nil)
	e.services.looked = index.LookupResult{
		Digests: []index.LookupAnswer{
			{Digest: "sha256:ab", Count: 7, Documents: foundPage.Items[:1]},
			{Digest: "x", Problem: "no digest"},
		},
		Cut: true, Shards: foundPage.Shards,
	}
	res, body := e.send(t, secretOf("acme", RoleReader), http.MethodPost, "/api/provenance/lookup", "application/json",
		[]byte(`{"digests": ["sha256:ab", "x"], "documents": 3, "query": "kind:receipt", "since": "2026-01-01T00:00:00Z", "until": "1970-01-01T00:00:00Z"}`))
	if res.StatusCode != http.StatusOK {
		t.Fatalf("%d %s", res.StatusCode, body)
	}
	want := index.LookupRequest{
		Digests: []string{"sha256:ab", "x"}, Documents: 3, Query: "kind:receipt", Tenant: "acme",
		Since: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).UnixNano(), Until: -1,
	}
	if got := e.services.lookups; len(got) != 1 || !reflect.DeepEqual(got[0], want) {
		t.Errorf("the index was asked %+v, want %+v", got, want)
	}
	var answer struct {
		Digests []struct {
			Digest    string
			Count     int
			Documents []struct{ ID string }
			Problem   string
		}
		Cut      bool
		Complete *bool
		Shards   []struct{ Shard, State string }
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		t.Fatal(err)
	}
	if len(answer.Digests) != 2 || answer.Digests[0].Count != 7 || answer.Digests[0].Documents[0].ID != "d1" || answer.Digests[1].Problem != "no digest" ||
		!answer.Cut || answer.Complete == nil || *answer.Complete || answer.Shards[1].State != "timeout" {
		t.Errorf("answer %s", body)
	}
}

// TestLookupRefused: mistakes are told before the index is asked.
func TestLookupRefused(t *testing.T) {
	e := newEnv(t, nil)
	client := provenancev1connect.NewProvenanceClient(e.client(secretOf("acme", RoleReader)), e.url)
	for reason, m := range map[string]*provenancev1.LookupRequest{
		"field_malformed": {},
		"field_too_long":  {Digests: []string{"x"}, Query: long(MaxQueryBytes + 1)},
		"batch_too_large": {Digests: make([]string, index.LookupDigestsMax+1)},
	} {
		_, err := client.Lookup(t.Context(), connect.NewRequest(m))
		wantReason(t, err, connect.CodeInvalidArgument, reason)
	}
	if len(e.services.lookups) != 0 {
		t.Errorf("the index was asked %v", e.services.lookups)
	}
}
