package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/maestro-conductor/maestro/index/ingest"
	"github.com/maestro-conductor/maestro/internal/client"
)

func (a *app) ingestCommand() *cobra.Command {
	var tenant, mapFile string
	format := ingest.FormatAuto
	cmd := &cobra.Command{
		Use:   "ingest [--tenant T] [--format F] [--map FILE] FILE...",
		Short: "Store receipts, events and decisions from files",
		Long: `Store every document of the files; - reads stdin. Each is indexed, recognised as existing, or refused:
refusals go to stderr with file, position and reason, and make the exit status 1. Ingesting again changes nothing.

Formats: auto (receipts, in-toto and CloudEvents), receipt (our JSON), intoto (statements, bare, in DSSE or in
sigstore bundles), cloudevents (structured or a batch), json (any JSON or JSON lines, with --map).`,
		Example: `  maestro ingest --tenant acme attestations/*
  maestro ingest --tenant acme --format json --map cloudtrail.yaml events/*.json
  zcat receipts.jsonl.gz | maestro ingest --tenant acme -o json -`,
		Args: cobra.MinimumNArgs(1),
	}
	f := cmd.Flags()
	f.StringVar(&tenant, "tenant", "", "owner of documents that name none (default: the context's tenant)")
	f.Var(&choice{&format, []string{ingest.FormatAuto, ingest.FormatReceipt, ingest.FormatInToto, ingest.FormatCloudEvents, ingest.FormatJSON}}, "format", "auto, receipt, intoto, cloudevents or json")
	f.StringVar(&mapFile, "map", "", "mapping file, for --format json")
	cmd.RunE = a.action(func(ctx context.Context, files []string) error {
		mapping, err := readMapping(format, mapFile)
		if err != nil {
			return err
		}
		if err := checkFiles(files); err != nil {
			return err
		}
		c, tenant, err := a.connect(tenant)
		if err != nil {
			return err
		}
		defer c.Close()
		p := newProgress(a.stderr)
		in := &client.Ingester{
			Client: c, Timeout: a.timeout,
			Read:     ingest.Options{Format: format, Tenant: tenant, Mapping: mapping},
			Progress: p.show,
			Refused: func(r client.IngestRefusal) {
				p.clear()
				fmt.Fprintf(a.stderr, "refused: %s: %s: %s: %s\n", r.Source, r.Position, r.Reason, r.Message)
			},
		}
		err = a.ingestFiles(ctx, in, files)
		p.clear()
		counts := in.Counts()
		printErr := a.print(counts, func(w io.Writer) {
			fmt.Fprintf(w, "%d indexed, %d existing, %d refused\n", counts.Indexed, counts.Existing, counts.Refused)
		})
		if err == nil && printErr == nil && counts.Refused > 0 {
			if tenant == "" {
				fmt.Fprintln(a.stderr, "hint: documents that name no tenant need --tenant, or a tenant in the context")
			}
			return errReported
		}
		return errors.Join(err, printErr)
	})
	return cmd
}

func (a *app) ingestFiles(ctx context.Context, in *client.Ingester, files []string) error {
	for _, name := range files {
		if err := a.ingestFile(ctx, in, name); err != nil {
			return err
		}
	}
	return in.Flush(ctx)
}

func (a *app) ingestFile(ctx context.Context, in *client.Ingester, name string) error {
	if name == "-" {
		return in.Add(ctx, "stdin", a.stdin)
	}
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	return in.Add(ctx, name, f)
}

func readMapping(format, file string) (*ingest.Mapping, error) {
	if (format == ingest.FormatJSON) != (file != "") {
		return nil, usageError{errors.New("--format json needs --map FILE, and --map needs --format json")}
	}
	if file == "" {
		return nil, nil
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	mapping, err := ingest.ParseMapping(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return mapping, nil
}

// checkFiles finds files that cannot be read before anything is sent.
func checkFiles(names []string) error {
	var all []error
	for _, name := range names {
		if name == "-" {
			continue
		}
		f, err := os.Open(name)
		if err != nil {
			all = append(all, err)
			continue
		}
		if info, err := f.Stat(); err != nil || info.IsDir() {
			all = append(all, errors.Join(err, fmt.Errorf("%s is a folder; name its files, such as %s/*", name, name)))
		}
		_ = f.Close()
	}
	return errors.Join(all...)
}

// progress shows the counts on a terminal, and elsewhere when it takes long.
type progress struct {
	w        io.Writer
	terminal bool
	next     time.Time
	shown    bool
}

const progressEvery = 2 * time.Second

func newProgress(w io.Writer) *progress {
	p := &progress{w: w, next: time.Now().Add(progressEvery)}
	if f, ok := w.(*os.File); ok {
		info, err := f.Stat()
		p.terminal = err == nil && info.Mode()&os.ModeCharDevice != 0
	}
	return p
}

func (p *progress) show(c client.IngestCounts) {
	line := fmt.Sprintf("%d indexed, %d existing, %d refused ...", c.Indexed, c.Existing, c.Refused)
	if p.terminal {
		fmt.Fprintf(p.w, "\r\x1b[K%s", line)
		p.shown = true
		return
	}
	if now := time.Now(); now.After(p.next) {
		fmt.Fprintln(p.w, line)
		p.next = now.Add(progressEvery)
	}
}

// clear takes the line away before something else is written.
func (p *progress) clear() {
	if p.shown {
		fmt.Fprint(p.w, "\r\x1b[K")
		p.shown = false
	}
}
