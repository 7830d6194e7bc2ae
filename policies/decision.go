package policies

import (
	"cmp"
	"slices"
)

// Decision is what packs found.
type Decision struct {
	Allow bool `json:"allow"`
	// Reasons are why it was denied, by pack, rule and text; none when it was allowed.
	Reasons []Reason `json:"reasons,omitempty"`
	// RetryAfterMs is the longest wait of the reasons. It is nil when one of them is not cured by time.
	RetryAfterMs *uint64 `json:"retryAfterMs,omitempty"`
	// Packs are the revisions that decided, by name.
	Packs []PackRef `json:"packs"`
}

// Reason is one denial.
type Reason struct {
	Pack string `json:"pack"`
	Rule
	// Text says what this request met.
	Text string `json:"reason"`
	// RetryAfterMs is when time will have cured it, and nil when it does not.
	RetryAfterMs *uint64 `json:"retryAfterMs,omitempty"`
}

// conclude makes a decision of all reasons.
func conclude(packs []PackRef, reasons []Reason) Decision {
	d := Decision{Allow: len(reasons) == 0, Reasons: reasons, Packs: packs}
	if d.Allow {
		return d
	}
	slices.SortFunc(d.Reasons, func(a, b Reason) int {
		return cmp.Or(cmp.Compare(a.Pack, b.Pack), cmp.Compare(a.ID, b.ID), cmp.Compare(a.Text, b.Text), cmp.Compare(wait(a), wait(b)))
	})
	var longest uint64
	for _, r := range reasons {
		if r.RetryAfterMs == nil {
			return d
		}
		longest = max(longest, *r.RetryAfterMs)
	}
	d.RetryAfterMs = &longest
	return d
}

func wait(r Reason) uint64 {
	if r.RetryAfterMs == nil {
		return 0
	}
	return *r.RetryAfterMs
}
