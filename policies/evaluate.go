package policies

import (
	"context"
	"errors"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/metrics"
	"github.com/open-policy-agent/opa/v1/topdown"
)

const (
	// MaxSteps bounds an evaluation of one pack, in expressions of rules that are evaluated. It bounds memory too: with an
	// input of at most MaxInput and functions that make nothing large, what one step keeps is small. A count
	// is the same on every node, as time is not.
	MaxSteps = 20_000
	// maxViolations bounds the reasons of one pack.
	maxViolations = 256

	resultVar = "result"
)

// epoch is the time that packs would see; they have no function that shows it.
var epoch = time.Unix(1, 0)

var noMetrics = metrics.NoOp()

// evalOptions change how an evaluation is done, and never what it finds.
type evalOptions struct {
	// plain evaluates without rule indexes and without leaving a rule early.
	plain bool
	// witness collects the labels of rules that held.
	witness *topdown.EvaluatedRuleTracker
}

// steps ends an evaluation that takes too many steps, or longer than its caller waits. It is asked at each step.
type steps struct {
	ctx  context.Context
	left int
}

func (s *steps) Cancel() { s.left = 0 }

func (s *steps) Cancelled() bool {
	s.left--
	return s.left <= 0 || s.left%16 == 0 && s.ctx.Err() != nil
}

// evaluate finds the violations of an input.
func (p *Pack) evaluate(ctx context.Context, input *ast.Term, o evalOptions) (ast.Set, error) {
	if err := ctx.Err(); err != nil {
		return nil, refuse(CodeTime, p.ref.Name, "%v", err)
	}
	bound := &steps{ctx: ctx, left: MaxSteps}
	cache := ruleCaches.Get().(*ruleCache)
	defer func() {
		cache.reset()
		ruleCaches.Put(cache)
	}()
	query := topdown.NewQuery(p.query).WithCompiler(p.compiler).WithStore(p.store).WithTransaction(p.txn).WithInput(input).
		WithBuiltins(p.builtins).WithStrictBuiltinErrors(true).WithCancel(bound).WithMetrics(noMetrics).WithTime(epoch).
		WithIndexing(!o.plain).WithEarlyExit(!o.plain).WithEvaluatedRuleTracker(o.witness).
		WithVirtualCache(cache).WithBaseCache(noBaseCache{})
	var found ast.Set
	err := query.Iter(ctx, func(r topdown.QueryResult) error {
		found, _ = r[resultVar].Value.(ast.Set)
		return nil
	})
	switch {
	case err == nil && found != nil:
		return found, nil
	case err == nil:
		return nil, refuse(CodeResult, p.ref.Name, "the pack has no set %s", violationSet)
	case bound.left <= 0:
		return nil, refuse(CodeSteps, p.ref.Name, "the evaluation took more than %d steps", MaxSteps)
	case ctx.Err() != nil:
		return nil, refuse(CodeTime, p.ref.Name, "%v", ctx.Err())
	}
	return nil, refuse(CodeEval, p.ref.Name, "%v", err)
}

// reasons reads violations.
func (p *Pack) reasons(found ast.Set) ([]Reason, error) {
	if found.Len() > maxViolations {
		return nil, refuse(CodeResult, p.ref.Name, "the pack gives %d reasons; at most %d are read", found.Len(), maxViolations)
	}
	out := make([]Reason, 0, found.Len())
	err := found.Iter(func(t *ast.Term) error {
		o, ok := t.Value.(ast.Object)
		if !ok {
			return errors.New("a violation is no object")
		}
		r := Reason{Pack: p.ref.Name}
		err := o.Iter(func(k, v *ast.Term) error { return r.set(k, v) })
		if err != nil {
			return err
		}
		rule, known := p.rules[r.ID]
		if !known || r.Text == "" {
			return errors.New("a violation has no rule or no reason")
		}
		r.Rule = rule
		out = append(out, r)
		return nil
	})
	if err != nil {
		return nil, refuse(CodeResult, p.ref.Name, "%v", err)
	}
	return out, nil
}

func (r *Reason) set(k, v *ast.Term) error {
	name, _ := k.Value.(ast.String)
	text, isText := v.Value.(ast.String)
	switch {
	case name == keyRule && isText:
		r.ID = string(text)
	case name == keyReason && isText:
		r.Text = string(text)
	case name == keyRetry:
		n, ok := v.Value.(ast.Number)
		if !ok {
			return errors.New("retryAfterMs is no number")
		}
		ms, ok := n.Int64()
		if !ok || ms < 0 {
			return errors.New("retryAfterMs is no whole number from 0 on")
		}
		wait := uint64(ms)
		r.RetryAfterMs = &wait
	default:
		return errors.New("a violation has rule, reason and retryAfterMs only")
	}
	return nil
}

// witnessed refuses reasons that are not those of the rules that held.
func (p *Pack) witnessed(reasons []Reason, tracker *topdown.EvaluatedRuleTracker) error {
	held := map[string]bool{}
	for _, labels := range tracker.Labels {
		id, _ := labels[keyRule].(string)
		held[id] = true
	}
	given := map[string]bool{}
	for _, r := range reasons {
		given[r.ID] = true
		if !held[r.ID] {
			return refuse(CodeWitness, p.ref.Name, "the reason is of the rule %s, which did not hold", r.ID)
		}
	}
	for _, id := range sortedKeys(held) {
		if !given[id] {
			return refuse(CodeWitness, p.ref.Name, "the rule %s held and gave no reason", id)
		}
	}
	return nil
}
