package client

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"

	limiterv1 "github.com/maestro-conductor/maestro/api/gen/mc/limiter/v1"
	"github.com/maestro-conductor/maestro/internal/client"
	"github.com/maestro-conductor/maestro/internal/clock"
)

const (
	// patience is how long a call waits for tokens that it has asked for, and then for a node's decision.
	patience = time.Second
	// awayFor is for how long the region is not asked again after it could not be reached.
	awayFor = 200 * time.Millisecond
	// waitsMax is for how many messages a check waits.
	waitsMax = 4
	// tickEvery is how often leases are looked after, and tickIdle how often it is looked whether there
	// are any.
	tickEvery = 20 * time.Millisecond
	tickIdle  = 100 * time.Millisecond
)

// Sources of a Decision, besides the region's own, which Decision.Source tells too.
const (
	// SourceLease: tokens that this process, or the node that was asked, holds.
	SourceLease = "lease"
	// SourceFailure: the region could not be asked, and LimiterOptions.OnFailure has decided; or a node could not
	// ask a group, and the limits' own onFailure has.
	SourceFailure = "failure"
)

// ReasonAway is the reason of a denial because the region could not be asked.
const ReasonAway = "region_away"

// OnFailure says what becomes of checks that the region would have to decide but cannot.
type OnFailure string

// The empty OnFailure is FailDeny.
const (
	FailDeny OnFailure = "deny"
	FailOpen OnFailure = "open"
)

// LimiterOptions are what a Limiter needs.
type LimiterOptions struct {
	Options
	OnFailure OnFailure
}

// Limiter decides most checks in this process, from tokens that the region has lent to it:
//   - A first check of a tenant, token and key goes to a node. Later ones are decided here when all
//     limits that match are lent, and otherwise go to a node too: requests with a request id, cost 0,
//     small limits, those with slots or access, and tokens that are scarce.
//   - No more passes than the limits admit, whatever becomes of this process: what it has left when it
//     dies is missing until the deadline of its leases, at most a minute, and no longer.
//   - Tokens that nobody here asks for, that others need, or that are left at Close go back.
//   - While the region cannot be reached, leases are spent to their deadline. Changes of limits are not
//     seen meanwhile. What leases do not let pass is decided by OnFailure, and counted in Stats.
//
// It is safe for many goroutines. Use Close, or what it holds is missing for a while.
type Limiter struct {
	client    *client.Client
	onFailure OnFailure
	holder    uint64
	clock     *clock.Fast
	table     *leaseTable
	// away is until when the region counts as unreachable.
	away atomic.Int64

	asked, failedOpen, failedDeny atomic.Uint64

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

// Decision is what became of one Request.
type Decision struct {
	Allow bool
	// WouldDeny is true when a limit that only watches would have denied.
	WouldDeny bool
	// RetryAfterMs, Reason, LimitID and Kind are as in Answer.
	RetryAfterMs uint32
	Reason       string
	LimitID      string
	Kind         string
	// Version is that of the limits that decided; 0 when OnFailure has.
	Version uint32
	Source  string
	// Mode is empty, or "shadow" or "off" when limits only watch or do not count at all.
	Mode   string
	Levels []Level
}

// Level is the state of one part of a limit that matched.
type Level struct {
	LimitID, Scope, Kind string
	// Limit is the most that can be taken at once, and Remaining how many tokens are left, as far as is
	// known here.
	Limit, Remaining  uint32
	Shadow, WouldDeny bool
}

// Stats count since the start.
type Stats struct {
	// Local checks were decided in this process, and Asked ones by a node.
	Local, Asked uint64
	// FailedOpen and FailedDeny were decided by OnFailure.
	FailedOpen, FailedDeny uint64
	// Recalled counts requests to give tokens back.
	Recalled uint64
	// Leases is how many counters are known now; Connected tells whether a node lends.
	Leases    int
	Connected bool
	// Failure is why the last connection ended, or was not made; empty while Connected.
	Failure string
}

// NewLimiter makes a Limiter, which connects by itself. The error says which option is wrong.
func NewLimiter(o LimiterOptions) (*Limiter, error) {
	switch o.OnFailure {
	case "":
		o.OnFailure = FailDeny
	case FailDeny, FailOpen:
	default:
		return nil, fmt.Errorf("%w: OnFailure is %q; it is %q or %q", client.ErrOptions, o.OnFailure, FailDeny, FailOpen)
	}
	c, err := client.New(o.Options)
	if err != nil {
		return nil, err
	}
	system, err := clock.System()
	if err != nil {
		return nil, fmt.Errorf("limiter client: %w", err)
	}
	var random [8]byte
	_, _ = rand.Read(random[:]) // never fails: crypto/rand ends the process instead
	l := &Limiter{client: c, onFailure: o.OnFailure, holder: binary.LittleEndian.Uint64(random[:]) | 1, clock: clock.NewFast(system)}
	l.table = newLeaseTable(l.clock.Steady)
	l.ctx, l.cancel = context.WithCancel(context.Background())
	l.wg.Go(l.connect)
	l.wg.Go(l.upkeep)
	return l, nil
}

// Close gives back what is held, waits until the region knows or ctx ends, and ends what runs. Checks
// afterwards fail.
func (l *Limiter) Close(ctx context.Context) {
	for range 2 { // what was under way brings more
		for _, landed := range l.table.giveAllBack() {
			select {
			case <-landed:
			case <-ctx.Done():
			}
		}
	}
	l.cancel()
	l.wg.Wait()
	l.client.Close()
}

// Check decides one request. The error is an *Error: the caller's context has ended, or the request or
// the identity is refused. A region that is away is no error; see OnFailure.
func (l *Limiter) Check(ctx context.Context, r Request) (Decision, error) {
	var w waiting
	d, ok := l.checkHere(ctx, &r, &w)
	if w.end(); ok {
		return d, nil
	}
	return l.askNode(ctx, &r)
}

// checkHere decides a request from leases, if they let it pass.
func (l *Limiter) checkHere(ctx context.Context, r *Request, w *waiting) (d Decision, ok bool) {
	if r.Cost == 0 || r.RequestID != "" {
		return d, false
	}
	var asked uint64
	for range waitsMax + 1 {
		d, v, wait := l.table.check(r, &asked)
		if v == passes {
			return d, true
		}
		if v == elsewhere || !w.await(ctx, wait) {
			break
		}
	}
	return d, false
}

// waiting is what is left of the patience of a call, which all its checks share.
type waiting struct {
	timer *time.Timer // nil before the first wait
	over  bool
}

// await waits for an answer of the node, unless the patience is over.
func (w *waiting) await(ctx context.Context, landed <-chan struct{}) bool {
	if w.over {
		return false
	}
	if w.timer == nil {
		w.timer = time.NewTimer(patience)
	}
	select {
	case <-landed:
		return true
	case <-w.timer.C:
		w.over = true
	case <-ctx.Done():
	}
	return false
}

func (w *waiting) end() {
	if w.timer != nil {
		w.timer.Stop()
	}
}

// askNode lets the region decide.
func (l *Limiter) askNode(ctx context.Context, r *Request) (d Decision, err error) {
	failed, err := l.ask(ctx, func(ctx context.Context) error {
		resp, err := l.client.Limiter().Check(ctx, connect.NewRequest(checkMessage(r)))
		if err == nil {
			d = decisionOf(resp.Msg)
		}
		return err
	})
	switch {
	case err != nil:
		return Decision{}, err
	case failed:
		return l.fail(), nil
	}
	l.asked.Add(1)
	return d, nil
}

// ask makes one call. failed means that the region cannot be asked now; an error is the caller's affair.
func (l *Limiter) ask(ctx context.Context, call func(context.Context) error) (failed bool, err error) {
	if l.ctx.Err() != nil {
		return false, &Error{Code: connect.CodeCanceled, Reason: client.ReasonInterrupted, Message: "the limiter was closed by its owner", Outcome: OutcomeDefinite}
	}
	if l.clock.Steady() < l.away.Load() {
		return true, nil
	}
	within, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	err = call(within)
	if err == nil || ctx.Err() != nil || !isAway(err) {
		return false, err
	}
	l.away.Store(l.clock.Steady() + int64(awayFor))
	return true, nil
}

func checkMessage(r *Request) *limiterv1.CheckRequest {
	return &limiterv1.CheckRequest{Tenant: r.Tenant, Token: r.Token, Key: r.Key, Cost: r.Cost, RequestId: r.RequestID}
}

// isAway tells whether an error means that the region cannot decide now.
func isAway(err error) bool {
	var e *Error
	if !errors.As(err, &e) {
		return false
	}
	switch e.Code {
	case connect.CodeUnavailable, connect.CodeDeadlineExceeded, connect.CodeCanceled, connect.CodeResourceExhausted,
		connect.CodeAborted, connect.CodeInternal, connect.CodeUnknown:
		return e.Reason != client.ReasonTLSUntrusted
	}
	return false
}

// fail decides what nobody else can.
func (l *Limiter) fail() Decision {
	if l.onFailure == FailOpen {
		l.failedOpen.Add(1)
		return Decision{Allow: true, Source: SourceFailure}
	}
	l.failedDeny.Add(1)
	return Decision{Reason: ReasonAway, RetryAfterMs: uint32(patience.Milliseconds()), Source: SourceFailure}
}

// Stats are the counts of now.
func (l *Limiter) Stats() Stats {
	l.table.mu.Lock()
	defer l.table.mu.Unlock()
	s := l.table.counts
	s.Asked, s.FailedOpen, s.FailedDeny = l.asked.Load(), l.failedOpen.Load(), l.failedDeny.Load()
	s.Leases, s.Connected = len(l.table.leases), l.table.online
	return s
}

func decisionOf(m *limiterv1.CheckResponse) Decision {
	return Decision{
		Allow: m.GetAllow(), WouldDeny: m.GetWouldDeny(), RetryAfterMs: m.GetRetryAfterMs(), Reason: m.GetReason(),
		LimitID: m.GetLimitId(), Kind: m.GetKind(), Version: m.GetLimitsVersion(), Source: m.GetSource(), Mode: m.GetMode(),
		Levels: levelsOf(m.GetLevels()),
	}
}

func levelsOf(all []*limiterv1.Level) []Level {
	out := make([]Level, len(all))
	for i, l := range all {
		out[i] = Level{
			LimitID: l.GetLimitId(), Scope: l.GetScope(), Kind: l.GetKind(), Limit: l.GetLimit(), Remaining: l.GetRemaining(),
			Shadow: l.GetShadow(), WouldDeny: l.GetWouldDeny(),
		}
	}
	return out
}
