package api

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	provenancev1 "github.com/maestro-conductor/maestro/api/gen/mc/provenance/v1"
	"github.com/maestro-conductor/maestro/index"
	"github.com/maestro-conductor/maestro/index/ingest"
)

func (s *server) ingest(ctx context.Context, c *call, r *provenancev1.IngestRequest) (*provenancev1.IngestResponse, error) {
	if s.deps.Index == nil {
		return nil, ErrServiceOff
	}
	if f := firstFault(withinBytes("request_id", r.GetRequestId(), MaxRequestIDBytes),
		withinItems("documents", len(r.GetDocuments()), MaxBatchDocuments)); f != nil {
		return nil, f
	}
	b := &batch{who: c.principal, tenant: r.GetTenant(), region: s.deps.Region}
	switch {
	case b.tenant == "" && b.who.Tenant != AllTenants:
		b.tenant = b.who.Tenant
	case b.tenant != "":
		if f := mayReach(b.who, b.tenant); f != nil {
			return nil, f
		}
	}
	b.documents = make([]index.Document, 0, len(r.GetDocuments()))
	for _, m := range r.GetDocuments() {
		b.addMessage(m)
	}
	if f := b.addRecords(r); f != nil {
		return nil, f
	}
	res, err := s.store(ctx, b, r.GetRequestId())
	if err != nil {
		return nil, err
	}
	s.metrics.documents.WithLabelValues("indexed").Add(float64(res.GetIndexed()))
	s.metrics.documents.WithLabelValues("existing").Add(float64(res.GetExisting()))
	s.metrics.documents.WithLabelValues("refused").Add(float64(res.GetRefused()))
	return res, nil
}

// store hands what is good to the index and accounts for every document of the request.
func (s *server) store(ctx context.Context, b *batch, requestID string) (*provenancev1.IngestResponse, error) {
	var stored index.IngestResult
	if len(b.documents) > 0 {
		if requestID != "" {
			// Two tenants may choose the same id without knowing of each other.
			requestID = b.who.Tenant + "/" + requestID
		}
		var err error
		if stored, err = s.deps.Index.Ingest(ctx, b.documents, requestID); err != nil {
			return nil, ingestFault(err)
		}
	}
	for _, refused := range stored.Refusals {
		b.refusals = append(b.refusals, &provenancev1.Refusal{
			Position: b.positions[refused.Position], Id: refused.ID, Reason: refused.Reason, Message: refused.Message,
		})
	}
	slices.SortFunc(b.refusals, func(x, y *provenancev1.Refusal) int { return cmp.Compare(x.Position, y.Position) })
	res := &provenancev1.IngestResponse{
		Indexed: uint32(stored.Indexed), Existing: uint32(stored.Existing), Refused: uint32(len(b.refusals)),
		Refusals: b.refusals, Positions: make([]*provenancev1.ShardPosition, len(stored.Positions)),
	}
	for _, at := range stored.ExistingAt {
		res.ExistingPositions = append(res.ExistingPositions, b.positions[at])
	}
	for i, p := range stored.Positions {
		res.Positions[i] = &provenancev1.ShardPosition{Shard: p.Shard, AppliedIndex: p.Applied}
	}
	return res, nil
}

// ingestFault keeps what the index says of a batch that was taken in part.
func ingestFault(err error) error {
	var partly *index.IngestError
	if !errors.As(err, &partly) {
		return err
	}
	f := faultOf(err, true)
	f.message = fmt.Sprintf("%d documents are decided and %d are not acknowledged, because %s; send the batch again: what is stored is recognised",
		partly.Stored, partly.Unknown, f.message)
	return f
}

// batch collects the documents of one request.
type batch struct {
	who Principal
	// tenant is for documents that name none; it may be empty for the platform.
	tenant string
	region string

	documents []index.Document
	// positions[i] is where documents[i] was in the request.
	positions []uint32
	refusals  []*provenancev1.Refusal
	next      uint32
}

func (b *batch) addMessage(m *provenancev1.Document) {
	d, refused := documentOf(m)
	if d.Tenant == "" {
		d.Tenant = b.tenant
	}
	if refused == nil {
		refused = b.tenantRefusal(&d)
	}
	if refused == nil {
		if err := index.Normalize(&d); err != nil && !errors.As(err, &refused) {
			refused = &index.DocumentError{Reason: reasonInternal.name, Message: reasonInternal.title}
		}
	}
	b.add(d, refused, "")
}

// add takes the next document of the request, normalised, or why it is refused.
func (b *batch) add(d index.Document, refused *index.DocumentError, where string) {
	position := b.next
	b.next++
	if refused != nil {
		b.refusals = append(b.refusals, &provenancev1.Refusal{
			Position: position, Id: d.ID, Reason: refused.Reason, Message: shorten(where + refused.Error()),
		})
		return
	}
	if d.Region == "" {
		d.Region = b.region
	}
	b.documents = append(b.documents, d)
	b.positions = append(b.positions, position)
}

func (b *batch) tenantRefusal(d *index.Document) *index.DocumentError {
	switch {
	case d.Tenant == "":
		return &index.DocumentError{
			Reason: reasonTenantMissing.name, Field: "tenant",
			Message: "the document names no tenant, nor does the request, and the identity belongs to none",
		}
	case b.who.Tenant != AllTenants && d.Tenant != b.who.Tenant:
		return &index.DocumentError{
			Reason: reasonTenantForeign.name, Field: "tenant",
			Message: fmt.Sprintf("the identity belongs to tenant %s and cannot store documents of another", b.who.Tenant),
		}
	}
	return nil
}

// errBatchFull ends the reading of records.
var errBatchFull = errors.New("the batch is full")

// addRecords reads the records, which count after the documents. A fault refuses the whole
// request: nothing has been stored yet.
func (b *batch) addRecords(r *provenancev1.IngestRequest) *fault {
	var mapping *ingest.Mapping
	if r.GetMapping() != "" {
		var err error
		if mapping, err = ingest.ParseMapping([]byte(r.GetMapping())); err != nil {
			return refuse(reasonMappingMalformed, "%v", err)
		}
	}
	for i, record := range r.GetRecords() {
		opts := ingest.Options{Format: record.GetFormat(), Tenant: b.tenant}
		if opts.Format == ingest.FormatJSON {
			opts.Mapping = mapping
		}
		err := ingest.Read(bytes.NewReader(record.GetContent()), opts, func(item ingest.Item) error {
			if b.next >= MaxBatchDocuments {
				return errBatchFull
			}
			refused := item.Err
			if refused == nil {
				refused = b.tenantRefusal(&item.Document)
			}
			b.add(item.Document, refused, fmt.Sprintf("records[%d], %s: ", i, item.Position()))
			return nil
		})
		switch {
		case errors.Is(err, errBatchFull):
			return refuse(reasonBatchTooLarge, "the request holds more than the %d documents allowed, counting those in its records", MaxBatchDocuments)
		case err != nil:
			return refuse(reasonFieldMalformed, "records[%d]: %v", i, err)
		}
	}
	return nil
}
