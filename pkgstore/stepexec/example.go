package stepexec

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/maestro-conductor/maestro/pkgstore/mwpkg"
)

// RunExample runs the package with an example's inputs and secrets, instead of those of o, and
// compares what becomes of it with what the example expects: mismatches has a line for each
// difference.
func RunExample(ctx context.Context, o Options, e mwpkg.Example) (report *Report, mismatches []string, err error) {
	o.Inputs = e.Inputs
	o.Secret = func(_ context.Context, input, _ string) (string, error) {
		secret, ok := e.Secrets[input]
		if !ok {
			return "", fmt.Errorf("the example gives none for %s", input)
		}
		return secret, nil
	}
	report, err = Run(ctx, o)
	if err != nil {
		return nil, nil, err
	}
	return report, compare(report, e.Expect), nil
}

func compare(r *Report, want mwpkg.Expect) []string {
	var out []string
	differ := func(what string, got, want any) {
		// Numbers come from YAML as int and from outputs as int64; as text they are the same.
		if fmt.Sprint(got) != fmt.Sprint(want) {
			out = append(out, fmt.Sprintf("%s is %v; the example expects %v", what, got, want))
		}
	}
	differ("the run", r.Status, want.Status)
	steps := map[string]string{}
	for _, s := range r.Steps {
		steps[s.ID] = s.Status
	}
	for _, id := range slices.Sorted(maps.Keys(want.Steps)) {
		differ("step "+id, steps[id], want.Steps[id])
	}
	for _, name := range slices.Sorted(maps.Keys(want.Outputs)) {
		got, ok := r.Outputs[name]
		if !ok {
			got = "absent"
		}
		differ("output "+name, got, want.Outputs[name])
	}
	return out
}
