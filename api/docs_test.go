package api

import (
	"bytes"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/maestro-conductor/maestro/index"
	"github.com/maestro-conductor/maestro/index/ingest"
	"github.com/maestro-conductor/maestro/limiter"
)

var update = flag.Bool("update", false, "rewrite docs/errors.md from the tables")

// TestErrorsDocument keeps docs/errors.md true: it is written from the tables of this
// package. Run go test ./api -run TestErrorsDocument -update after a change.
func TestErrorsDocument(t *testing.T) {
	path := filepath.Join("..", "docs", "errors.md")
	want := errorsDocument(t)
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("docs/errors.md does not match the tables; run go test ./api -run TestErrorsDocument -update")
	}
}

const errorsIntroduction = `# Errors and limits of the API

This page is written from the tables in package api by ` + "`go test ./api -run TestErrorsDocument -update`" + `.

Every error has a code of Connect and gRPC, and a ` + "`mc.common.v1.ErrorDetail`" + ` beside its message:

| field | meaning |
|---|---|
| ` + "`reason`" + ` | what happened, in one of the words below; compare this, never the message |
| ` + "`hint`" + ` | what to do about it |
| ` + "`outcome`" + ` | ` + "`definite`: nothing was changed. `unknown`" + `: the request may have taken effect; repeat it with the same ` + "`requestId`" + ` to learn the answer |
| ` + "`retryAfterMs`" + ` | when a retry can succeed, in milliseconds; 0 when time alone does not help or the moment is not known |

Connect and gRPC carry it as an error detail. REST answers with ` + "`application/problem+json`" + ` (RFC 9457), whose
members are ` + "`type`, `title`, `status`, `detail`" + ` (the message) and the four above; ` + "`Retry-After`" + ` repeats
` + "`retryAfterMs`" + ` in seconds, rounded up. A denied check is an answer, not an error.

Where the load of the moment tells when a retry can succeed (` + "`overloaded`, `tenant_overloaded`" + `), ` + "`retryAfterMs`" + ` is
computed from it, and the table has what is said while nothing is known.

Reading never changes anything: the outcome of a failed read is always ` + "`definite`" + `. The column *outcome* is about
writes; *group* means that the Raft group that failed says which it is.
`

func errorsDocument(t *testing.T) []byte {
	t.Helper()
	var b bytes.Buffer
	b.WriteString(errorsIntroduction)
	b.WriteString("\n## Reasons\n\n| reason | code | HTTP in REST | outcome | retryAfterMs | what happened | what to do |\n|---|---|---|---|---|---|---|\n")
	for _, r := range reasons {
		fmt.Fprintf(&b, "| <a id=\"%[1]s\"></a>`%[1]s` | %s | %d | %s | %d | %s | %s |\n",
			r.name, r.code, r.httpStatus(), outcomeInDocument(r), r.retryAfterMs, r.title, r.hint)
	}
	fmt.Fprintf(&b, "\nA denied check says `%s` (time helps: see `retryAfterMs`), `%s` (it never passes) or `%s`.\n", limiter.ReasonLimited, limiter.ReasonCostExceedsLimit, limiter.ReasonBanned)
	b.WriteString("\n## Reasons of refused documents\n\nAn ingest takes the good documents of a batch and lists the others with these reasons.\n\n| reason | what it means |\n|---|---|\n")
	fmt.Fprintf(&b, "| `%s` | %s |\n", reasonTenantForeign.name, reasonTenantForeign.title)
	fmt.Fprintf(&b, "| `%s` | %s |\n", reasonTenantMissing.name, reasonTenantMissing.title)
	for _, dir := range []string{"../index", "../index/ingest"} {
		for _, c := range reasonConstants(t, dir) {
			fmt.Fprintf(&b, "| `%s` | %s |\n", c[0], c[1])
		}
	}
	b.WriteString("\n## Limits\n\n| what | limit | beyond it |\n|---|---|---|\n")
	for _, l := range documentedLimits {
		fmt.Fprintf(&b, "| %s | %s | %s |\n", l.what, l.value, l.beyond)
	}
	b.WriteString("\n## Who may call what\n\nRoles, from least to most: reader, runner, publisher, operator, admin; each may do what the ones before it may.\n" +
		"A role reaches the identity's own tenant. Identities of the platform (tenant `*`) reach every tenant; only its\nadministrators change limits. The health service is open to all; with grpcurl, pass the token with `-H`, which\nreflection needs as well.\n\n| procedure | least role | platform only | deadline when the client sets none |\n|---|---|---|---|\n")
	for _, p := range procedures {
		only, deadline := "", "none"
		if p.platform {
			only = "yes"
		}
		if p.deadline > 0 {
			deadline = p.deadline.String()
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", p.name, p.least, only, deadline)
	}
	return b.Bytes()
}

func outcomeInDocument(r *reason) string {
	outcome := "definite"
	if r.unknown {
		outcome = "unknown"
	}
	for _, s := range r.sentinels {
		for name, row := range sentinelReasons {
			if row.err == s && strings.HasPrefix(name, "raftfsm.") {
				return outcome + ", or group"
			}
		}
	}
	return outcome
}

// reasonConstants are the values and meanings of the constants ReasonX of a package.
func reasonConstants(t *testing.T, dir string) (rows [][2]string) {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(dir, "errors.go"), nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	for _, decl := range file.Decls {
		consts, ok := decl.(*ast.GenDecl)
		if !ok || consts.Tok != token.CONST {
			continue
		}
		for _, spec := range consts.Specs {
			c := spec.(*ast.ValueSpec)
			if !strings.HasPrefix(c.Names[0].Name, "Reason") {
				continue
			}
			value, err := strconv.Unquote(c.Values[0].(*ast.BasicLit).Value)
			if err != nil {
				t.Fatal(err)
			}
			_, meaning, _ := strings.Cut(strings.Join(strings.Fields(c.Doc.Text()), " "), ": ")
			rows = append(rows, [2]string{value, strings.TrimSuffix(meaning, ".")})
		}
	}
	if len(rows) == 0 {
		t.Fatalf("%s has no reasons", dir)
	}
	return rows
}

func bytesText(n int) string {
	switch {
	case n >= 1<<20 && n%(1<<20) == 0:
		return fmt.Sprintf("%d MiB", n>>20)
	case n >= 1<<10 && n%(1<<10) == 0:
		return fmt.Sprintf("%d KiB", n>>10)
	}
	return fmt.Sprintf("%d bytes", n)
}

var documentedLimits = func() []struct{ what, value, beyond string } {
	text := func(r *reason) string { return "`" + r.name + "`" }
	each := func(c class) string {
		g := newGate(classLimits[c])
		return fmt.Sprintf("%d, one tenant %d; %s, one tenant %s", g.requests, g.mostOne, bytesText(int(g.bytes)), bytesText(int(g.mostOneBytes)))
	}
	tooMany := text(reasonOverloaded) + ", " + text(reasonTenantOverloaded)
	return []struct{ what, value, beyond string }{
		{"body of a check or search, as sent and inflated", bytesText(classLimits[classCheck].body), text(reasonBodyTooLarge)},
		{"body of other requests, message of a stream, as sent and inflated", bytesText(MaxBodyBytes), text(reasonBodyTooLarge)},
		{"header of a request", bytesText(MaxHeaderBytes), "HTTP 431, or the connection's limit in HTTP/2"},
		{"body of a batch of checks, message of a stream of checks, as sent and inflated", bytesText(classLimits[classBatch].body), text(reasonBodyTooLarge)},
		{"checks of one batch, or of one message of a stream", strconv.Itoa(MaxBatchChecks), text(reasonBatchTooLarge)},
		{"documents of one ingest, those in records included", strconv.Itoa(MaxBatchDocuments), text(reasonBatchTooLarge)},
		{"one document", bytesText(index.MaxDocumentBytes), "refused: `" + index.ReasonDocumentTooLarge + "`"},
		{"mapping of an ingest", bytesText(ingest.MaxMappingBytes), text(reasonMappingMalformed)},
		{"limits, and ids of limits, of one request", strconv.Itoa(MaxBatchLimits), text(reasonBatchTooLarge)},
		{"tenants that one request puts on plans; of a page of a list of plans", fmt.Sprintf("%d; %d", MaxBatchPlans, MaxBatchPlans), text(reasonBatchTooLarge) + ", " + text(reasonFieldMalformed)},
		{"items of a page", fmt.Sprintf("%d, without a wish %d", MaxPage, DefaultPage), text(reasonFieldMalformed)},
		{"receipts that follow each other in a lineage", fmt.Sprintf("%d, without a wish %d", index.LineageDepthMax, DefaultLineageDepth), text(reasonFieldMalformed)},
		{"receipts and digests of a lineage", fmt.Sprintf("%d and %d, without a wish %d and %d", index.LineageDocumentsMax, index.LineageDigestsMax, DefaultLineageDocuments, DefaultLineageDigests), text(reasonFieldMalformed)},
		{"digests of a lookup; documents of one and of all", fmt.Sprintf("%d; %d and %d", index.LookupDigestsMax, index.LookupDocumentsMax, index.LookupTotalMax), text(reasonBatchTooLarge) + ", " + text(reasonFieldMalformed)},
		{"documents of a lookup", "8 MiB", "fewer, and `cut`"},
		{"values of a facet", fmt.Sprintf("%d, without a wish %d", index.FacetValuesMax, DefaultFacetValues), text(reasonFieldMalformed)},
		{"buckets of a histogram", fmt.Sprintf("%d with a given length, %d with `auto`", index.HistogramBucketsMax, index.HistogramBucketsChosen), text(reasonFieldMalformed)},
		{"query; cursor", bytesText(MaxQueryBytes) + "; " + bytesText(MaxCursorBytes), text(reasonFieldTooLong)},
		{"token and key of a check", fmt.Sprintf("%d and %d bytes", MaxTokenBytes, MaxKeyBytes), text(reasonFieldTooLong)},
		{"request id", bytesText(MaxRequestIDBytes), text(reasonFieldTooLong)},
		{"description of a token", bytesText(MaxDescriptionBytes), text(reasonFieldTooLong)},
		{"checks under way on a node; bytes of their bodies", each(classCheck), tooMany},
		{"batches of checks under way on a node; bytes of their bodies", each(classBatch), tooMany},
		{"streams of checks open on a node; bytes of their messages", each(classCheckStream), tooMany},
		{"answers of these streams that are not sent yet; bytes of them", each(classCheckAnswer), tooMany},
		{"streams about leases open on a node; bytes of their messages", each(classLease), tooMany},
		{"asks of one message about leases; reports of an ask", fmt.Sprintf("%d; %d", MaxLeaseAsks, MaxLeaseReports), text(reasonBatchTooLarge)},
		{"messages of a stream of checks that are decided at the same time", strconv.Itoa(MaxStreamMessages), "the stream is not read on meanwhile"},
		{"searches under way on a node; bytes of their bodies", each(classSearch), tooMany},
		{"lookups under way on a node; bytes of their bodies", each(classLookup), tooMany},
		{"ingests under way on a node; bytes of their bodies", each(classIngest), tooMany},
		{"ingest streams open on a node; bytes of their messages", each(classStream), tooMany},
		{"requests of backups and restores under way on a node; bytes of their bodies", each(classBackup), tooMany},
		{"other requests under way on a node; bytes of their bodies", each(classAdmin), tooMany},
		{"deadline of a request, whatever the client asks for", MaxDeadline.String(), text(reasonDeadline)},
		{"time for a body to arrive", time.Duration(readTimeout).String(), text(reasonDeadline)},
		{"wait for the next message of a stream", StreamIdle.String(), text(reasonDeadline)},
		{"connections of a node; streams of a connection", fmt.Sprintf("%d; %d", maxConnections, maxConcurrentStreams), "new ones wait"},
	}
}()
