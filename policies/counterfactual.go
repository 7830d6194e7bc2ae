package policies

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
)

const (
	// maxChanges bounds how many changes together are tried.
	maxChanges = 4
	// maxTried bounds how many inputs are evaluated in a search.
	maxTried = 500
)

// Roles that a search tries to give, the lowest first.
var searchedRoles = []string{"reader", "runner", "publisher", "operator", "admin"}

// Change is one thing about an input that could have been another.
type Change struct {
	// What is role, limit, quota or cost.
	What string `json:"what"`
	// Where names the limit, as LEVEL/ID, or the quota. It is empty for others.
	Where string `json:"where,omitempty"`
	Was   string `json:"was"`
	// Needed is the least that would have been enough.
	Needed string `json:"needed"`

	apply func(*Input)
}

// Counterfactual is what would have allowed a denied request.
type Counterfactual struct {
	// Changes are needed all together, and none of them can be left out. None when nothing was found.
	Changes []Change `json:"changes,omitempty"`
	// Tried is how many inputs were evaluated; Bounded is true when the search ended for that, and not because nothing was left.
	Tried   int  `json:"tried"`
	Bounded bool `json:"bounded,omitempty"`
}

// WhatIf searches for the fewest changes of the input's limits, quotas and roles that the packs called names would have allowed; all
// packs without names. Room in limits is preferred to a higher role. A request that is allowed needs none.
func (s *Set) WhatIf(ctx context.Context, in *Input, names ...string) (Counterfactual, error) {
	out := Counterfactual{}
	allowed := func(changes []Change) (bool, error) {
		out.Tried++
		d, err := s.Decide(ctx, changed(in, changes), names...)
		return d.Allow, err
	}
	if ok, err := allowed(nil); ok || err != nil {
		return out, err
	}
	candidates := changesOf(in)
	for size := 1; size <= min(maxChanges, len(candidates)); size++ {
		found, err := combinations(candidates, size, func(changes []Change) (bool, error) {
			if out.Tried >= maxTried {
				out.Bounded = true
				return true, nil
			}
			ok, err := allowed(changes)
			if ok {
				out.Changes = slices.Clone(changes)
			}
			return ok, err
		})
		if found || err != nil {
			return out, err
		}
	}
	return out, nil
}

// combinations calls try with each combination of size candidates, of which no two change the same, until it is true.
func combinations(candidates []Change, size int, try func([]Change) (bool, error)) (bool, error) {
	chosen := make([]Change, 0, size)
	var step func(from int) (bool, error)
	step = func(from int) (bool, error) {
		if len(chosen) == size {
			return try(chosen)
		}
		for i := from; i < len(candidates); i++ {
			c := candidates[i]
			if slices.ContainsFunc(chosen, func(o Change) bool { return o.What == c.What && o.Where == c.Where }) {
				continue
			}
			chosen = append(chosen, c)
			if done, err := step(i + 1); done || err != nil {
				return done, err
			}
			chosen = chosen[:len(chosen)-1]
		}
		return false, nil
	}
	return step(0)
}

// changed is a copy of in with changes.
func changed(in *Input, changes []Change) *Input {
	out := *in
	out.Limits = map[string]map[string]Limit{}
	for level, of := range in.Limits {
		out.Limits[level] = maps.Clone(of)
	}
	out.Quotas = maps.Clone(in.Quotas)
	for _, c := range changes {
		c.apply(&out)
	}
	return &out
}

// changesOf are the changes that a search tries: for each limit and quota without room the least that has it, and
// each role that the subject does not have.
func changesOf(in *Input) []Change {
	var out []Change
	for _, level := range sortedKeys(in.Limits) {
		for _, id := range sortedKeys(in.Limits[level]) {
			l := in.Limits[level][id]
			need := l.Used + in.Cost
			switch {
			case l.Kind == KindBanned:
				out = append(out, Change{What: "limit", Where: level + "/" + id, Was: KindBanned, Needed: "not banned", apply: func(i *Input) { delete(i.Limits[level], id) }})
			case need > l.Limit && need >= l.Used: // no limit is above the largest number
				l.Limit = need
				out = append(out, Change{
					What: "limit", Where: level + "/" + id, Was: fmt.Sprint(in.Limits[level][id].Limit), Needed: fmt.Sprint(need),
					apply: func(i *Input) { i.Limits[level][id] = l },
				})
			}
		}
	}
	for _, name := range sortedKeys(in.Quotas) {
		q := in.Quotas[name]
		if need := q.Used + in.Cost; need > q.Limit && need >= q.Used {
			q.Limit = need
			out = append(out, Change{What: "quota", Where: name, Was: fmt.Sprint(in.Quotas[name].Limit), Needed: fmt.Sprint(need), apply: func(i *Input) { i.Quotas[name] = q }})
		}
	}
	for _, role := range searchedRoles {
		if !slices.Contains(in.Subject.Roles, role) {
			roles := append(slices.Clone(in.Subject.Roles), role)
			out = append(out, Change{What: "role", Was: strings.Join(in.Subject.Roles, ", "), Needed: role, apply: func(i *Input) { i.Subject.Roles = roles }})
		}
	}
	return out
}
