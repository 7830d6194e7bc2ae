package client

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"sync"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	"github.com/maestro-conductor/maestro/api"
	provenancev1 "github.com/maestro-conductor/maestro/api/gen/mc/provenance/v1"
	"github.com/maestro-conductor/maestro/index"
	"github.com/maestro-conductor/maestro/index/ingest"
)

// Bounds of one batch of Ingester. A single document may be larger than the bytes; it then
// travels alone.
const (
	BatchDocuments = 1000
	BatchBytes     = 2 << 20
)

// NewRequestID returns a request id that nobody else uses.
func NewRequestID() string { return rand.Text() }

// IngestCounts account for every document of an Ingester so far.
type IngestCounts struct {
	Indexed  uint32 `json:"indexed"`
	Existing uint32 `json:"existing"`
	Refused  uint32 `json:"refused"`
}

// IngestRefusal is a document that was not taken.
type IngestRefusal struct {
	// Source names the stream, Position where in it, such as "line 3".
	Source, Position string
	// Reason is a stable code; Message says what is wrong and how to mend it.
	Reason, Message string
}

// Ingester reads documents from streams and stores them in batches. Its methods are for one
// goroutine.
type Ingester struct {
	// Client stores; Timeout bounds each batch, retries included.
	Client  *Client
	Timeout time.Duration
	// Read says how the streams are read.
	Read ingest.Options
	// Workers is how many batches are under way at a time; 0 means 1, which alone stores documents
	// in the order of the streams.
	Workers int
	// Refused is told of each refusal, Progress of the counts after each batch, and Decided that the
	// first so many documents of a source need not be sent again; nil for none. They are called one
	// at a time.
	Refused  func(IngestRefusal)
	Progress func(IngestCounts)
	Decided  func(source string, documents int)

	batch   *ingestBatch
	slots   chan struct{}
	sending sync.WaitGroup

	mu      sync.Mutex // guards what is below, and the calls of the functions above
	counts  IngestCounts
	failed  error
	pending []*ingestBatch // in the order of the streams, from the first that is not decided
}

// ingestBatch is some documents on their way.
type ingestBatch struct {
	documents []*provenancev1.Document
	origins   []IngestRefusal // Source and Position of each
	bytes     int
	// read is how many documents of each source were read up to the end of this batch, those that
	// could not be read included.
	read    map[string]int
	decided bool
}

// Counts are the counts so far.
func (in *Ingester) Counts() IngestCounts {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.counts
}

// Add reads one stream, but for its first skip documents; its last documents may wait for Flush.
// An error ends the ingest: what was counted before is stored, the rest may be sent again.
func (in *Ingester) Add(ctx context.Context, source string, r io.Reader, skip int) error {
	read := 0
	err := ingest.Read(r, in.Read, func(item ingest.Item) error {
		if read++; read <= skip {
			return nil
		}
		if err := in.failure(); err != nil {
			return err
		}
		origin := IngestRefusal{Source: source, Position: item.Position()}
		if item.Err != nil {
			origin.Reason, origin.Message = item.Err.Reason, item.Err.Error()
			in.mu.Lock()
			in.refuse(origin)
			in.mu.Unlock()
			in.open().read[source] = read
			return nil
		}
		return in.add(ctx, documentMessage(&item.Document), origin, read)
	})
	if err != nil && in.failure() == nil {
		return fmt.Errorf("%s: %w", source, err)
	}
	return err
}

// open is the batch that documents are added to.
func (in *Ingester) open() *ingestBatch {
	if in.batch == nil {
		in.batch = &ingestBatch{read: map[string]int{}}
	}
	return in.batch
}

func (in *Ingester) add(ctx context.Context, d *provenancev1.Document, origin IngestRefusal, read int) error {
	size := proto.Size(d) + 8 // the field's own tag and length
	if b := in.open(); len(b.documents) == BatchDocuments || (len(b.documents) > 0 && b.bytes+size > BatchBytes) {
		if err := in.dispatch(ctx); err != nil {
			return err
		}
	}
	b := in.open()
	b.documents = append(b.documents, d)
	b.origins = append(b.origins, origin)
	b.bytes += size
	b.read[origin.Source] = read
	return nil
}

// Flush stores what waits, and waits for what is under way.
func (in *Ingester) Flush(ctx context.Context) error {
	if in.batch != nil {
		if err := in.dispatch(ctx); err != nil {
			in.sending.Wait()
			return err
		}
	}
	in.sending.Wait()
	return in.failure()
}

// dispatch sends the open batch as soon as a worker is free.
func (in *Ingester) dispatch(ctx context.Context) error {
	if in.slots == nil {
		in.slots = make(chan struct{}, max(1, in.Workers))
	}
	select {
	case in.slots <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	b := in.batch
	in.batch = nil
	in.mu.Lock()
	err := in.failed
	if err == nil {
		in.pending = append(in.pending, b)
	}
	in.mu.Unlock()
	if err != nil {
		<-in.slots
		return err
	}
	in.sending.Go(func() {
		defer func() { <-in.slots }()
		in.store(ctx, b)
	})
	return nil
}

// store sends one batch and accounts for it.
func (in *Ingester) store(ctx context.Context, b *ingestBatch) {
	answer := &provenancev1.IngestResponse{}
	if len(b.documents) > 0 {
		ctx, cancel := context.WithTimeout(ctx, in.Timeout)
		defer cancel()
		resp, err := in.Client.Provenance().Ingest(ctx, connect.NewRequest(&provenancev1.IngestRequest{
			Documents: b.documents, Tenant: in.Read.Tenant, RequestId: NewRequestID(),
		}))
		if err != nil {
			in.fail(err)
			return
		}
		answer = resp.Msg
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	in.counts.Indexed += answer.GetIndexed()
	in.counts.Existing += answer.GetExisting()
	for _, refusal := range answer.GetRefusals() {
		var origin IngestRefusal
		if p := int(refusal.GetPosition()); p < len(b.origins) {
			origin = b.origins[p]
		}
		origin.Reason, origin.Message = refusal.GetReason(), refusal.GetMessage()
		in.refuse(origin)
	}
	b.decided = true
	in.advance()
	if in.Progress != nil {
		in.Progress(in.counts)
	}
}

// advance tells how far everything is decided.
func (in *Ingester) advance() {
	for len(in.pending) > 0 && in.pending[0].decided {
		if in.Decided != nil {
			for source, n := range in.pending[0].read {
				in.Decided(source, n)
			}
		}
		in.pending = in.pending[1:]
	}
}

func (in *Ingester) failure() error {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.failed
}

// fail keeps the first failure: later ones are often its consequence.
func (in *Ingester) fail(err error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.failed == nil {
		in.failed = err
	}
}

// refuse is called with the lock held.
func (in *Ingester) refuse(r IngestRefusal) {
	in.counts.Refused++
	if in.Refused != nil {
		in.Refused(r)
	}
}

// documentMessage is a document on the wire. One that has no time, not even the stamp of a
// region, travels without any, so that the region stamps it.
func documentMessage(d *index.Document) *provenancev1.Document {
	m := api.DocumentMessage(d)
	if d.TimeStamped && d.Time == 0 {
		m.Time = nil
	}
	return m
}
