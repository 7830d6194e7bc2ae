package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"connectrpc.com/connect"
	"github.com/klauspost/compress/zstd"

	provenancev1 "github.com/maestro-conductor/maestro/api/gen/mc/provenance/v1"
	"github.com/maestro-conductor/maestro/api/gen/mc/provenance/v1/provenancev1connect"
)

// shelf is a server that takes documents, and knows what the CLI needs to tell.
type shelf struct {
	provenancev1connect.UnimplementedProvenanceHandler

	mu      sync.Mutex
	taken   map[string]int // how often each id was sent
	batches int
	// fail is the batch, from 1, from which on all are refused for good; 0 is none.
	fail int
	// under is how many batches are under way, most how many there were at a time, gather how many
	// each waits for.
	under, most, gather int
	met                 *sync.Cond
}

func newShelf(t *testing.T) *shelf {
	t.Helper()
	s := &shelf{taken: map[string]int{}}
	s.met = sync.NewCond(&s.mu)
	mux := http.NewServeMux()
	mux.Handle(provenancev1connect.NewProvenanceHandler(s))
	server := httptest.NewUnstartedServer(mux)
	server.EnableHTTP2 = true
	server.StartTLS()
	t.Cleanup(server.Close)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	isolate(t)
	t.Setenv("MAESTRO_TOKEN", "mct_test")
	s.args(server.URL, ca)
	return s
}

// shelfArgs are the flags that lead to the shelf of the running test.
var shelfArgs []string

func (s *shelf) args(url, ca string) {
	shelfArgs = []string{"--endpoint", url, "--ca", ca, "-o", "json"}
}

func (s *shelf) Ingest(_ context.Context, r *connect.Request[provenancev1.IngestRequest]) (*connect.Response[provenancev1.IngestResponse], error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.batches++; s.fail > 0 && s.batches >= s.fail {
		return nil, connect.NewError(connect.CodeInvalidArgument, fmt.Errorf("batch %d is not taken", s.batches))
	}
	s.under++
	s.most = max(s.most, s.under)
	for s.met.Broadcast(); s.most < s.gather; {
		s.met.Wait()
	}
	s.under--
	m := &provenancev1.IngestResponse{}
	for i, d := range r.Msg.GetDocuments() {
		switch s.taken[d.GetId()]++; {
		case d.GetReason() == "refuse":
			m.Refusals = append(m.Refusals, &provenancev1.Refusal{Position: uint32(i), Id: d.GetId(), Reason: "conflict", Message: "taken"})
			m.Refused++
		case s.taken[d.GetId()] > 1:
			m.Existing++
		default:
			m.Indexed++
		}
	}
	return connect.NewResponse(m), nil
}

// ingestJSON runs maestro ingest and returns its counts.
func ingestJSON(t *testing.T, stdin string, want int, args ...string) (counts struct{ Indexed, Existing, Refused int }, errs string) {
	t.Helper()
	out, errs, status := maestro(t, stdin, append(append([]string{"ingest", "--tenant", "acme"}, shelfArgs...), args...)...)
	if err := json.Unmarshal([]byte(out), &counts); err != nil || status != want {
		t.Fatalf("status %d, want %d; %q %s", status, want, out, errs)
	}
	return counts, errs
}

// lines are n documents, from a number on.
func lines(from, n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `{"kind":"event","id":"d%05d"}`+"\n", from+i)
	}
	return b.String()
}

// What gzip or zstd has compressed is read whatever it is called, from files and from stdin, also in
// several parts one behind the other.
func TestIngestDecompresses(t *testing.T) {
	s := newShelf(t)
	var zipped, zstds bytes.Buffer
	for i := range 2 {
		w := gzip.NewWriter(&zipped)
		_, _ = w.Write([]byte(lines(10*i, 10)))
		_ = w.Close()
		z, err := zstd.NewWriter(&zstds)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = z.Write([]byte(lines(20+10*i, 10)))
		_ = z.Close()
	}
	file := filepath.Join(t.TempDir(), "documents")
	if err := os.WriteFile(file, zipped.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	if c, _ := ingestJSON(t, zstds.String(), statusDone, file, "-"); c.Indexed != 40 || len(s.taken) != 40 {
		t.Errorf("%+v, %d ids", c, len(s.taken))
	}
	cut := zipped.Bytes()[:zipped.Len()-20]
	if err := os.WriteFile(file, cut, 0o600); err != nil {
		t.Fatal(err)
	}
	c, errs := ingestJSON(t, "", statusError, file)
	if c.Existing < 10 || !strings.Contains(errs, file+": ") || !strings.Contains(errs, "unexpected EOF") || !strings.Contains(errs, "run the same command again") {
		t.Errorf("cut off: %+v %s", c, errs)
	}
}

// An ingest that ended early goes on where it was, with one worker and with many; what was stored
// is not sent again, and what was appended since is.
func TestIngestResumes(t *testing.T) {
	for _, workers := range []string{"1", "4"} {
		t.Run(workers, func(t *testing.T) {
			s := newShelf(t)
			dir := t.TempDir()
			state, file := filepath.Join(dir, "state"), filepath.Join(dir, "documents.jsonl")
			write := func(text string) {
				t.Helper()
				if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			bad := "broken\n"
			if workers != "1" {
				bad = "" // with several it is open whether it is read again
			}
			write(lines(0, 2500) + bad + lines(2500, 2500))
			s.fail = 4
			c, errs := ingestJSON(t, "", statusError, "--workers", workers, "--resume", state, file)
			if c.Indexed != 3000 || !strings.Contains(errs, "is not taken") {
				t.Errorf("first run: %+v %s", c, errs)
			}
			s.fail = 0
			if c, _ = ingestJSON(t, "", statusDone, "--workers", workers, "--resume", state, file); c.Indexed != 2000 || workers == "1" && c.Existing != 0 {
				t.Errorf("second run: %+v", c)
			}
			if len(s.taken) != 5000 {
				t.Errorf("%d ids are stored", len(s.taken))
			}
			if c, _ = ingestJSON(t, "", statusDone, "--resume", state, file); c.Indexed+c.Existing+c.Refused != 0 {
				t.Errorf("nothing new: %+v", c)
			}
			write(lines(0, 2500) + bad + lines(2500, 2510))
			if c, _ = ingestJSON(t, "", statusDone, "--resume", state, file); c.Indexed != 10 || c.Existing != 0 {
				t.Errorf("after more was appended: %+v", c)
			}
			write(lines(7000, 10))
			if _, errs, status := maestro(t, "", append([]string{"ingest", "--resume", state, file}, shelfArgs...)...); status != statusError || !strings.Contains(errs, "its beginning has changed") {
				t.Errorf("another file: %d %s", status, errs)
			}
			if err := os.WriteFile(state, []byte("{}"), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, errs, status := maestro(t, "", append([]string{"ingest", "--resume", state, file}, shelfArgs...)...); status != statusError || !strings.Contains(errs, "does not say where") {
				t.Errorf("a broken state: %d %s", status, errs)
			}
		})
	}
}

// As many batches are under way as there are workers: each of these waits for the others.
func TestIngestWorkers(t *testing.T) {
	s := newShelf(t)
	s.gather = 3
	if c, _ := ingestJSON(t, lines(0, 3000), statusDone, "--workers", "3", "-"); c.Indexed != 3000 || s.most != 3 {
		t.Errorf("%+v, %d at a time", c, s.most)
	}
	for _, bad := range []string{"0", "33"} {
		if _, _, status := maestro(t, "", append([]string{"ingest", "--workers", bad, "-"}, shelfArgs...)...); status != statusUsage {
			t.Errorf("%s workers: status %d", bad, status)
		}
	}
}

// Refusals of the region and of the reader name file and line, cost no other document, and make the
// status 1.
func TestIngestRefusals(t *testing.T) {
	newShelf(t)
	in := lines(0, 1) + `{"kind":"event","id":"x","reason":"refuse"}` + "\nbroken\n" + lines(1, 1)
	c, errs := ingestJSON(t, in, statusError, "-")
	if c.Indexed != 2 || c.Refused != 2 || !strings.Contains(errs, "refused: stdin: line 2: conflict: taken\n") || !strings.Contains(errs, "refused: stdin: line 3: record_malformed: ") {
		t.Errorf("%+v %s", c, errs)
	}
}
