package api

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	limiterv1 "github.com/maestro-conductor/maestro/api/gen/mc/limiter/v1"
	"github.com/maestro-conductor/maestro/api/gen/mc/limiter/v1/limiterv1connect"
	provenancev1 "github.com/maestro-conductor/maestro/api/gen/mc/provenance/v1"
	"github.com/maestro-conductor/maestro/api/gen/mc/provenance/v1/provenancev1connect"
	"github.com/maestro-conductor/maestro/internal/certs"
)

const checkPath = limiterv1connect.LimiterCheckProcedure

// connectError reads the reason, the code and the message of a unary Connect error.
func connectError(t testing.TB, body []byte) (reason, code, message string) {
	t.Helper()
	var e struct {
		Code, Message string
		Details       []struct {
			Type  string
			Debug struct{ Reason, Outcome string }
		}
	}
	if err := json.Unmarshal(body, &e); err != nil {
		t.Fatalf("%q: %v", body, err)
	}
	if len(e.Details) != 1 || e.Details[0].Type != "mc.common.v1.ErrorDetail" {
		t.Fatalf("%s has no detail", body)
	}
	return e.Details[0].Debug.Reason, e.Code, e.Message
}

func zipped(t testing.TB, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestMalformedUnary: whatever arrives instead of a message, the answer is a Connect error
// with a reason and a message that says what is wrong, and no handler sees it.
func TestMalformedUnary(t *testing.T) {
	e := newEnv(t, nil)
	const jsonType, protoType = "application/json", "application/proto"
	zeros := bytes.Repeat([]byte{' '}, MaxBodyBytes+1)
	for _, c := range []struct {
		what, contentType string
		body              []byte
		headers           []string
		reason, code      string
		mentions          string
	}{
		{"not JSON", jsonType, []byte(`{"key`), nil, "message_malformed", "invalid_argument", "CheckRequest"},
		{"empty JSON", jsonType, nil, nil, "message_malformed", "invalid_argument", "{}"},
		{"unknown field", jsonType, []byte(`{"key":"k","prize":1}`), nil, "message_malformed", "invalid_argument", `"prize"`},
		{"wrong type", jsonType, []byte(`{"cost":"many"}`), nil, "message_malformed", "invalid_argument", "cost"},
		{"negative cost", jsonType, []byte(`{"cost":-1}`), nil, "message_malformed", "invalid_argument", "cost"},
		{"two values", jsonType, []byte(`{} {}`), nil, "message_malformed", "invalid_argument", ""},
		{"not protobuf", protoType, []byte{0xff, 0xff, 0xff}, nil, "message_malformed", "invalid_argument", "CheckRequest"},
		{"not UTF-8", protoType, []byte{0x0a, 1, 0xff}, nil, "message_malformed", "invalid_argument", "UTF-8"},
		{"not gzip", jsonType, []byte(`{}`), []string{"Content-Encoding", "gzip"}, "message_malformed", "invalid_argument", "gzip"},
		{"truncated gzip", jsonType, zipped(t, []byte(`{"key":"runs"}`))[:20], []string{"Content-Encoding", "gzip"}, "message_malformed", "invalid_argument", "gzip"},
		{"unknown compression", jsonType, []byte(`{}`), []string{"Content-Encoding", "zstd"}, "compression_unknown", "unimplemented", "zstd"},
		{"too large", jsonType, zeros, nil, "body_too_large", "resource_exhausted", "65536"},
		{"too large once inflated", jsonType, zipped(t, zeros), []string{"Content-Encoding", "gzip"}, "body_too_large", "resource_exhausted", "65536"},
		{"bad timeout", jsonType, []byte(`{}`), []string{"Connect-Timeout-Ms", "soon"}, "header_malformed", "invalid_argument", "soon"},
		{"long timeout", jsonType, []byte(`{}`), []string{"Connect-Timeout-Ms", "99999999999"}, "header_malformed", "invalid_argument", "Connect-Timeout-Ms"},
		{"unknown version", jsonType, []byte(`{}`), []string{"Connect-Protocol-Version", "2"}, "header_malformed", "invalid_argument", "Version"},
		{"long key", jsonType, []byte(`{"key":"` + strings.Repeat("k", MaxKeyBytes+1) + `"}`), nil, "field_too_long", "invalid_argument", "key"},
		{"no tenant's name", jsonType, []byte(`{"tenant":"A/B"}`), nil, "tenant_malformed", "invalid_argument", "A/B"},
	} {
		res, body := e.send(t, secretOf("acme", RoleRunner), http.MethodPost, checkPath, c.contentType, c.body, c.headers...)
		reason, code, message := connectError(t, body)
		if res.StatusCode < 400 || reason != c.reason || code != c.code || !strings.Contains(message, c.mentions) {
			t.Errorf("%s: %d %s %s %q; want %s %s with %q", c.what, res.StatusCode, code, reason, message, c.code, c.reason, c.mentions)
		}
	}
	if len(e.services.checks) != 0 {
		t.Errorf("the limiter was asked %v", e.services.checks)
	}
}

// TestContentTypes: what is no RPC at all gets a problem; what is the wrong RPC says so.
func TestContentTypes(t *testing.T) {
	e := newEnv(t, nil)
	for contentType, status := range map[string]int{
		"text/plain": 415, "application/xml": 415, "": 415, "application/json; charset=latin-1": 415, "application/connect+json": 200,
	} {
		res, body := e.send(t, secretOf("acme", RoleRunner), http.MethodPost, checkPath, contentType, []byte(`{}`))
		if res.StatusCode != status || !bytes.Contains(body, []byte("content_type_unknown")) && !bytes.Contains(body, []byte("unimplemented")) {
			t.Errorf("%q: %d %s", contentType, res.StatusCode, body)
		}
	}
}

func envelope(flags byte, size uint32, payload []byte) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{flags}, size), payload...)
}

// TestMalformedEnvelopes: broken framing of gRPC-Web, whose answers are readable over plain
// HTTP, is refused with a reason too.
func TestMalformedEnvelopes(t *testing.T) {
	e := newEnv(t, nil)
	message, err := proto.Marshal(&limiterv1.CheckRequest{Key: "runs"})
	if err != nil {
		t.Fatal(err)
	}
	size := uint32(len(message))
	good := envelope(0, size, message)
	bomb := zipped(t, bytes.Repeat([]byte{0}, MaxBodyBytes+1))
	for _, c := range []struct {
		what    string
		body    []byte
		headers []string
		status  string // of gRPC
		says    string
	}{
		{"a good one", good, nil, "0", ""},
		{"no message", nil, nil, "3", "no message"},
		{"half a prefix", good[:3], nil, "3", "prefix"},
		{"half a message", good[:len(good)-2], nil, "3", "before the end of message 1"},
		{"two messages", append(bytes.Clone(good), good...), nil, "3", "more than one"},
		{"unknown flags", envelope(0x40, size, message), nil, "3", "flags"},
		{"compressed without a header", envelope(1, size, message), nil, "3", "compressed"},
		{"compressed garbage", envelope(1, size, message), []string{"Grpc-Encoding", "gzip"}, "3", "gzip"},
		{"a bomb", envelope(1, uint32(len(bomb)), bomb), []string{"Grpc-Encoding", "gzip"}, "8", "65536"},
		{"4 GiB announced", envelope(0, 1<<32-1, message), nil, "8", "4294967295"},
		{"not protobuf", envelope(0, 2, []byte{0xff, 0xff}), nil, "3", "CheckRequest"},
		{"bad timeout", good, []string{"Grpc-Timeout", "5y"}, "3", "5y"},
		{"unknown compression", good, []string{"Grpc-Encoding", "br"}, "12", "br"},
	} {
		res, body := e.send(t, secretOf("acme", RoleRunner), http.MethodPost, checkPath, "application/grpc-web+proto", c.body, c.headers...)
		// Trailers come in the header, or as the last frame of the body.
		status, says, details := res.Header.Get("Grpc-Status"), res.Header.Get("Grpc-Message"), res.Header.Get("Grpc-Status-Details-Bin")
		for line := range strings.SplitSeq(string(body), "\r\n") {
			if _, value, ok := strings.Cut(line, "grpc-status: "); ok {
				status = value
			}
			if _, value, ok := strings.Cut(line, "grpc-message: "); ok {
				says = value
			}
			if _, value, ok := strings.Cut(line, "grpc-status-details-bin: "); ok {
				details = value
			}
		}
		if status != c.status || !strings.Contains(says, c.says) || (details == "") != (c.status == "0") {
			t.Errorf("%s: status %q message %q details %q; want %s with %q", c.what, status, says, details, c.status, c.says)
		}
	}
}

// TestTokens: each way in which a token does not admit has its reason, and revocation takes
// effect with the next request.
func TestTokens(t *testing.T) {
	e := newEnv(t, nil)
	good := secretOf("acme", RoleRunner)
	e.services.breakToken(TokenPrefix+"old", ErrTokenExpired)
	e.services.breakToken(TokenPrefix+"ended", ErrTokenRevoked)
	for _, c := range []struct {
		headers []string
		reason  string
	}{
		{nil, "credentials_missing"},
		{[]string{"Authorization", ""}, "token_malformed"},
		{[]string{"Authorization", good}, "token_malformed"},
		{[]string{"Authorization", "Basic " + good}, "token_malformed"},
		{[]string{"Authorization", "Bearer sesame"}, "token_malformed"},
		{[]string{"Authorization", "Bearer " + TokenPrefix + strings.Repeat("x", 300)}, "token_malformed"},
		{[]string{"Authorization", "Bearer " + good, "Authorization", "Bearer " + good}, "token_malformed"},
		{[]string{"Authorization", "Bearer " + TokenPrefix + "guess"}, "token_unknown"},
		{[]string{"Authorization", "Bearer " + TokenPrefix + "old"}, "token_expired"},
		{[]string{"Authorization", "Bearer " + TokenPrefix + "ended"}, "token_revoked"},
	} {
		res, body := e.send(t, "", http.MethodPost, checkPath, "application/json", []byte(`{}`), c.headers...)
		if reason, code, _ := connectError(t, body); res.StatusCode != http.StatusUnauthorized || reason != c.reason || code != "unauthenticated" {
			t.Errorf("%q: %d %s %s, want %s", c.headers, res.StatusCode, code, reason, c.reason)
		}
	}
	client := limiterv1connect.NewLimiterClient(e.client(good), e.url)
	if _, err := client.Check(t.Context(), connect.NewRequest(&limiterv1.CheckRequest{})); err != nil {
		t.Fatal(err)
	}
	e.services.breakToken(good, ErrTokenRevoked)
	_, err := client.Check(t.Context(), connect.NewRequest(&limiterv1.CheckRequest{}))
	wantReason(t, err, connect.CodeUnauthenticated, "token_revoked")

	log := e.log.String()
	for _, want := range []string{"api request refused", "reason=token_revoked", "reason=credentials_missing", "principal=acme:runner"} {
		if !strings.Contains(log, want) {
			t.Errorf("the log lacks %q", want)
		}
	}
	if strings.Contains(log, TokenPrefix) {
		t.Errorf("the log holds a token:\n%s", log)
	}
}

// TestCertificates: the administrator's certificate is an identity, a node's is not.
func TestCertificates(t *testing.T) {
	e := newEnv(t, nil)
	admin := limiterv1connect.NewLimiterClient(e.clientWith(e.ca.clientConfig(t, certs.AdminURI), ""), e.url)
	if _, err := admin.Check(t.Context(), connect.NewRequest(&limiterv1.CheckRequest{Tenant: "acme"})); err != nil {
		t.Errorf("administrator: %v", err)
	}
	node := limiterv1connect.NewLimiterClient(e.clientWith(e.ca.clientConfig(t, "maestro://node/b"), ""), e.url)
	_, err := node.Check(t.Context(), connect.NewRequest(&limiterv1.CheckRequest{Tenant: "acme"}))
	wantReason(t, err, connect.CodeUnauthenticated, "credentials_missing")
	// A token goes first: whoever sends one means it.
	both := limiterv1connect.NewLimiterClient(e.clientWith(e.ca.clientConfig(t, certs.AdminURI), TokenPrefix+"guess"), e.url)
	_, err = both.Check(t.Context(), connect.NewRequest(&limiterv1.CheckRequest{Tenant: "acme"}))
	wantReason(t, err, connect.CodeUnauthenticated, "token_unknown")
}

// TestServicesOff: a service that is nil is off, and nothing of it answers.
func TestServicesOff(t *testing.T) {
	e := newEnv(t, func(d *Deps) {
		d.Checker, d.Holder, d.Lender, d.Limits, d.Index, d.Tokens, d.Cluster, d.Backups = nil, nil, nil, nil, nil, nil, nil, nil
		d.Packages = nil
	})
	for _, c := range accessCases {
		if c.request == nil && c.procedure != restSearch && c.procedure != restLineage {
			continue
		}
		if got := reasonOfCall(t, e, c, secretOf(AllTenants, RoleAdmin)); got != "service_off" {
			t.Errorf("%s: reason %q", c.procedure, got)
		}
	}
}

// TestSearchRequestFields: what a search may say is checked before the index is asked.
func TestSearchRequestFields(t *testing.T) {
	e := newEnv(t, nil)
	client := provenancev1connect.NewProvenanceClient(e.client(secretOf("acme", RoleReader)), e.url)
	for reason, m := range map[string]*provenancev1.SearchRequest{
		"field_malformed": {Limit: MaxPage + 1},
		"field_too_long":  {Cursor: strings.Repeat("c", MaxCursorBytes+1)},
	} {
		_, err := client.Search(t.Context(), connect.NewRequest(m))
		wantReason(t, err, connect.CodeInvalidArgument, reason)
	}
	if len(e.services.searches) != 0 {
		t.Errorf("the index was asked %v", e.services.searches)
	}
}

// FuzzEnvelopeBody: whatever the framing, reading ends, and hands on no message beyond the
// bound.
func FuzzEnvelopeBody(f *testing.F) {
	f.Add(envelope(0, 2, []byte("ab")), true, false, 3)
	f.Add(envelope(1, 1<<31, nil), false, true, 512)
	f.Add([]byte{0, 0, 0}, false, false, 1)
	f.Fuzz(func(t *testing.T, data []byte, single, compressible bool, step int) {
		b := &envelopeBody{ReadCloser: http.NoBody, single: single, compressible: compressible, most: MaxBodyBytes}
		b.ReadCloser = struct {
			*bytes.Reader
			closer
		}{bytes.NewReader(data), closer{}}
		p := make([]byte, 1+(step&0x3ff))
		total := 0
		for {
			n, err := b.Read(p)
			total += n
			if n < 0 || n > len(p) || total > len(data) {
				t.Fatalf("read %d of %d", total, len(data))
			}
			if err != nil {
				if _, again := b.Read(p); again == nil {
					t.Fatal("an error did not last")
				}
				return
			}
		}
	})
}

type closer struct{}

func (closer) Close() error { return nil }
