package policies

import (
	"context"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/open-policy-agent/opa/v1/topdown"
)

// Set is packs that decide together: a request is allowed when all of them allow it. It is not changed once made.
type Set struct {
	packs []*Pack
	refs  []PackRef
}

// NewSet makes a set of packs, each name once. A set without packs allows nothing.
func NewSet(packs ...*Pack) (*Set, error) {
	s := &Set{packs: slices.Clone(packs)}
	slices.SortFunc(s.packs, func(a, b *Pack) int { return strings.Compare(a.ref.Name, b.ref.Name) })
	for i, p := range s.packs {
		if i > 0 && s.packs[i-1].ref.Name == p.ref.Name {
			return nil, refuse(CodeManifest, p.ref.Name, "two packs have this name")
		}
		s.refs = append(s.refs, p.ref)
	}
	return s, nil
}

// Packs are the packs of the set, by name.
func (s *Set) Packs() []*Pack { return slices.Clone(s.packs) }

// Pack is the pack of a name, nil when there is none.
func (s *Set) Pack(name string) *Pack {
	for _, p := range s.packs {
		if p.ref.Name == name {
			return p
		}
	}
	return nil
}

// Decide evaluates the packs called names, all of them without names. An error is an *Error and no decision:
// whoever asks must deny.
func (s *Set) Decide(ctx context.Context, in *Input, names ...string) (Decision, error) {
	return s.decide(ctx, in, names, false)
}

func (s *Set) decide(ctx context.Context, in *Input, names []string, plain bool) (Decision, error) {
	packs, refs := s.packs, s.refs
	if len(names) > 0 {
		packs, refs = nil, nil
		for _, name := range names {
			p := s.Pack(name)
			if p == nil {
				return Decision{}, refuse(CodeManifest, quoted(name), "there is no active pack of this name")
			}
			packs, refs = append(packs, p), append(refs, p.ref)
		}
	}
	if len(packs) == 0 {
		return Decision{}, refuse(CodeManifest, "", "no pack is active")
	}
	input, err := in.value()
	if err != nil {
		return Decision{}, err
	}
	var reasons []Reason
	for _, p := range packs {
		found, err := p.evaluate(ctx, input, evalOptions{plain: plain})
		if err != nil {
			return Decision{}, err
		}
		if found.Len() == 0 {
			continue
		}
		// A denial is evaluated once more, to hear from the evaluator itself which rules held.
		tracker := &topdown.EvaluatedRuleTracker{}
		if found, err = p.evaluate(ctx, input, evalOptions{plain: plain, witness: tracker}); err != nil {
			return Decision{}, err
		}
		of, err := p.reasons(found)
		if err == nil {
			err = p.witnessed(of, tracker)
		}
		if err != nil {
			return Decision{}, err
		}
		reasons = append(reasons, of...)
	}
	return conclude(refs, reasons), nil
}

// Engine holds the set that is active. The zero Engine has none, and decides nothing.
type Engine struct {
	active atomic.Pointer[Set]
}

// Activate makes s the set that decides from now on. Decisions under way end with the set that they began with.
func (e *Engine) Activate(s *Set) { e.active.Store(s) }

// Replace activates p in the place of the pack of its name, or beside the others.
func (e *Engine) Replace(p *Pack) error {
	for {
		old := e.active.Load()
		packs := []*Pack{p}
		if old != nil {
			for _, other := range old.packs {
				if other.ref.Name != p.ref.Name {
					packs = append(packs, other)
				}
			}
		}
		s, err := NewSet(packs...)
		if err != nil {
			return err
		}
		if e.active.CompareAndSwap(old, s) {
			return nil
		}
	}
}

// Active is the set that decides now, nil when there is none.
func (e *Engine) Active() *Set { return e.active.Load() }

// Decide is Decide of the active set.
func (e *Engine) Decide(ctx context.Context, in *Input, names ...string) (Decision, error) {
	s := e.active.Load()
	if s == nil {
		return Decision{}, refuse(CodeManifest, "", "no pack is active")
	}
	return s.Decide(ctx, in, names...)
}
