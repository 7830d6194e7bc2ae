package api

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
)

// TestIngestREST: the route takes requests, CloudEvents in every mode of the HTTP binding, and JSON
// lines; what a single event is refused for is in the status.
func TestIngestREST(t *testing.T) {
	e := newEnv(t, nil)
	const path = "/api/provenance/ingest"
	event := func(id, more string) string {
		return `{"specversion":"1.0","id":"` + id + `","source":"/s","type":"t"` + more + `}`
	}
	const sum = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03"
	spelled := func(digest string) string {
		return `{"id":"spelled","kind":"receipt","time":"2026-01-01T00:00:00Z","digests":[{"digest":"` + digest + `","direction":"input"}]}` + "\n"
	}
	for _, c := range []struct {
		what, query, contentType, body string
		headers                        []string
		status                         int
		answer                         string // indexed, existing, refused; or the reason
	}{
		{"request", "", "application/json", `{"documents":[{"id":"a","kind":"event"},{"id":"b","kind":"none"}]}`, nil, 200, "1 0 1"},
		{"structured", "?requestId=r1", "application/cloudevents+json; charset=utf-8", event("1", `,"data":{"k":"v"}`), nil, 200, "1 0 0"},
		{"structured again", "", "application/cloudevents+json", event("1", `,"data":{"k":"v"}`), nil, 200, "0 1 0"},
		{"other content", "", "application/cloudevents+json", event("1", `,"data":{"k":"w"}`), nil, 422, "document_refused"},
		{"no event", "", "application/cloudevents+json", `{"id":"1"}`, nil, 422, "document_refused"},
		{"batch", "", "application/cloudevents-batch+json", "[" + event("2", "") + "," + event("3", "") + `,{"specversion":"1.0"}]`, nil, 200, "2 0 1"},
		{"empty batch", "", "application/cloudevents-batch+json", "[]", nil, 200, "0 0 0"},
		{"binary", "", "application/json", `{"k":"v"}`, []string{"ce-specversion", "1.0", "ce-id", "1", "ce-source", "/s", "ce-type", "t", "ce-datacontenttype", "x"}, 422, "document_refused"},
		{"binary with an extension", "", "application/json", `{"k":"v"}`, []string{"ce-specversion", "1.0", "ce-id", "4", "ce-source", "/s", "ce-type", "t", "ce-reason", "caf%C3%A9"}, 200, "1 0 0"},
		{"binary of bytes", "", "image/png", "\x00\x01", []string{"ce-specversion", "1.0", "ce-id", "5", "ce-source", "/s", "ce-type", "t"}, 200, "1 0 0"},
		{"binary without body", "", "", "", []string{"ce-specversion", "1.0", "ce-id", "6", "ce-source", "/s", "ce-type", "t"}, 200, "1 0 0"},
		{"binary, repeated header", "", "", "", []string{"ce-specversion", "1.0", "ce-id", "7", "ce-id", "8", "ce-source", "/s", "ce-type", "t"}, 400, "header_malformed"},
		{"binary, bad escape", "", "", "", []string{"ce-specversion", "1.0", "ce-id", "%zz", "ce-source", "/s", "ce-type", "t"}, 400, "header_malformed"},
		{"lines", "", "application/x-ndjson", `{"id":"l1","kind":"event"}` + "\n" + event("9", "") + "\nnot json\n", nil, 200, "2 0 1"},
		{"a document of a megabyte", "", "application/x-ndjson", event("10", `,"data":{"a":"`+strings.Repeat("x", 1<<20)+`"}`) + "\n" + event("11", ""), nil, 200, "1 0 1"},
		{"a clock in the future", "", "application/x-ndjson", event("12", `,"time":"2199-01-01T00:00:00Z"`), nil, 200, "1 0 0"},
		{"a clock beyond all times", "", "application/x-ndjson", event("13", `,"time":"2999-01-01T00:00:00Z"`), nil, 200, "0 0 1"},
		{"digests in every spelling, one document", "", "application/x-ndjson", spelled("sha256:"+sum) + spelled("SHA-256:"+strings.ToUpper(sum)) + spelled("sha256-WJG1tSLV3whtD/CxEPvZ0hu0/HFjrzTQgoai6Eb2vgM=") +
			spelled("sha256:WJG1tSLV3whtD_CxEPvZ0hu0_HFjrzTQgoai6Eb2vgM"), nil, 200, "1 3 0"},
		{"another tenant", "?tenant=globex", "application/x-ndjson", "", nil, 403, "tenant_foreign"},
		{"misspelt parameter", "?request_id=r", "application/x-ndjson", "", nil, 400, "parameter_malformed"},
		{"another type", "", "text/plain", "x", nil, 415, "content_type_unknown"},
		{"compressed", "", "application/x-ndjson", "x", []string{"Content-Encoding", "br"}, 415, "compression_unknown"},
	} {
		res, body := e.send(t, secretOf("acme", RoleRunner), http.MethodPost, path+c.query, c.contentType, []byte(c.body), c.headers...)
		var m struct {
			Indexed, Existing, Refused json.Number
			Reason                     string
		}
		if err := json.Unmarshal(body, &m); err != nil {
			t.Fatalf("%s: %v in %s", c.what, err, body)
		}
		got := m.Reason
		if got == "" {
			got = strings.Join([]string{m.Indexed.String(), m.Existing.String(), m.Refused.String()}, " ")
		}
		if res.StatusCode != c.status || got != c.answer {
			t.Errorf("%s: status %d, want %d; %s, want %s", c.what, res.StatusCode, c.status, body, c.answer)
		}
	}
	// The header datacontenttype means nothing in binary mode: the content type says it.
	d := e.services.documents["acme//s#4"]
	if d.Reason != "café" || len(d.Attributes) != 4 || d.Attributes[0].Name != "data.k" || d.Attributes[1].Value != "application/json" {
		t.Errorf("the binary event became %+v", d)
	}
}
