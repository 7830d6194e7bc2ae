package client_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/maestro-conductor/maestro/api"
	"github.com/maestro-conductor/maestro/limiter"
	"github.com/maestro-conductor/maestro/limiter/client"
	"github.com/maestro-conductor/maestro/raftfsm"
)

func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// failure is the *Error that every error of Checks is.
func failure(t *testing.T, err error) *client.Error {
	t.Helper()
	var e *client.Error
	if !errors.As(err, &e) {
		t.Fatalf("%T is no *client.Error: %v", err, err)
	}
	return e
}

// Requests arrive as they were asked, whatever they have in common, and each gets its own answer.
func TestChecks(t *testing.T) {
	nodes, s := startRegion(t, 1)
	var asked []limiter.Request
	nodes[0].decide = func(ctx context.Context, all []limiter.Request, out []limiter.Outcome) error {
		for _, r := range all {
			asked = append(asked, limiter.Request{Tenant: r.Tenant, Token: strings.Clone(r.Token), Key: strings.Clone(r.Key), Cost: r.Cost})
		}
		err := echo(ctx, all, out)
		for i, r := range all {
			switch r.Token {
			case "lost":
				out[i].Err = &raftfsm.Error{Op: "propose", Outcome: raftfsm.OutcomeUnknown, Err: raftfsm.ErrLost}
			case "watched":
				out[i].Decision.Levels = []limiter.Level{{Shadow: true, WouldDeny: true}}
			}
		}
		return err
	}
	for _, requests := range [][]client.Request{
		{},
		{{Cost: 1}},
		{{Tenant: "acme", Token: "t", Key: "k", Cost: 1}, {Tenant: "acme", Token: "t", Key: "k", Cost: 1}},
		{{Tenant: "acme", Cost: 0}, {Token: "lost", Cost: 3}, {Token: "watched", Key: "ö", Cost: 2}, {Tenant: "acme", Token: "watched", Key: "k", Cost: 5}, {Key: "k", Cost: 7}},
	} {
		asked = nil
		answers, err := s.Checks(within(t, time.Minute), requests)
		must(t, err)
		for i, r := range requests {
			want := limiter.Request{Tenant: "acme", Token: r.Token, Key: r.Key, Cost: r.Cost}
			if asked[i] != want {
				t.Errorf("asked %+v, want %+v", asked[i], want)
			}
			a := answers[i]
			if r.Token == "lost" {
				if e := failure(t, a.Err); e.Reason != "lost" || e.Outcome != client.OutcomeUnknown || a.Allow {
					t.Errorf("a check that was lost: %+v", a)
				}
				continue
			}
			answer := client.Answer{Allow: true, WouldDeny: r.Token == "watched"}
			if r.Cost%2 == 1 {
				answer = client.Answer{RetryAfterMs: r.Cost, Reason: "limited", LimitID: r.Key, Kind: "window", WouldDeny: r.Token == "watched"}
			}
			if a != answer {
				t.Errorf("%+v is answered %+v, want %+v", r, a, answer)
			}
		}
		if len(asked) != len(requests) || len(answers) != len(requests) {
			t.Errorf("%d requests, %d asked, %d answers", len(requests), len(asked), len(answers))
		}
	}
}

// Many goroutines share a stream, and none gets the answer of another.
func TestChecksOfManyGoroutines(t *testing.T) {
	nodes, s := startRegion(t, 1)
	ctx := within(t, time.Minute)
	var all sync.WaitGroup
	for w := range 32 {
		all.Go(func() {
			for n := range 20 {
				cost := uint32(1 + 2*(w*20+n))
				answers, err := s.Checks(ctx, slices.Repeat([]client.Request{{Key: fmt.Sprint(w), Cost: cost}}, 1+n))
				if err != nil {
					t.Error(err)
					return
				}
				for _, a := range answers {
					if a.RetryAfterMs != cost || a.LimitID != fmt.Sprint(w) {
						t.Errorf("worker %d asked %d and was answered %+v", w, cost, a)
					}
				}
			}
		})
	}
	all.Wait()
	if want := 32 * 20 * 21 / 2; nodes[0].decided != want {
		t.Errorf("%d checks were decided, want %d", nodes[0].decided, want)
	}
}

// A node that stops under load costs no call: what it has read it answers, the rest goes elsewhere,
// and nothing is decided twice.
func TestNodeStops(t *testing.T) {
	nodes, s := startRegion(t, 2)
	ctx := within(t, time.Minute)
	var all sync.WaitGroup
	stopped := make(chan struct{})
	const workers, calls = 8, 200
	for w := range workers {
		all.Go(func() {
			for n := range calls {
				if w == 0 && n == calls/4 {
					go func() { nodes[0].stop(); close(stopped) }()
				}
				if _, err := s.Checks(ctx, []client.Request{{Cost: 2}}); err != nil {
					t.Errorf("call %d: %v", n, err)
				}
			}
		})
	}
	all.Wait()
	<-stopped
	if first, second := nodes[0].decided, nodes[1].decided; first+second != workers*calls || second == 0 {
		t.Errorf("%d and %d checks were decided, want %d together", first, second, workers*calls)
	}
}

// A connection that breaks under a call leaves its outcome unknown, and is made anew by the next.
func TestConnectionBreaks(t *testing.T) {
	nodes, s := startRegion(t, 1)
	entered, release := make(chan struct{}, 1), make(chan struct{})
	nodes[0].set(func() {
		nodes[0].decide = func(ctx context.Context, all []limiter.Request, out []limiter.Outcome) error {
			entered <- struct{}{}
			<-release
			return echo(ctx, all, out)
		}
	})
	failed := make(chan error, 1)
	go func() {
		_, err := s.Checks(within(t, time.Minute), []client.Request{{Cost: 2}})
		failed <- err
	}()
	<-entered
	nodes[0].cut()
	if e := failure(t, <-failed); e.Outcome != client.OutcomeUnknown || e.Code != connect.CodeUnavailable {
		t.Errorf("got %+v", e)
	}
	nodes[0].set(func() { nodes[0].decide = echo })
	close(release)
	if answers, err := s.Checks(within(t, time.Minute), []client.Request{{Cost: 2}}); err != nil || !answers[0].Allow {
		t.Errorf("afterwards: %v, %v", answers, err)
	}
}

// A context that ends leaves the outcome of its call unknown, takes its deadline to the node, and
// disturbs no other call.
func TestContextEnds(t *testing.T) {
	nodes, s := startRegion(t, 1)
	entered := make(chan struct{}, 1)
	nodes[0].decide = func(ctx context.Context, all []limiter.Request, out []limiter.Outcome) error {
		if all[0].Cost == 4 {
			if at, ok := ctx.Deadline(); !ok || time.Until(at) > 20*time.Second || time.Until(at) < 5*time.Second {
				t.Errorf("the node has until %v", at)
			}
			entered <- struct{}{}
			<-ctx.Done()
			return ctx.Err()
		}
		return echo(ctx, all, out)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	ctx, interrupt := context.WithCancel(ctx)
	failed := make(chan error, 1)
	go func() {
		_, err := s.Checks(ctx, []client.Request{{Cost: 4}})
		failed <- err
	}()
	<-entered
	interrupt()
	if e := failure(t, <-failed); e.Outcome != client.OutcomeUnknown || e.Reason != "interrupted" {
		t.Errorf("got %+v", e)
	}
	s.Close()
	if e := failure(t, errorOf(s.Checks(t.Context(), []client.Request{{Cost: 2}}))); e.Outcome != client.OutcomeDefinite {
		t.Errorf("after Close: %+v", e)
	}
}

func errorOf(_ []client.Answer, err error) error { return err }

// What cannot be is refused by name, and nothing was done.
func TestRefusals(t *testing.T) {
	nodes, s := startRegion(t, 1)
	for _, c := range []struct {
		reason   string
		requests []client.Request
	}{
		{"batch_too_large", make([]client.Request, client.MaxChecks+1)},
		{"limit_invalid", []client.Request{{}, {Key: "\xff"}}},
		{"tenant_foreign", []client.Request{{Tenant: "globex"}}},
		{"field_too_long", []client.Request{{Key: strings.Repeat("k", api.MaxKeyBytes+1)}}},
	} {
		e := failure(t, errorOf(s.Checks(within(t, time.Minute), c.requests)))
		if e.Reason != c.reason || e.Outcome != client.OutcomeDefinite || e.Message == "" {
			t.Errorf("got %+v, want %s", e, c.reason)
		}
	}
	nodes[0].set(func() { nodes[0].denied = api.ErrTokenRevoked })
	e := failure(t, errorOf(s.Checks(within(t, time.Minute), []client.Request{{Cost: 2}})))
	if e.Reason != "token_revoked" || e.Code != connect.CodeUnauthenticated || e.Outcome != client.OutcomeDefinite || e.Hint == "" {
		t.Errorf("got %+v", e)
	}
	if nodes[0].decided != 0 {
		t.Errorf("%d checks were decided", nodes[0].decided)
	}
	nodes[0].set(func() { nodes[0].denied = nil })
	if _, err := s.Checks(within(t, time.Minute), []client.Request{{Cost: 2}}); err != nil {
		t.Errorf("with a good token: %v", err)
	}
}

// A message for which there is no room is sent again when the node says so.
func TestOverload(t *testing.T) {
	nodes, s := startRegion(t, 1)
	refusals := 3
	nodes[0].decide = func(ctx context.Context, all []limiter.Request, out []limiter.Outcome) error {
		if refusals > 0 {
			refusals--
			return raftfsm.ErrOverloaded
		}
		return echo(ctx, all, out)
	}
	if answers, err := s.Checks(within(t, time.Minute), []client.Request{{Cost: 2}}); err != nil || !answers[0].Allow || refusals != 0 {
		t.Errorf("%v, %v, with %d refusals left", answers, err, refusals)
	}
}

// Without a node, a call waits for one until its context ends, and nothing was done.
func TestUnreachable(t *testing.T) {
	nodes, s := startRegion(t, 2)
	nodes[0].stop()
	nodes[1].stop()
	e := failure(t, errorOf(s.Checks(within(t, 200*time.Millisecond), []client.Request{{Cost: 2}})))
	if e.Outcome != client.OutcomeDefinite || e.Reason != "unreachable" && e.Reason != "timeout" {
		t.Errorf("got %+v", e)
	}
}
