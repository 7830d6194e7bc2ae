package api

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	provenancev1 "github.com/maestro-conductor/maestro/api/gen/mc/provenance/v1"
	"github.com/maestro-conductor/maestro/api/gen/mc/provenance/v1/provenancev1connect"
	"github.com/maestro-conductor/maestro/index"
)

// TestLineageREST: the parameters reach the index as the RPC's fields would, and the answer
// has the documented names.
func TestLineageREST(t *testing.T) {
	e := newEnv(t, nil)
	e.services.walked = index.LineageResult{
		Steps:   []index.LineageStep{{Document: foundPage.Items[0], Depth: 1, Via: []string{"sha256:ab"}}},
		Digests: []index.LineageDigest{{Digest: "sha256:ab"}, {Digest: "sha256:cd", Depth: 1}},
		Costs:   []index.Cost{{Micros: 7, Currency: "USD"}}, Followed: 3, Reached: 4, Stopped: index.StoppedDocuments,
		Shards: foundPage.Shards,
	}
	res, body := e.send(t, secretOf("acme", RoleReader), http.MethodGet, "/api/provenance/lineage?"+url.Values{
		"digest": {"sha256:ab"}, "direction": {"down"}, "to": {"sha256:cd"}, "depth": {"7"}, "maxDocuments": {"8"}, "maxDigests": {"9"},
		"q": {"NOT decision:deny"}, "since": {"2026-01-01"}, "until": {"1970-01-01"},
	}.Encode(), "", nil)
	if res.StatusCode != http.StatusOK || res.Header.Get("Content-Type") != "application/json" {
		t.Fatalf("%d %s", res.StatusCode, body)
	}
	want := index.LineageRequest{
		Digest: "sha256:ab", Direction: "down", To: "sha256:cd", Depth: 7, Documents: 8, Digests: 9, Query: "NOT decision:deny", Tenant: "acme",
		Since: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).UnixNano(), Until: -1,
	}
	if got := e.services.lastWalk(); got != want {
		t.Errorf("the index was asked %+v, want %+v", got, want)
	}
	var answer struct {
		Steps []struct {
			Document struct{ ID string }
			Depth    int
			Via      []string
		}
		Digests []struct {
			Digest string
			Depth  int
		}
		Costs []struct {
			MicroUnits string
			Currency   string
		}
		DocumentsFollowed, DigestsReached int
		Stopped                           string
		Complete                          *bool
		Shards                            []struct{ Shard, State string }
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		t.Fatal(err)
	}
	if len(answer.Steps) != 1 || answer.Steps[0].Document.ID != "d1" || answer.Steps[0].Depth != 1 || answer.Steps[0].Via[0] != "sha256:ab" ||
		len(answer.Digests) != 2 || answer.Digests[1].Depth != 1 || answer.Costs[0].MicroUnits != "7" || answer.DocumentsFollowed != 3 ||
		answer.DigestsReached != 4 || answer.Stopped != "documents" || answer.Complete == nil || *answer.Complete || answer.Shards[1].State != "timeout" {
		t.Errorf("answer %s", body)
	}
}

// TestLineageDefaults: what is left out, or 0 in a message, has its default.
func TestLineageDefaults(t *testing.T) {
	e := newEnv(t, nil)
	client := provenancev1connect.NewProvenanceClient(e.client(secretOf(AllTenants, RoleReader)), e.url)
	if _, err := client.Lineage(t.Context(), connect.NewRequest(&provenancev1.LineageRequest{Digest: "x", RequireComplete: true})); err != nil {
		t.Fatal(err)
	}
	want := index.LineageRequest{
		Digest: "x", Direction: index.LineageUp, Depth: DefaultLineageDepth, Documents: DefaultLineageDocuments, Digests: DefaultLineageDigests,
		RequireComplete: true,
	}
	if got := e.services.lastWalk(); got != want {
		t.Errorf("the index was asked %+v, want %+v", got, want)
	}
}

// TestLineageRefused: mistakes are told before the index is asked.
func TestLineageRefused(t *testing.T) {
	e := newEnv(t, nil)
	for query, reason := range map[string]string{
		"digest=a&digest=b":          "parameter_malformed",
		"limit=5":                    "parameter_malformed",
		"depth=0":                    "parameter_malformed",
		"depth=101":                  "parameter_malformed",
		"maxDocuments=0":             "parameter_malformed",
		"maxDigests=50001":           "parameter_malformed",
		"digest=%ff":                 "parameter_malformed",
		"since=yesterday":            "parameter_malformed",
		"until=1969-12-31":           "field_malformed",
		"tenant=globex":              "tenant_foreign",
		"digest=" + long(2000):       "field_too_long",
		"digest=a&to=" + long(2000):  "field_too_long",
		"q=" + long(MaxQueryBytes+1): "field_too_long",
	} {
		res, body := e.send(t, secretOf("acme", RoleReader), http.MethodGet, "/api/provenance/lineage?"+query, "", nil)
		if p := problemOf(t, res, body); p.Reason != reason {
			t.Errorf("%.40s: %s, want %s", query, p.Reason, reason)
		}
	}
	client := provenancev1connect.NewProvenanceClient(e.client(secretOf("acme", RoleReader)), e.url)
	_, err := client.Lineage(t.Context(), connect.NewRequest(&provenancev1.LineageRequest{Since: &timestamppb.Timestamp{Seconds: -1}}))
	wantReason(t, err, connect.CodeInvalidArgument, "field_malformed")
	if len(e.services.walks) != 0 {
		t.Errorf("the index was asked %+v", e.services.walks)
	}
}

func long(n int) string { return strings.Repeat("a", n) }

func FuzzParseLineage(f *testing.F) {
	for _, seed := range []string{
		"", "digest=sha256:00&direction=up", "to=a&depth=100", "maxDocuments=1&maxDigests=50001", "since=2026-01-01&until=0000-01-01", "q=%ff",
		"depth=4294967296", "tenant=a&tenant=b",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		req, fault := parseLineage(raw)
		if (req == nil) == (fault == nil) {
			t.Fatalf("%q: a request and a fault, or neither", raw)
		}
		if fault == nil {
			_, fault = lineageRequest(Principal{Tenant: "acme", Role: RoleReader}, req)
		}
		if fault != nil && (fault.code == 0 || fault.message == "") {
			t.Fatalf("%q: a fault without a code or message", raw)
		}
	})
}
