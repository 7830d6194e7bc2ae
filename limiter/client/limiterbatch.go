package client

import (
	"context"
	"fmt"

	"connectrpc.com/connect"

	limiterv1 "github.com/maestro-conductor/maestro/api/gen/mc/limiter/v1"
)

// Outcome is what became of one request of a batch: a decision, or an *Error.
type Outcome struct {
	Decision Decision
	Err      error
}

// CheckBatch decides at most MaxChecks requests without request ids, each for itself: those that leases
// let pass first, and the others with one message to a node. The error is an *Error, and then nothing
// was done.
func (l *Limiter) CheckBatch(ctx context.Context, all []Request) ([]Outcome, error) {
	if len(all) > MaxChecks {
		return nil, refused("batch_too_large", fmt.Sprintf("%d checks in one batch, more than the %d allowed", len(all), MaxChecks))
	}
	for i := range all {
		if all[i].RequestID != "" {
			return nil, refused("limit_invalid", fmt.Sprintf("checks[%d].request_id: is not taken in a batch; send the check alone", i))
		}
	}
	out := make([]Outcome, len(all))
	var others []int
	var w waiting
	defer w.end()
	for i := range all {
		d, ok := l.checkHere(ctx, &all[i], &w)
		if out[i].Decision = d; !ok {
			others = append(others, i)
		}
	}
	if len(others) > 0 {
		l.askNodeAll(ctx, all, others, out)
	}
	return out, nil
}

// askNodeAll lets the region decide the requests at places.
func (l *Limiter) askNodeAll(ctx context.Context, all []Request, places []int, out []Outcome) {
	message := &limiterv1.CheckBatchRequest{Checks: make([]*limiterv1.CheckRequest, len(places))}
	for at, i := range places {
		message.Checks[at] = checkMessage(&all[i])
	}
	var results []*limiterv1.CheckResult
	failed, err := l.ask(ctx, func(ctx context.Context) error {
		resp, err := l.client.Limiter().CheckBatch(ctx, connect.NewRequest(message))
		if err == nil {
			results = resp.Msg.GetResults()
		}
		return err
	})
	for at, i := range places {
		switch {
		case err != nil:
			out[i].Err = err
		case failed || at >= len(results):
			out[i].Decision = l.fail()
		case results[at].GetError() != nil:
			e := results[at].GetError()
			out[i].Err = &Error{
				Code: connect.CodeUnavailable, Reason: e.GetReason(), Hint: e.GetHint(), Outcome: e.GetOutcome(), RetryAfterMs: e.GetRetryAfterMs(),
				Message: "the check was not decided: " + e.GetReason(),
			}
		default:
			l.asked.Add(1)
			out[i].Decision = decisionOf(results[at].GetDecision())
		}
	}
}
