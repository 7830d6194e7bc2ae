package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"

	provenancev1 "github.com/maestro-conductor/maestro/api/gen/mc/provenance/v1"
	"github.com/maestro-conductor/maestro/internal/client"
)

func (a *app) exportCommand() *cobra.Command {
	e := &exporter{request: &provenancev1.SearchRequest{Limit: 1000, Follow: true}}
	r := e.request
	var since, until string
	cmd := &cobra.Command{
		Use:   "export [QUERY]",
		Short: "Write out all documents that a query finds, as JSON lines",
		Long: `Write every document that the query finds, one line of JSON each; "maestro search --help" describes queries.
"maestro ingest" reads the lines into another region. It is an error when a part of the index cannot answer.

With --follow it goes on with what is stored from then on, until it is interrupted. --resume keeps in a file
where the export stands: the next run with it writes what was stored since, each document once. A run that
was killed may write the last thousand documents again.`,
		Example: `  maestro export 'kind:decision AND decision:deny' --since 2026-01-01 --until 2026-02-01 > denies.jsonl
  maestro export --tenant demo --resume demo.cursor >> demo.jsonl
  maestro export kind:event --follow | jq .reason`,
	}
	f := cmd.Flags()
	f.StringVar(&r.Tenant, "tenant", "", "only this tenant (default: the context's tenant, else all you may see)")
	f.StringVar(&r.Pack, "pack", "", "only this package")
	f.StringVar(&r.Digest, "digest", "", "only documents with this digest")
	f.StringVar(&since, "since", "", "only from this time on: 2026-01-31, RFC 3339, or ago, such as 24h or 7d")
	f.StringVar(&until, "until", "", "only before this time")
	f.BoolVar(&e.follow, "follow", false, "go on with what is stored later")
	f.StringVar(&e.resume, "resume", "", "file that keeps where the export stands; it is made when it is missing")
	cmd.RunE = a.action(func(ctx context.Context, args []string) error {
		var err error
		r.Query = strings.Join(args, " ")
		if r.From, err = parseTime("--since", since); err != nil {
			return err
		}
		if r.To, err = parseTime("--until", until); err != nil {
			return err
		}
		if e.resume != "" && (ago(since) || ago(until)) {
			return usageError{errors.New("--resume needs moments that are the same in every run; write a date or RFC 3339")}
		}
		c, tenant, err := a.connect(r.GetTenant())
		if err != nil {
			return err
		}
		defer c.Close()
		r.Tenant = tenant
		e.page = func(ctx context.Context) (*provenancev1.SearchResponse, error) { return a.searchPage(ctx, c, r) }
		e.pause = func(ctx context.Context) {
			select {
			case <-ctx.Done():
			case <-time.After(followEvery):
			}
		}
		return e.run(ctx, a.stdout)
	})
	return cmd
}

// followEvery is how long an export that follows waits when it has all there is.
const followEvery = time.Second

// ago tells whether a moment of parseTime depends on the clock.
func ago(s string) bool { return s != "" && !strings.Contains(s, "-") }

// exporter writes out a search that follows.
type exporter struct {
	request *provenancev1.SearchRequest
	follow  bool
	resume  string // file of the cursor, or empty
	// page asks for the request's page.
	page func(ctx context.Context) (*provenancev1.SearchResponse, error)
	// pause waits before an answer that may be new; it ends with the context.
	pause func(ctx context.Context)
}

// run ends with the first page that is the last one, or with --follow once ctx is done.
func (e *exporter) run(ctx context.Context, to io.Writer) error {
	if err := e.load(); err != nil {
		return err
	}
	out := bufio.NewWriter(to)
	for {
		page, err := e.page(ctx)
		if e.follow && ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		for _, d := range page.GetItems() {
			line, err := jsonLine(d)
			if err != nil {
				return fmt.Errorf("write document %s: %w", d.GetId(), err)
			}
			_, _ = out.Write(line) // Flush tells
		}
		if err := out.Flush(); err != nil {
			return err
		}
		if err := e.save(page.GetNext()); err != nil {
			return err
		}
		if page.GetLast() && !e.follow {
			return nil
		}
		if page.GetLast() {
			e.pause(ctx)
		}
	}
}

// load takes the cursor that an earlier run kept.
func (e *exporter) load() error {
	if e.resume == "" {
		return nil
	}
	data, err := os.ReadFile(e.resume)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	e.request.Cursor = strings.TrimSpace(string(data))
	if err == nil && e.request.Cursor == "" {
		err = hinted{fmt.Errorf("%s is empty", e.resume), "remove it to export everything again"}
	}
	return err
}

func (e *exporter) save(cursor string) error {
	changed := cursor != e.request.GetCursor()
	e.request.Cursor = cursor
	if e.resume == "" || !changed {
		return nil
	}
	return client.WriteFile(e.resume, []byte(cursor+"\n"))
}

// jsonLine is a document as maestro ingest reads it, without what is unset.
func jsonLine(d *provenancev1.Document) ([]byte, error) {
	data, err := protojson.Marshal(d)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	if err := json.Compact(&out, data); err != nil { // protojson's spaces differ from build to build
		return nil, err
	}
	out.WriteByte('\n')
	return out.Bytes(), nil
}
