package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/maestro-conductor/maestro/api"
	provenancev1 "github.com/maestro-conductor/maestro/api/gen/mc/provenance/v1"
	"github.com/maestro-conductor/maestro/index"
	"github.com/maestro-conductor/maestro/index/ingest"
)

// script answers an exporter with pages of so many documents by cursor: "" leads to "1", and so
// on. What is beyond is empty, under the same cursor.
type script struct {
	pages []int
	last  map[int]bool
	asked []string
	fail  int // the page that fails once, from 1; 0 is none
	done  func()
}

func (s *script) exporter(follow bool, resume string) *exporter {
	e := &exporter{request: &provenancev1.SearchRequest{}, follow: follow, resume: resume}
	e.page = func(context.Context) (*provenancev1.SearchResponse, error) {
		cursor := e.request.GetCursor()
		s.asked = append(s.asked, cursor)
		n := 0
		if cursor != "" {
			if _, err := fmt.Sscan(cursor, &n); err != nil {
				return nil, err
			}
		}
		if s.fail == n+1 {
			s.fail = 0
			return nil, errors.New("no answer")
		}
		if n >= len(s.pages) {
			return &provenancev1.SearchResponse{Next: cursor, Last: true}, nil
		}
		r := &provenancev1.SearchResponse{Next: fmt.Sprint(n + 1), Last: s.last[n]}
		for i := range s.pages[n] {
			r.Items = append(r.Items, &provenancev1.Document{Id: fmt.Sprintf("%d-%d", n, i), Kind: "event"})
		}
		return r, nil
	}
	e.pause = func(context.Context) {
		if n := len(s.asked); n > len(s.pages) {
			s.done()
		}
	}
	return e
}

const (
	firstRound  = `{"id":"0-0","kind":"event"}` + "\n" + `{"id":"0-1","kind":"event"}` + "\n" + `{"id":"1-0","kind":"event"}` + "\n"
	secondRound = `{"id":"2-0","kind":"event"}` + "\n"
)

func newScript() *script {
	return &script{pages: []int{2, 1, 1}, last: map[int]bool{1: true, 2: true}}
}

// A run ends with the round; the next run with the same file has what came since, and the one
// after that nothing.
func TestExportResumes(t *testing.T) {
	file := filepath.Join(t.TempDir(), "cursor")
	s := newScript()
	for run, want := range []string{firstRound, secondRound, ""} {
		var out bytes.Buffer
		if err := s.exporter(false, file).run(context.Background(), &out); err != nil || out.String() != want {
			t.Errorf("run %d: %v\n%swant\n%s", run, err, out.String(), want)
		}
	}
}

// What was written before a failure is not written again.
func TestExportResumesAfterAFailure(t *testing.T) {
	file := filepath.Join(t.TempDir(), "cursor")
	s := newScript()
	s.fail = 2
	var out bytes.Buffer
	if err := s.exporter(false, file).run(context.Background(), &out); err == nil || !strings.Contains(err.Error(), "no answer") {
		t.Fatalf("error %v", err)
	}
	if err := s.exporter(false, file).run(context.Background(), &out); err != nil || out.String() != firstRound {
		t.Errorf("%v\n%s", err, out.String())
	}
}

func TestExportFollows(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	s := newScript()
	s.done = cancel
	var out bytes.Buffer
	if err := s.exporter(true, "").run(ctx, &out); err != nil || out.String() != firstRound+secondRound {
		t.Errorf("%v\n%s", err, out.String())
	}
}

// Lines are what ingest reads, with everything that a document has.
func TestExportIsIngested(t *testing.T) {
	want := index.Document{
		ID: "r1", Kind: index.KindReceipt, Tenant: "acme", Region: "us-west", Time: 1_769_817_600_000_000_001, Execution: "e", Task: "<t>\n",
		Pack: "p@1", Rule: "r", Decision: "deny", Reason: "quota", Runner: "pool", CostMicros: -5, Currency: "EUR", DurationMs: 7,
		Digests:    []index.Digest{{Value: "sha256:" + strings.Repeat("ab", 32), Direction: index.DirectionInput, Name: "in.txt"}},
		Attributes: []index.Attribute{{Name: "a.b", Value: ""}},
	}
	if err := index.Normalize(&want); err != nil {
		t.Fatal(err)
	}
	line, err := jsonLine(api.DocumentMessage(&want))
	if err != nil || bytes.Count(line, []byte("\n")) != 1 {
		t.Fatalf("%q, %v", line, err)
	}
	count := 0
	err = ingest.Read(bytes.NewReader(line), ingest.Options{Format: ingest.FormatAuto}, func(item ingest.Item) error {
		count++
		if item.Err != nil || !reflect.DeepEqual(item.Document, want) {
			t.Errorf("%+v, %v; want %+v", item.Document, item.Err, want)
		}
		return nil
	})
	if err != nil || count != 1 {
		t.Errorf("%d documents, %v", count, err)
	}
}

// When the output fails, the cursor stays where the output is whole.
func TestExportToAClosedPipe(t *testing.T) {
	file := filepath.Join(t.TempDir(), "cursor")
	if err := newScript().exporter(false, file).run(context.Background(), brokenPipe{}); !errors.Is(err, os.ErrClosed) {
		t.Errorf("error %v", err)
	}
	if _, err := os.Stat(file); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the cursor was kept: %v", err)
	}
}

type brokenPipe struct{}

func (brokenPipe) Write([]byte) (int, error) { return 0, os.ErrClosed }

func TestExportRefusesAnEmptyCursor(t *testing.T) {
	file := filepath.Join(t.TempDir(), "cursor")
	if err := os.WriteFile(file, []byte("\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := newScript().exporter(false, file).run(context.Background(), &bytes.Buffer{}); err == nil || !strings.Contains(err.Error(), "is empty") {
		t.Errorf("error %v", err)
	}
}
