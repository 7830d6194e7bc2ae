package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"github.com/maestro-conductor/maestro/index/ingest"
	"github.com/maestro-conductor/maestro/internal/client"
)

func (a *app) ingestCommand() *cobra.Command {
	var tenant, mapFile, resume string
	format, workers := ingest.FormatAuto, 1
	cmd := &cobra.Command{
		Use:   "ingest [--tenant T] [--format F] [--map FILE] [--workers N] [--resume FILE] FILE...",
		Short: "Store receipts, events and decisions from files",
		Long: `Store every document of the files; - reads stdin. What gzip or zstd has compressed is decompressed. Each document
is indexed, recognised as existing, or refused: refusals go to stderr with file, position and reason, and make the
exit status 1. Ingesting again changes nothing.

Formats: auto (receipts, in-toto and CloudEvents), receipt (our JSON), intoto (statements, bare, in DSSE or in
sigstore bundles), cloudevents (structured or a batch), json (any JSON or JSON lines, with --map).

With --workers above 1 several batches are under way at a time: faster, but of different documents under one id it
is then open which comes first and which is refused. --resume keeps in a file how far each source is stored; the
next run with it goes on from there, after an interruption or with what was appended to the files since.

Exit status: 0 when every document is stored, 1 when some were refused or the ingest ended early (stderr says which),
2 when the command line is not valid.`,
		Example: `  maestro ingest --tenant acme attestations/*
  maestro ingest --tenant acme --format json --map cloudtrail.yaml events/*.json.gz
  maestro ingest --workers 4 --resume receipts.state receipts.jsonl.zst
  kubectl logs build | maestro ingest --tenant acme -o json -`,
		Args: cobra.MinimumNArgs(1),
	}
	f := cmd.Flags()
	f.StringVar(&tenant, "tenant", "", "owner of documents that name none (default: the context's tenant)")
	f.Var(&choice{&format, []string{ingest.FormatAuto, ingest.FormatReceipt, ingest.FormatInToto, ingest.FormatCloudEvents, ingest.FormatJSON}}, "format", "auto, receipt, intoto, cloudevents or json")
	f.StringVar(&mapFile, "map", "", "mapping file, for --format json")
	f.IntVar(&workers, "workers", 1, fmt.Sprintf("batches under way at a time, 1 to %d", ingestWorkersMax))
	f.StringVar(&resume, "resume", "", "file that keeps how far each source is stored; it is made when it is missing")
	cmd.RunE = a.action(func(ctx context.Context, files []string) error {
		if workers < 1 || workers > ingestWorkersMax {
			return usageError{fmt.Errorf("--workers %d: it must be 1 to %d", workers, ingestWorkersMax)}
		}
		mapping, err := readMapping(format, mapFile)
		if err != nil {
			return err
		}
		run := &ingestRun{app: a, skips: map[string]int{}}
		if run.state, err = loadResume(resume); err != nil {
			return err
		}
		if err := run.check(files); err != nil {
			return err
		}
		c, tenant, err := a.connect(tenant)
		if err != nil {
			return err
		}
		defer c.Close()
		run.progress = newProgress(a.stderr, run.size, &run.read)
		run.in = &client.Ingester{
			Client: c, Timeout: a.timeout, Workers: workers,
			Read:    ingest.Options{Format: format, Tenant: tenant, Mapping: mapping},
			Refused: run.refused, Progress: run.stored, Decided: run.state.decided,
		}
		return run.report(run.files(ctx, files), tenant)
	})
	return cmd
}

// ingestWorkersMax bounds --workers: a tenant may have half of a node's room.
const ingestWorkersMax = 32

// ingestRun is one run of the command.
type ingestRun struct {
	app      *app
	in       *client.Ingester
	state    *resumeState
	skips    map[string]int // documents of each source that an earlier run has stored
	progress *progress
	size     int64        // bytes of all files, 0 when not known
	read     atomic.Int64 // bytes read of them
	unsaved  error        // why the state could not be written
}

// check finds files that cannot be read before anything is sent.
func (r *ingestRun) check(names []string) error {
	var all []error
	known := true
	for _, name := range names {
		if _, again := r.skips[name]; again {
			all = append(all, fmt.Errorf("%s is named twice", name))
		}
		size, err := r.checkFile(name)
		all = append(all, err)
		known = known && size > 0
		r.size += size
	}
	if !known {
		r.size = 0
	}
	return errors.Join(all...)
}

// checkFile returns the file's size, 0 when that is not known.
func (r *ingestRun) checkFile(name string) (size int64, err error) {
	if name == "-" {
		r.skips[name], err = r.state.skip(stdinName, nil)
		return 0, err
	}
	f, err := os.Open(name)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	if info.IsDir() {
		return 0, fmt.Errorf("%s is a folder; name its files, such as %s/*", name, name)
	}
	r.skips[name], err = r.state.skip(name, f)
	return info.Size(), err
}

// stdinName is what stdin is called.
const stdinName = "stdin"

// files stores all files. What was read before a failure of one is stored all the same.
func (r *ingestRun) files(ctx context.Context, names []string) error {
	var err error
	for _, name := range names {
		if err = r.file(ctx, name); err != nil {
			break
		}
	}
	return errors.Join(err, r.in.Flush(ctx))
}

func (r *ingestRun) file(ctx context.Context, name string) error {
	source, from := name, r.app.stdin
	if name == "-" {
		source = stdinName
	} else {
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		defer f.Close()
		from = f
	}
	in, err := openInput(countingReader{from, &r.read})
	if err != nil {
		return fmt.Errorf("%s: %w", source, err)
	}
	return errors.Join(r.in.Add(ctx, source, in, r.skips[name]), in.Close())
}

func (r *ingestRun) refused(refusal client.IngestRefusal) {
	r.progress.clear()
	fmt.Fprintf(r.app.stderr, "refused: %s: %s: %s: %s\n", refusal.Source, refusal.Position, refusal.Reason, refusal.Message)
}

func (r *ingestRun) stored(c client.IngestCounts) {
	r.progress.show(c)
	if err := r.state.save(time.Now(), false); err != nil && r.unsaved == nil {
		r.unsaved = err
	}
}

// report prints what came of the run.
func (r *ingestRun) report(err error, tenant string) error {
	r.progress.clear()
	err = errors.Join(err, r.unsaved, r.state.save(time.Now(), true))
	counts := r.in.Counts()
	printErr := r.app.print(counts, func(w io.Writer) {
		fmt.Fprintf(w, "%d indexed, %d existing, %d refused\n", counts.Indexed, counts.Existing, counts.Refused)
	})
	if err == nil && printErr == nil && counts.Refused > 0 {
		if tenant == "" {
			fmt.Fprintln(r.app.stderr, "hint: documents that name no tenant need --tenant, or a tenant in the context")
		}
		return errReported
	}
	if err != nil {
		err = hinted{err, r.hint(err)}
	}
	return errors.Join(err, printErr)
}

// hint says how to go on after a failure.
func (r *ingestRun) hint(err error) string {
	var h hinted
	var e *client.Error
	switch {
	case errors.As(err, &h):
		return h.hint
	case errors.As(err, &e) && e.Hint != "":
		return e.Hint
	}
	return "run the same command again: what is stored is recognised"
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

// progress shows counts, speed and, where the size is known, the part that was read: on a terminal
// all the time, and elsewhere when it takes long.
type progress struct {
	w        io.Writer
	terminal bool
	start    time.Time
	next     time.Time
	shown    bool
	size     int64
	read     *atomic.Int64
}

const progressEvery = 2 * time.Second

func newProgress(w io.Writer, size int64, read *atomic.Int64) *progress {
	now := time.Now()
	p := &progress{w: w, start: now, next: now.Add(progressEvery), size: size, read: read}
	if f, ok := w.(*os.File); ok {
		info, err := f.Stat()
		p.terminal = err == nil && info.Mode()&os.ModeCharDevice != 0
	}
	return p
}

func (p *progress) show(c client.IngestCounts) {
	now := time.Now()
	line := p.line(c, now)
	if p.terminal {
		fmt.Fprintf(p.w, "\r\x1b[K%s", line)
		p.shown = true
		return
	}
	if now.After(p.next) {
		fmt.Fprintln(p.w, line)
		p.next = now.Add(progressEvery)
	}
}

func (p *progress) line(c client.IngestCounts, now time.Time) string {
	line := fmt.Sprintf("%d indexed, %d existing, %d refused", c.Indexed, c.Existing, c.Refused)
	if took := now.Sub(p.start); took >= time.Second {
		line += fmt.Sprintf(", %.0f/s", float64(c.Indexed+c.Existing+c.Refused)/took.Seconds())
	}
	if p.size > 0 {
		line += fmt.Sprintf(", %d%% read", min(100, 100*p.read.Load()/p.size))
	}
	return line + " ..."
}

// clear takes the line away before something else is written.
func (p *progress) clear() {
	if p.shown {
		fmt.Fprint(p.w, "\r\x1b[K")
		p.shown = false
	}
}
