package client

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
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

// Ingester reads documents from streams and stores them in batches, in order. It is for one
// goroutine.
type Ingester struct {
	// Client stores; Timeout bounds each batch, retries included.
	Client  *Client
	Timeout time.Duration
	// Read says how the streams are read.
	Read ingest.Options
	// Refused is told of each refusal, Progress of the counts after each batch; nil for none.
	Refused  func(IngestRefusal)
	Progress func(IngestCounts)

	counts  IngestCounts
	batch   []*provenancev1.Document
	origins []IngestRefusal // Source and Position of each document of the batch
	bytes   int
}

// Counts are the counts so far.
func (in *Ingester) Counts() IngestCounts { return in.counts }

// Add reads one stream; its last documents may wait for Flush. An error ends the ingest:
// what was counted before is stored, the rest may be sent again.
func (in *Ingester) Add(ctx context.Context, source string, r io.Reader) error {
	err := ingest.Read(r, in.Read, func(item ingest.Item) error {
		origin := IngestRefusal{Source: source, Position: item.Position()}
		if item.Err != nil {
			origin.Reason, origin.Message = item.Err.Reason, item.Err.Error()
			in.refuse(origin)
			return nil
		}
		return in.add(ctx, documentMessage(&item.Document), origin)
	})
	if err != nil {
		return fmt.Errorf("%s: %w", source, err)
	}
	return nil
}

func (in *Ingester) add(ctx context.Context, d *provenancev1.Document, origin IngestRefusal) error {
	size := proto.Size(d) + 8 // the field's own tag and length
	if len(in.batch) == BatchDocuments || (len(in.batch) > 0 && in.bytes+size > BatchBytes) {
		if err := in.Flush(ctx); err != nil {
			return err
		}
	}
	in.batch = append(in.batch, d)
	in.origins = append(in.origins, origin)
	in.bytes += size
	return nil
}

// Flush stores what waits.
func (in *Ingester) Flush(ctx context.Context) error {
	if len(in.batch) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, in.Timeout)
	defer cancel()
	resp, err := in.Client.Provenance().Ingest(ctx, connect.NewRequest(&provenancev1.IngestRequest{
		Documents: in.batch, Tenant: in.Read.Tenant, RequestId: NewRequestID(),
	}))
	if err != nil {
		return err
	}
	in.counts.Indexed += resp.Msg.GetIndexed()
	in.counts.Existing += resp.Msg.GetExisting()
	for _, refusal := range resp.Msg.GetRefusals() {
		var origin IngestRefusal
		if p := int(refusal.GetPosition()); p < len(in.origins) {
			origin = in.origins[p]
		}
		origin.Reason, origin.Message = refusal.GetReason(), refusal.GetMessage()
		in.refuse(origin)
	}
	in.batch, in.origins, in.bytes = nil, in.origins[:0], 0
	if in.Progress != nil {
		in.Progress(in.counts)
	}
	return nil
}

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
