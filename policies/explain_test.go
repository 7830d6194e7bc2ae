package policies

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// TestReplayIsIdentical: every recorded decision comes out again from its record, by other packs of the same content.
func TestReplayIsIdentical(t *testing.T) {
	first, second := builtInSet(t), builtInSet(t)
	rapid.Check(t, func(t *rapid.T) {
		in := anInput(t)
		d, err := first.Decide(context.Background(), in)
		if err != nil {
			t.Fatal(err)
		}
		record, err := json.Marshal(Recorded{in, d})
		if err != nil {
			t.Fatal(err)
		}
		var read Recorded
		if err := json.Unmarshal(record, &read); err != nil {
			t.Fatal(err)
		}
		r, err := second.Again(context.Background(), read)
		if err != nil || !r.Identical {
			t.Fatalf("%+v, %v", r, err)
		}
	})
}

// TestReplaySaysWhatDiffers: a record that was changed, and packs that were, are told apart.
func TestReplaySaysWhatDiffers(t *testing.T) {
	set := builtInSet(t)
	in := benchInput()
	in.Limits["key"]["exports"] = Limit{Kind: KindRate, Limit: 10, Used: 10, RetryAfterMs: 900}
	d, err := set.Decide(t.Context(), in)
	if err != nil || d.Allow {
		t.Fatal(d, err)
	}
	forged := d
	forged.Allow, forged.Reasons, forged.RetryAfterMs = true, nil, nil
	r, err := set.Again(t.Context(), Recorded{in, forged})
	if err != nil || r.Identical || !strings.Contains(strings.Join(r.Differences, "\n"), "it was allowed and is denied now") {
		t.Errorf("a forged record: %+v, %v", r, err)
	}
	p, err := Compile(builtLimits(t, 9))
	if err != nil {
		t.Fatal(err)
	}
	later, err := NewSet(set.Pack("mc.authz"), p, set.Pack("mc.packages"))
	if err != nil {
		t.Fatal(err)
	}
	r, err = later.Again(t.Context(), Recorded{in, d})
	if err != nil || r.Identical || len(r.Differences) != 1 || !strings.Contains(r.Differences[0], "revision 9") {
		t.Errorf("another revision: %+v, %v", r, err)
	}
	only, err := NewSet(set.Pack("mc.authz"))
	if err != nil {
		t.Fatal(err)
	}
	if r, err = only.Again(t.Context(), Recorded{in, d}); err != nil || r.Identical {
		t.Errorf("packs that are gone: %+v, %v", r, err)
	}
}

// TestWhatIf: the changes that are named are enough, each is needed, and what cannot be cured has none.
func TestWhatIf(t *testing.T) {
	set := builtInSet(t)
	what := func(in *Input) []string {
		c, err := set.WhatIf(t.Context(), in)
		if err != nil {
			t.Fatal(err)
		}
		var out []string
		for _, ch := range c.Changes {
			out = append(out, strings.TrimSpace(ch.What+" "+ch.Where)+": "+ch.Was+" -> "+ch.Needed)
		}
		return out
	}
	in := benchInput()
	if got := what(in); got != nil {
		t.Errorf("an allowed request needs %v", got)
	}
	in.Limits["key"]["exports"] = Limit{Kind: KindRate, Limit: 10, Used: 10, RetryAfterMs: 900}
	in.Limits["tenant"]["acme-api"] = Limit{Kind: KindRate, Limit: 1000, Used: 1000, RetryAfterMs: 5}
	if got, want := what(in), []string{"limit key/exports: 10 -> 11", "limit tenant/acme-api: 1000 -> 1001"}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	in.Action, in.Subject.Roles = "package.install", []string{"reader"}
	in.Package = &PackageFacts{Name: "acme/x", Publisher: "acme", Signers: []string{"k"}}
	if got, want := what(in), []string{"limit key/exports: 10 -> 11", "limit tenant/acme-api: 1000 -> 1001", "role: reader -> operator"}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	in.Package.Signers = nil
	if got := what(in); got != nil {
		t.Errorf("an unsigned package would be allowed by %v", got)
	}
}
