package policies

import (
	"context"
	"fmt"
)

// Recorded is a decision as it was recorded.
type Recorded struct {
	Input    *Input   `json:"input"`
	Decision Decision `json:"decision"`
}

// Replay is what evaluating a recorded decision again has found.
type Replay struct {
	// Identical is true when the same revisions decide the same of the same input.
	Identical bool `json:"identical"`
	// Differences say why it is not.
	Differences []string `json:"differences,omitempty"`
	// Now is what was decided this time.
	Now Decision `json:"now"`
}

// Again evaluates a recorded decision by the packs of the set. The set must hold the packs that decided; where it has another
// revision or content of one, or another decision comes out, that is a difference and no error.
func (s *Set) Again(ctx context.Context, r Recorded) (Replay, error) {
	var names []string
	var out Replay
	differ := func(format string, args ...any) {
		out.Differences = append(out.Differences, fmt.Sprintf(format, args...))
	}
	for _, ref := range r.Decision.Packs {
		p := s.Pack(ref.Name)
		switch {
		case p == nil:
			differ("the pack %s is not there", ref.Name)
			continue
		case p.ref.Digest != ref.Digest:
			differ("the pack %s is revision %d with the content %s; revision %d with %s decided", ref.Name, p.ref.Revision, p.ref.Digest, ref.Revision, ref.Digest)
		case p.ref.Revision != ref.Revision:
			differ("the pack %s is revision %d; revision %d decided", ref.Name, p.ref.Revision, ref.Revision)
		}
		names = append(names, ref.Name)
	}
	if len(names) == 0 {
		return out, refuse(CodeManifest, "", "none of the packs that decided is there")
	}
	var err error
	if out.Now, err = s.Decide(ctx, r.Input, names...); err != nil {
		return out, err
	}
	compare(r.Decision, out.Now, differ)
	out.Identical = len(out.Differences) == 0
	return out, nil
}

// compare says how two decisions differ.
func compare(was, now Decision, differ func(string, ...any)) {
	if was.Allow != now.Allow {
		differ("it was %s and is %s now", verdict(was), verdict(now))
	}
	if waitText(was.RetryAfterMs) != waitText(now.RetryAfterMs) {
		differ("retryAfterMs was %s and is %s now", waitText(was.RetryAfterMs), waitText(now.RetryAfterMs))
	}
	had, has := reasonSet(was), reasonSet(now)
	for _, text := range sortedKeys(had) {
		if !has[text] {
			differ("the reason is not there any more: %s", text)
		}
	}
	for _, text := range sortedKeys(has) {
		if !had[text] {
			differ("the reason is new: %s", text)
		}
	}
}

func verdict(d Decision) string {
	if d.Allow {
		return "allowed"
	}
	return "denied"
}

func waitText(ms *uint64) string {
	if ms == nil {
		return "absent"
	}
	return fmt.Sprint(*ms)
}

func reasonSet(d Decision) map[string]bool {
	set := map[string]bool{}
	for _, r := range d.Reasons {
		set[fmt.Sprintf("%s: %s (retryAfterMs %s)", r.ID, r.Text, waitText(r.RetryAfterMs))] = true
	}
	return set
}
