package node

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/maestro-conductor/maestro/api"
	"github.com/maestro-conductor/maestro/index"
	"github.com/maestro-conductor/maestro/node/meta"
	"github.com/maestro-conductor/maestro/pkgstore"
	"github.com/maestro-conductor/maestro/pkgstore/mwpkg"
)

const (
	// uploadSweep is how often the leader of meta looks for uploads that have expired.
	uploadSweep = time.Minute
	// receiptsMax bounds the receipts that wait for the index. Beyond it they are counted and lost: a
	// verification never waits for its receipt.
	receiptsMax = 4096
	// receiptsBatch is how many are stored at once, and receiptTries how often a batch is tried.
	receiptsBatch = 256
	receiptTries  = 5
	receiptWait   = 10 * time.Second
)

// newCatalog makes the catalog of packages, whose receipts go to the index.
func (n *Node) newCatalog(run *running) (*pkgstore.Service, *receipts) {
	r := newReceipts(n.services, n.cfg.Region, n.log, n.registry)
	return pkgstore.NewService(pkgstore.Options{
		Store: run.meta, Receipts: r, Pacer: n.pacer, Clock: n.clock.Now, CursorKey: run.meta.CursorKey, BytesMax: n.cfg.Packages.BytesMax, Metrics: n.registry,
	}), r
}

// Packages is the catalog, once it stands.
func (s *services) Packages() (api.Packages, error) {
	r, err := s.get()
	if err != nil {
		return nil, err
	}
	return r.catalog, nil
}

// LoadPackage verifies what a tenant has installed under a name and opens it, for runners on this node. A
// node that may not know of revocations refuses: api.ErrMetaStale.
func (s *services) LoadPackage(ctx context.Context, tenant, name, by string) (*mwpkg.Package, error) {
	r, err := s.get()
	if err != nil {
		return nil, err
	}
	if !r.fresh.Fresh() {
		return nil, api.ErrMetaStale
	}
	_, p, err := r.catalog.Load(ctx, tenant, name, by)
	return p, err
}

// sweepUploads runs at the leader of meta: it removes uploads that nobody goes on with. A region without any
// is not written to.
func (n *Node) sweepUploads(ctx context.Context, tables *meta.Machine) {
	if !n.awaitStarted(ctx) {
		return
	}
	tick := time.NewTicker(uploadSweep)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		if found, err := tables.HasUploads(); err != nil || !found {
			continue
		}
		if _, err := n.services.running.Load().meta.SweepUploads(ctx); err != nil && ctx.Err() == nil {
			n.log.Warn("uploads of packages not swept", "err", err)
		}
	}
}

// receipts takes the receipts of the catalog to the index, as documents.
type receipts struct {
	ingest func(ctx context.Context, docs []index.Document, requestID string) (index.IngestResult, error)
	region string
	log    *slog.Logger
	queue  chan pkgstore.Receipt

	stored, lost, failed prometheus.Counter
}

func newReceipts(s *services, region string, log *slog.Logger, r prometheus.Registerer) *receipts {
	counter := func(result string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{
			Name: "mc_pkg_receipts_total", ConstLabels: prometheus.Labels{"result": result},
			Help: "Receipts of verifications by what became of them: stored; lost, since too many waited for the index; failed, since the index did not take them.",
		})
	}
	c := &receipts{
		ingest: s.Ingest, region: region, log: log, queue: make(chan pkgstore.Receipt, receiptsMax),
		stored: counter("stored"), lost: counter("lost"), failed: counter("failed"),
	}
	r.MustRegister(c.stored, c.lost, c.failed, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "mc_pkg_receipts_waiting", Help: "Receipts of verifications that wait for the index.",
	}, func() float64 { return float64(len(c.queue)) }))
	return c
}

// Record implements pkgstore.Receipts.
func (c *receipts) Record(r pkgstore.Receipt) {
	select {
	case c.queue <- r:
	default:
		c.lost.Inc()
	}
}

// run stores receipts until ctx ends, and then what is left, once.
func (c *receipts) run(ctx context.Context) {
	for {
		select {
		case r := <-c.queue:
			c.store(ctx, c.batch(r), receiptTries)
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
			defer cancel()
			for last.Err() == nil {
				select {
				case r := <-c.queue:
					c.store(last, c.batch(r), 1)
				default:
					return
				}
			}
			return
		}
	}
}

// batch is a receipt and those that wait behind it.
func (c *receipts) batch(first pkgstore.Receipt) []index.Document {
	docs := []index.Document{c.document(first)}
	for len(docs) < receiptsBatch {
		select {
		case r := <-c.queue:
			docs = append(docs, c.document(r))
		default:
			return docs
		}
	}
	return docs
}

// document is a receipt as the index keeps it. Its id is drawn: two loads of one package are two documents, and
// a batch that is sent again is recognised.
func (c *receipts) document(r pkgstore.Receipt) index.Document {
	var id [16]byte
	rand.Read(id[:]) // never fails: crypto/rand ends the process instead
	d := index.Document{
		ID: "pkg-" + hex.EncodeToString(id[:]), Kind: index.KindReceipt, Tenant: r.Tenant, Region: c.region, Time: r.At,
		Pack: r.Package, Task: "package." + string(r.Stage), Decision: "allow", Reason: r.Reason,
		Attributes: []index.Attribute{{Name: "package.by", Value: r.By}, {Name: "package.stage", Value: string(r.Stage)}},
	}
	if r.Reason != "" {
		d.Decision = "deny"
	}
	var none pkgstore.Digest
	if r.Digest != none {
		d.Digests = append(d.Digests, index.Digest{Algorithm: "sha256", Value: r.Digest.String(), Direction: index.DirectionSubject, Name: "content"})
	}
	d.Digests = append(d.Digests, index.Digest{Algorithm: "sha256", Value: r.Archive.String(), Direction: index.DirectionSubject, Name: "archive"})
	if r.Key != none {
		d.Attributes = append(d.Attributes, index.Attribute{Name: "package.key", Value: r.Key.String()})
	}
	if r.Message != "" {
		d.Attributes = append(d.Attributes, index.Attribute{Name: "package.message", Value: r.Message[:min(len(r.Message), index.MaxReasonBytes)]})
	}
	return d
}

func (c *receipts) store(ctx context.Context, docs []index.Document, tries int) {
	good := docs[:0]
	for i := range docs {
		if err := index.Normalize(&docs[i]); err != nil {
			c.failed.Inc()
			c.log.Warn("a receipt of a package is no document", "err", err)
			continue
		}
		good = append(good, docs[i])
	}
	for try := 1; ; try++ {
		attempt, cancel := context.WithTimeout(ctx, receiptWait)
		_, err := c.ingest(attempt, good, "")
		cancel()
		if err == nil {
			c.stored.Add(float64(len(good)))
			return
		}
		if try == tries || ctx.Err() != nil {
			c.failed.Add(float64(len(good)))
			c.log.Warn("receipts of packages not stored", "receipts", len(good), "err", err)
			return
		}
		pause(ctx, jobRetry)
	}
}
