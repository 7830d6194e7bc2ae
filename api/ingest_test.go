package api

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	provenancev1 "github.com/maestro-conductor/maestro/api/gen/mc/provenance/v1"
	"github.com/maestro-conductor/maestro/api/gen/mc/provenance/v1/provenancev1connect"
	"github.com/maestro-conductor/maestro/index"
	"github.com/maestro-conductor/maestro/raftfsm"
)

func (e *env) provenance(secret string, options ...connect.ClientOption) provenancev1connect.ProvenanceClient {
	return provenancev1connect.NewProvenanceClient(e.client(secret), e.url, options...)
}

func event(id, tenant string) *provenancev1.Document {
	return &provenancev1.Document{Id: id, Kind: index.KindEvent, Tenant: tenant}
}

const statement = `{"_type":"https://in-toto.io/Statement/v1","predicateType":"https://slsa.dev/provenance/v1",
"subject":[{"name":"a","digest":{"sha256":"5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03"}}],"predicate":{}}`

// TestIngestAccountsForEverything: documents and what records hold share one count of
// positions; the good ones are stored, each bad one has its position and reason.
func TestIngestAccountsForEverything(t *testing.T) {
	e := newEnv(t, nil)
	res, err := e.provenance(secretOf("acme", RoleRunner)).Ingest(t.Context(), connect.NewRequest(&provenancev1.IngestRequest{
		Documents: []*provenancev1.Document{
			event("one", ""),
			event("two", "globex"),
			{Id: "three", Kind: "rumour"},
			{Id: "four", Kind: index.KindReceipt, Digests: []*provenancev1.Digest{{Digest: "sha256:zz", Direction: index.DirectionInput}}},
			{Id: "five", Kind: index.KindEvent, Time: &timestamppb.Timestamp{Seconds: -5}},
			event("one", ""),
			{Id: "one", Kind: index.KindDecision},
		},
		Records: []*provenancev1.Record{
			{Format: "intoto", Content: []byte(statement)},
			{Format: "auto", Content: []byte("{\"kind\":\"event\",\"id\":\"six\"}\nnonsense\n{\"kind\":\"event\",\"id\":\"seven\",\"tenant\":\"globex\"}")},
			{Format: "json", Content: []byte(`{"list":[{"n":"eight"},{"n":"nine"}]}`)},
		},
		Mapping:   "records: list\nkind: {const: event}\nid: {from: n}\n",
		RequestId: "batch-1",
	}))
	if err != nil {
		t.Fatal(err)
	}
	m := res.Msg
	var got []string
	for _, r := range m.GetRefusals() {
		got = append(got, fmt.Sprintf("%d %s %s", r.GetPosition(), r.GetId(), r.GetReason()))
		if r.GetMessage() == "" {
			t.Errorf("the refusal at %d has no message", r.GetPosition())
		}
	}
	want := []string{
		"1 two tenant_foreign", "2 three kind_unknown", "3 four digest_malformed", "4 five time_out_of_range", "6 one conflict",
		"9  record_malformed", "10 seven tenant_foreign",
	}
	if !slices.Equal(got, want) {
		t.Errorf("refusals\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if at := m.GetExistingPositions(); len(at) != 1 || at[0] != 5 {
		t.Errorf("existing at %v", at)
	}
	if m.GetIndexed() != 5 || m.GetExisting() != 1 || m.GetRefused() != 7 || len(m.GetPositions()) != 1 {
		t.Errorf("answer %v", m)
	}
	if got := e.services.requests; !slices.Equal(got, []string{"acme/batch-1"}) {
		t.Errorf("request ids %q", got)
	}
	for key, d := range e.services.documents {
		if !strings.HasPrefix(key, "acme/") || d.Region != "eu" || !d.TimeStamped {
			t.Errorf("%s: region %q, stamped %v", key, d.Region, d.TimeStamped)
		}
	}
}

// TestIngestOfThePlatform: an identity of no tenant says whose the documents are, one by one
// or for the batch.
func TestIngestOfThePlatform(t *testing.T) {
	e := newEnv(t, nil)
	client := e.provenance(secretOf(AllTenants, RoleRunner))
	res, err := client.Ingest(t.Context(), connect.NewRequest(&provenancev1.IngestRequest{
		Documents: []*provenancev1.Document{event("a", "acme"), event("b", "globex"), event("c", "")},
	}))
	if err != nil {
		t.Fatal(err)
	}
	if r := res.Msg.GetRefusals(); res.Msg.GetIndexed() != 2 || len(r) != 1 || r[0].GetReason() != "tenant_missing" {
		t.Errorf("answer %v", res.Msg)
	}
	res, err = client.Ingest(t.Context(), connect.NewRequest(&provenancev1.IngestRequest{
		Tenant: "initech", Documents: []*provenancev1.Document{event("c", ""), event("d", "acme")},
	}))
	if err != nil || res.Msg.GetIndexed() != 2 {
		t.Errorf("answer %v, error %v", res, err)
	}
	if _, there := e.services.documents["initech/c"]; !there {
		t.Error("the batch's tenant was not used")
	}
}

// TestIngestRefusedWhole: a mistake in the request itself stores nothing.
func TestIngestRefusedWhole(t *testing.T) {
	e := newEnv(t, nil)
	client := e.provenance(secretOf("acme", RoleRunner))
	many := make([]*provenancev1.Document, MaxBatchDocuments+1)
	for i := range many {
		many[i] = event("", "")
	}
	lines := strings.Repeat("{\"kind\":\"event\"}\n", MaxBatchDocuments)
	good := []*provenancev1.Document{event("a", "")}
	for _, c := range []struct {
		what, reason string
		code         connect.Code
		request      *provenancev1.IngestRequest
	}{
		{"too many", "batch_too_large", connect.CodeInvalidArgument, &provenancev1.IngestRequest{Documents: many}},
		{"too many with records", "batch_too_large", connect.CodeInvalidArgument, &provenancev1.IngestRequest{
			Documents: good, Records: []*provenancev1.Record{{Format: "receipt", Content: []byte(lines)}},
		}},
		{"unknown format", "field_malformed", connect.CodeInvalidArgument, &provenancev1.IngestRequest{
			Documents: good, Records: []*provenancev1.Record{{Format: "xml"}},
		}},
		{"json without a mapping", "field_malformed", connect.CodeInvalidArgument, &provenancev1.IngestRequest{
			Documents: good, Records: []*provenancev1.Record{{Format: "json", Content: []byte("{}")}},
		}},
		{"mapping with a mistake", "mapping_malformed", connect.CodeInvalidArgument, &provenancev1.IngestRequest{Documents: good, Mapping: "kind: [event"}},
		{"another tenant", "tenant_foreign", connect.CodePermissionDenied, &provenancev1.IngestRequest{Documents: good, Tenant: "globex"}},
		{"long request id", "field_too_long", connect.CodeInvalidArgument, &provenancev1.IngestRequest{
			Documents: good, RequestId: strings.Repeat("r", MaxRequestIDBytes+1),
		}},
	} {
		_, err := client.Ingest(t.Context(), connect.NewRequest(c.request))
		if err == nil {
			t.Errorf("%s: no error", c.what)
			continue
		}
		wantReason(t, err, c.code, c.reason)
	}
	if len(e.services.documents) != 0 {
		t.Errorf("%d documents were stored", len(e.services.documents))
	}
}

// TestIngestInPart: the client learns that sending the batch again is safe.
func TestIngestInPart(t *testing.T) {
	e := newEnv(t, nil)
	e.services.err = &index.IngestError{Stored: 2, Unknown: 1, Err: &raftfsm.Error{Op: "propose", Group: "index-1", Err: raftfsm.ErrNoLeader}}
	_, err := e.provenance(secretOf("acme", RoleRunner)).Ingest(t.Context(), connect.NewRequest(&provenancev1.IngestRequest{
		Documents: []*provenancev1.Document{event("a", "")},
	}))
	d := wantReason(t, err, connect.CodeUnavailable, "no_leader")
	if d.GetOutcome() != "unknown" || d.GetRetryAfterMs() == 0 || !strings.Contains(err.Error(), "2 documents are decided") {
		t.Errorf("%v with %v", err, d)
	}
}

// TestIngestStream: one answer for each batch, in order, until the client ends the stream.
func TestIngestStream(t *testing.T) {
	for name, options := range protocolOptions {
		t.Run(name, func(t *testing.T) {
			e := newEnv(t, nil)
			stream := e.provenance(secretOf("acme", RoleRunner), options...).IngestStream(t.Context())
			for i := range 5 {
				batch := &provenancev1.IngestRequest{Documents: []*provenancev1.Document{event(fmt.Sprint("d", i), ""), event("same", "")}}
				if i == 3 {
					batch = nil // a message without a batch is an empty one
				}
				if err := stream.Send(&provenancev1.IngestStreamRequest{Batch: batch}); err != nil {
					t.Fatal(err)
				}
				answer, err := stream.Receive()
				if err != nil {
					t.Fatal(err)
				}
				want := [][2]uint32{{2, 0}, {1, 1}, {1, 1}, {0, 0}, {1, 1}}[i]
				if b := answer.GetBatch(); b.GetIndexed() != want[0] || b.GetExisting() != want[1] {
					t.Errorf("batch %d: %v", i, b)
				}
			}
			if err := stream.CloseRequest(); err != nil {
				t.Fatal(err)
			}
			if _, err := stream.Receive(); !errors.Is(err, io.EOF) {
				t.Errorf("after the end: %v", err)
			}
		})
	}
}

// TestIngestStreamRefusals: what ends a stream early has its reason too, whatever came before.
func TestIngestStreamRefusals(t *testing.T) {
	small := &provenancev1.IngestStreamRequest{Batch: &provenancev1.IngestRequest{Documents: []*provenancev1.Document{event("a", "")}}}
	for name, options := range protocolOptions {
		for _, c := range []struct {
			what   string
			before func(*env)
			second *provenancev1.IngestStreamRequest
			code   connect.Code
			reason string
		}{
			{"a revoked token", func(e *env) { e.services.breakToken(secretOf("acme", RoleRunner), ErrTokenRevoked) }, small, connect.CodeUnauthenticated, "token_revoked"},
			{"another tenant", nil, &provenancev1.IngestStreamRequest{Batch: &provenancev1.IngestRequest{Tenant: "globex"}}, connect.CodePermissionDenied, "tenant_foreign"},
			{"a large message", nil, &provenancev1.IngestStreamRequest{Batch: &provenancev1.IngestRequest{
				Mapping: strings.Repeat("#", MaxBodyBytes+1),
			}}, connect.CodeResourceExhausted, "body_too_large"},
		} {
			t.Run(name+"/"+c.what, func(t *testing.T) {
				e := newEnv(t, nil)
				stream := e.provenance(secretOf("acme", RoleRunner), options...).IngestStream(t.Context())
				if err := stream.Send(small); err != nil {
					t.Fatal(err)
				}
				if _, err := stream.Receive(); err != nil {
					t.Fatal(err)
				}
				if c.before != nil {
					c.before(e)
				}
				_ = stream.Send(c.second) // Receive tells why it failed
				_, err := stream.Receive()
				wantReason(t, err, c.code, c.reason)
			})
		}
	}
}

// TestIngestStreamDrains: a node that stops ends idle streams, after answering what came.
func TestIngestStreamDrains(t *testing.T) {
	e := newEnv(t, nil)
	stream := e.provenance(secretOf("acme", RoleRunner), connect.WithGRPC()).IngestStream(t.Context())
	if err := stream.Send(&provenancev1.IngestStreamRequest{}); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Receive(); err != nil {
		t.Fatal(err)
	}
	stopped := make(chan struct{})
	go func() {
		e.stop()
		close(stopped)
	}()
	_, err := stream.Receive()
	wantReason(t, err, connect.CodeUnavailable, "shutting_down")
	<-stopped
}
