package client

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"
	"unicode/utf8"

	limiterv1 "github.com/maestro-conductor/maestro/api/gen/mc/limiter/v1"
)

// newCall puts requests into columns. It refuses what no message can hold; the rest is the node's
// to judge.
func newCall(ctx context.Context, requests []Request) (*call, *Error) {
	m := &limiterv1.CheckStreamRequest{Checks: uint32(len(requests))}
	if at, ok := ctx.Deadline(); ok {
		m.TimeoutMs = uint32(min(max(time.Until(at).Milliseconds(), 1), math.MaxUint32))
	}
	d := dictionaries.Get().(*dictionary)
	defer dictionaries.Put(d)
	m.Tenants, m.TenantAt = d.column(requests, func(r *Request) string { return r.Tenant })
	m.Tokens, m.TokenAt = d.column(requests, func(r *Request) string { return r.Token })
	bytes, ones := 0, true
	for i := range requests {
		r := &requests[i]
		bytes += len(r.Key)
		ones = ones && r.Cost == 1
		if r.RequestID != "" {
			return nil, refused("limit_invalid", fmt.Sprintf("request %d has a request id, which a stream does not take; use Limiter.Check or CheckBatch", i))
		}
		if !utf8.ValidString(r.Key) || !utf8.ValidString(r.Token) || !utf8.ValidString(r.Tenant) {
			return nil, refused("limit_invalid", fmt.Sprintf("a text of request %d is not valid UTF-8", i))
		}
	}
	if bytes > 0 {
		keys := make([]byte, 0, bytes)
		m.KeyBytes = make([]uint32, len(requests))
		for i := range requests {
			keys = append(keys, requests[i].Key...)
			m.KeyBytes[i] = uint32(len(requests[i].Key))
		}
		m.Keys = string(keys)
	}
	if !ones {
		m.Costs = make([]uint32, len(requests))
		for i := range requests {
			m.Costs[i] = requests[i].Cost
		}
	}
	return &call{message: m, answers: make([]Answer, len(requests)), done: make(chan struct{}, 1)}, nil
}

// dictionary finds the different texts of a column.
type dictionary struct{ places map[string]uint32 }

var dictionaries = sync.Pool{New: func() any { return &dictionary{places: map[string]uint32{}} }}

// column returns the different texts, and which of them each request has; no places when all have
// the first, and no texts when that is empty.
func (d *dictionary) column(requests []Request, of func(*Request) string) (texts []string, at []uint32) {
	same := 0
	for same < len(requests) && of(&requests[same]) == of(&requests[0]) {
		same++
	}
	if same == len(requests) {
		if same > 0 && of(&requests[0]) != "" {
			texts = []string{of(&requests[0])}
		}
		return texts, nil
	}
	clear(d.places)
	at = make([]uint32, len(requests))
	for i := range requests {
		text := of(&requests[i])
		place, ok := d.places[text]
		if !ok {
			place = uint32(len(texts))
			d.places[text] = place
			texts = append(texts, text)
		}
		at[i] = place
	}
	clear(d.places) // the pool must not keep the texts
	return texts, at
}

var (
	errCounts  = errors.New("its columns have other lengths than the checks")
	errAllowed = errors.New("a check that is allowed is also denied or failed")
)

// decode takes the columns of an answer apart.
func decode(m *limiterv1.CheckStreamResponse, out []Answer, endpoint string) error {
	allowed := m.GetAllowed()
	if int(m.GetChecks()) != len(out) || len(allowed) != (len(out)+7)/8 {
		return errCounts
	}
	for i := range out {
		out[i] = Answer{Allow: allowed[i/8]>>(i%8)&1 == 1}
	}
	for _, f := range m.GetFailed() {
		if int64(f.GetCheck()) >= int64(len(out)) || out[f.GetCheck()].Allow {
			return errAllowed
		}
		out[f.GetCheck()].Err = failedCheck(f, endpoint)
	}
	for _, i := range m.GetWouldDeny() {
		if int64(i) >= int64(len(out)) {
			return errCounts
		}
		out[i].WouldDeny = true
	}
	for _, i := range m.GetOnFailure() {
		if int64(i) >= int64(len(out)) {
			return errCounts
		}
		out[i].OnFailure = true
	}
	after, at, denials := m.GetRetryAfterMs(), m.GetDenialAt(), m.GetDenials()
	if at != nil && len(at) != len(after) {
		return errCounts
	}
	denied := 0
	for i := range out {
		a := &out[i]
		if a.Allow || a.Err != nil {
			continue
		}
		place := uint32(0)
		if denied >= len(after) {
			return errCounts
		}
		if at != nil {
			place = at[denied]
		}
		if int64(place) >= int64(len(denials)) {
			return errCounts
		}
		d := denials[place]
		a.RetryAfterMs, a.Reason, a.LimitID, a.Kind = after[denied], d.GetReason(), d.GetLimitId(), d.GetKind()
		denied++
	}
	if denied != len(after) {
		return errCounts
	}
	return nil
}

func failedCheck(f *limiterv1.FailedCheck, endpoint string) *Error {
	return &Error{
		Reason: f.GetError().GetReason(), Hint: f.GetError().GetHint(), Outcome: f.GetError().GetOutcome(),
		RetryAfterMs: f.GetError().GetRetryAfterMs(), Endpoint: endpoint,
		Message: fmt.Sprintf("check %d was not decided: %s", f.GetCheck(), f.GetError().GetReason()),
	}
}
