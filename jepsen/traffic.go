package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"connectrpc.com/connect"

	limiterv1 "github.com/maestro-conductor/maestro/api/gen/mc/limiter/v1"
	provenancev1 "github.com/maestro-conductor/maestro/api/gen/mc/provenance/v1"
	"github.com/maestro-conductor/maestro/internal/client"
)

// Traffic is light on purpose: the run must not depend on a fast machine.
const (
	callTimeout     = 5 * time.Second
	checkPause      = 30 * time.Millisecond // times checkTenants: what the limits are asked for
	ingestPause     = 60 * time.Millisecond
	searchPause     = 30 * time.Millisecond
	registerPause   = 150 * time.Millisecond
	batchDocuments  = 5
	batchesAnExec   = 8
	ingestWorkers   = 3
	searchWorkers   = 3
	registerReaders = 2
	repeatPercent   = 10
	conflictPercent = 5
)

// registers are the limits that carry values, one writer each.
var registers = []string{"register-0", "register-1"}

// outcomeOf says what an error means. An error that the client cannot name may mean anything.
func outcomeOf(err error) string {
	if err == nil {
		return outcomeOK
	}
	var e *client.Error
	if errors.As(err, &e) && e.Outcome == client.OutcomeDefinite {
		return outcomeFailed
	}
	return outcomeUnknown
}

// Traffic calls the region from many workers until it is stopped.
type Traffic struct {
	recorder *Recorder
	seed     uint64
	clients  []*client.Client
	acked    acked

	stop context.CancelFunc
	done sync.WaitGroup
}

// startTraffic starts all workers. Each client begins with another node.
func startTraffic(r *Recorder, seed uint64, clients []*client.Client) *Traffic {
	ctx, stop := context.WithCancel(context.Background())
	t := &Traffic{recorder: r, seed: seed, clients: clients, stop: stop}
	start := func(kind string, n int, pause time.Duration, step func(w *worker)) {
		for i := range n {
			w := &worker{Traffic: t, name: fmt.Sprintf("%s-%d", kind, i), index: i, client: clients[i%len(clients)]}
			w.rand = rand.New(rand.NewPCG(seed, uint64(i)<<8|uint64(kind[0])))
			t.done.Go(func() { w.run(ctx, pause, step) })
		}
	}
	start("check", checkTenants, checkPause, (*worker).check)
	start("lent", lentTenants*lentWorkers, checkPause, (*worker).checkLent)
	start("ingest", ingestWorkers, ingestPause, (*worker).ingest)
	start("search", searchWorkers, searchPause, (*worker).search)
	start("write", len(registers), registerPause, (*worker).writeRegister)
	start("read", registerReaders, registerPause, (*worker).readRegister)
	return t
}

// end stops the workers after the operations under way.
func (t *Traffic) end() {
	t.stop()
	t.done.Wait()
}

// worker does one operation after the other.
type worker struct {
	*Traffic
	name   string
	index  int
	client *client.Client
	rand   *rand.Rand
	count  int // operations so far
	batch  int // batches of new documents so far
}

func (w *worker) run(ctx context.Context, pause time.Duration, step func(*worker)) {
	for ctx.Err() == nil {
		step(w)
		w.count++
		select {
		case <-ctx.Done():
		case <-time.After(pause/2 + time.Duration(w.rand.Int64N(int64(pause)))):
		}
	}
}

// call bounds one call. It does not end with the traffic: an operation under way is finished.
func (w *worker) call() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), callTimeout)
}

// check asks for one tenant, with and without a request id in turn.
func (w *worker) check() { w.checkTenant(checkTenant(w.index), 1) }

// checkLent asks a tenant with limits that are lent out, from several nodes at the same time.
func (w *worker) checkLent() {
	w.checkTenant(lentTenant(w.index/lentWorkers), 1+w.rand.Uint32N(lentCostMax))
}

func (w *worker) checkTenant(tenant string, cost uint32) {
	ctx, cancel := w.call()
	defer cancel()
	op := w.recorder.begin(w.name)
	op.Check = &CheckOp{
		Tenant: tenant, Token: []string{"ana", "ben"}[w.rand.IntN(2)],
		Key: []string{"runs", "builds"}[w.rand.IntN(2)], Cost: cost,
	}
	req := &limiterv1.CheckRequest{Tenant: op.Check.Tenant, Token: op.Check.Token, Key: op.Check.Key, Cost: op.Check.Cost}
	if w.count%2 == 0 {
		req.RequestId = client.NewRequestID()
	}
	resp, err := w.client.Limiter().Check(ctx, connect.NewRequest(req))
	if err == nil {
		op.Check.Allowed = resp.Msg.GetAllow()
	}
	w.recorder.end(op, err)
}

// ingest stores new documents, or sends acknowledged ones again, right or wrong.
func (w *worker) ingest() {
	op := w.recorder.begin(w.name)
	in := &IngestOp{Mode: ingestNew}
	switch n := w.rand.IntN(100); {
	case n < repeatPercent:
		in.Mode = ingestRepeat
	case n < repeatPercent+conflictPercent:
		in.Mode = ingestConflict
	}
	if in.Mode != ingestNew {
		in.Execution, in.IDs = w.acked.pick(w.rand)
	}
	if len(in.IDs) == 0 {
		in.Mode = ingestNew
		in.Execution = fmt.Sprintf("run-%d-%d", w.index, w.batch/batchesAnExec)
		for k := range batchDocuments {
			in.IDs = append(in.IDs, fmt.Sprintf("%s/%d/%d", w.name, w.batch, k))
		}
		w.batch++
	}
	op.Ingest = in
	var docs []*provenancev1.Document
	for _, id := range in.IDs {
		text := content(w.seed, id)
		if in.Mode == ingestConflict {
			text = "not " + text
		}
		docs = append(docs, document(id, in.Execution, text))
	}
	ctx, cancel := w.call()
	defer cancel()
	resp, err := w.client.Provenance().Ingest(ctx, connect.NewRequest(&provenancev1.IngestRequest{
		Documents: docs, RequestId: client.NewRequestID(),
	}))
	if err == nil {
		in.Indexed, in.Existing, in.Refused = int(resp.Msg.GetIndexed()), int(resp.Msg.GetExisting()), int(resp.Msg.GetRefused())
	}
	w.recorder.end(op, err)
	if err == nil && in.Mode == ingestNew {
		w.acked.add(in)
	}
}

// search looks for one acknowledged document, or for all of an execution.
func (w *worker) search() {
	execution, ids := w.acked.pick(w.rand)
	if len(ids) == 0 {
		return
	}
	ctx, cancel := w.call()
	defer cancel()
	if w.rand.IntN(2) == 0 {
		_ = recordSearch(ctx, w.recorder, w.client, w.name, SearchOp{ID: ids[w.rand.IntN(len(ids))]})
	} else {
		_ = recordSearch(ctx, w.recorder, w.client, w.name, SearchOp{Execution: execution})
	}
}

// recordSearch does and records one search; it says why there was no complete answer.
func recordSearch(ctx context.Context, r *Recorder, c *client.Client, name string, s SearchOp) error {
	query := fmt.Sprintf("id:%q", s.ID)
	if s.ID == "" {
		query = fmt.Sprintf("execution:%q", s.Execution)
	}
	op := r.begin(name)
	op.Search = &s
	resp, err := c.Provenance().Search(ctx, connect.NewRequest(&provenancev1.SearchRequest{
		Query: query, Tenant: documentTenant, Limit: 1000, Exact: true,
	}))
	if err == nil {
		s.Complete, s.Total = resp.Msg.GetComplete(), int(resp.Msg.GetTotal().GetValue())
		for _, d := range resp.Msg.GetItems() {
			s.Found = append(s.Found, Found{d.GetId(), d.GetAttributes()["content"]})
		}
	}
	r.end(op, err)
	if err == nil && !s.Complete {
		return errors.New("the answer is incomplete")
	}
	return err
}

// writeRegister writes the next value.
func (w *worker) writeRegister() {
	ctx, cancel := w.call()
	defer cancel()
	_ = recordWrite(ctx, w.recorder, w.client, w.name, WriteOp{registers[w.index], uint32(w.count) + 2})
}

func recordWrite(ctx context.Context, r *Recorder, c *client.Client, name string, write WriteOp) error {
	op := r.begin(name)
	op.Write = &write
	_, err := c.Limiter().SetLimits(ctx, connect.NewRequest(&limiterv1.SetLimitsRequest{
		Limits: []*limiterv1.Limit{register(write.Register, write.Value)}, RequestId: client.NewRequestID(),
	}))
	r.end(op, err)
	return err
}

// readRegister reads one register.
func (w *worker) readRegister() {
	ctx, cancel := w.call()
	defer cancel()
	op := w.recorder.begin(w.name)
	op.Read = &ReadOp{Register: registers[w.count%len(registers)]}
	resp, err := w.client.Limiter().ListLimits(ctx, connect.NewRequest(&limiterv1.ListLimitsRequest{Ids: []string{op.Read.Register}}))
	if err == nil {
		for _, l := range resp.Msg.GetLimits() {
			op.Read.Value = l.GetTokenBucket().GetBurst()
		}
	}
	w.recorder.end(op, err)
}

// acked are the acknowledged batches, which searches and repeats choose from.
type acked struct {
	mu      sync.Mutex
	batches []*IngestOp
}

func (a *acked) add(in *IngestOp) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.batches = append(a.batches, in)
}

// pick returns one batch, of the last ones in half of all cases: they are the most at risk.
func (a *acked) pick(r *rand.Rand) (execution string, ids []string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	from := a.batches
	if r.IntN(2) == 0 {
		from = from[max(0, len(from)-5):]
	}
	if len(from) == 0 {
		return "", nil
	}
	in := from[r.IntN(len(from))]
	return in.Execution, slices.Clone(in.IDs)
}
