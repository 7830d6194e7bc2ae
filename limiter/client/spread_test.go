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

	"github.com/maestro-conductor/maestro/limiter"
	"github.com/maestro-conductor/maestro/limiter/client"
)

func someKeys(n int) (all []client.Request) {
	for i := range n {
		all = append(all, client.Request{Key: fmt.Sprint("key-", i/2), Cost: uint32(1 + 2*i)})
	}
	return all
}

// What is asked of one key goes to one node, whatever the order of the endpoints, and keys to all nodes.
func TestSpreadKeepsKeysTogether(t *testing.T) {
	nodes, o := startNodes(t, 3)
	var mu sync.Mutex
	at := map[string]int{}
	for i, n := range nodes {
		n.decide = func(ctx context.Context, all []limiter.Request, out []limiter.Outcome) error {
			mu.Lock()
			defer mu.Unlock()
			for _, r := range all {
				if known, ok := at[r.Key]; ok && known != i {
					t.Errorf("%s was asked at node %d, then at %d", r.Key, known, i)
				}
				at[strings.Clone(r.Key)] = i
			}
			return echo(ctx, all, out)
		}
	}
	for range 2 {
		s, err := client.OpenSpread(o)
		must(t, err)
		requests := someKeys(300)
		answers, err := s.Checks(within(t, time.Minute), requests)
		must(t, err)
		for i, r := range requests {
			if answers[i].RetryAfterMs != r.Cost || answers[i].LimitID != r.Key {
				t.Fatalf("%+v is answered %+v", r, answers[i])
			}
		}
		if answers, err := s.Checks(within(t, time.Minute), nil); err != nil || len(answers) != 0 {
			t.Errorf("nothing: %v, %v", answers, err)
		}
		if _, err := s.Checks(within(t, time.Minute), someKeys(client.MaxChecks+1)); failure(t, err).Reason != "batch_too_large" {
			t.Errorf("too many: %v", err)
		}
		s.Close()
		slices.Reverse(o.Endpoints)
	}
	for i, n := range nodes {
		if n.decided < 60 || n.decided%2 != 0 {
			t.Errorf("node %d decided %d of 600", i, n.decided)
		}
	}
}

// Where one node fails, the others' answers stay.
func TestSpreadTellsWhatFailed(t *testing.T) {
	nodes, o := startNodes(t, 3)
	for i, n := range nodes {
		n.decide = echo
		if i == 1 {
			n.decide = func(context.Context, []limiter.Request, []limiter.Outcome) error { return errors.New("broken") }
		}
	}
	s, err := client.OpenSpread(o)
	must(t, err)
	defer s.Close()
	requests := someKeys(100)
	answers, err := s.Checks(within(t, time.Minute), requests)
	must(t, err)
	failed := 0
	for i, r := range requests {
		if answers[i].Err != nil {
			failed++
			failure(t, answers[i].Err)
		} else if answers[i].RetryAfterMs != r.Cost {
			t.Errorf("%+v is answered %+v", r, answers[i])
		}
	}
	if failed == 0 || failed == len(requests) || nodes[0].decided+nodes[2].decided != len(requests)-failed {
		t.Errorf("%d of %d failed; the nodes decided %d and %d", failed, len(requests), nodes[0].decided, nodes[2].decided)
	}
	for _, n := range nodes {
		n.set(func() {
			n.decide = func(context.Context, []limiter.Request, []limiter.Outcome) error { return errors.New("broken") }
		})
	}
	if answers, err := s.Checks(within(t, time.Minute), requests); err == nil {
		t.Errorf("%v from a region that is broken", answers)
	}
}

func TestSpreadOfWrongOptions(t *testing.T) {
	if s, err := client.OpenSpread(client.Options{Endpoints: []string{"https://127.0.0.1:1", "no address"}}); err == nil {
		s.Close()
		t.Error("no error")
	}
}
