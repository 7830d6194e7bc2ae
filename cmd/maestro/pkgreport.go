package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/maestro-conductor/maestro/pkgstore/mwpkg"
	"github.com/maestro-conductor/maestro/pkgstore/stepexec"
)

// showStep says on standard error how far the run is.
func (a *app) showStep(s stepexec.StepReport) {
	if s.Status == stepexec.StatusRunning {
		fmt.Fprintf(a.stderr, "%s ...\n", s.ID)
	}
}

// logTail bounds how much of a failed step's log is shown.
const logTail = 20

func showReport(w io.Writer, r *stepexec.Report) {
	network := "no network"
	if r.Network {
		network = "with the network where it is declared"
	}
	fmt.Fprintf(w, "%s: %s\n%s, isolation %s, %s\n\nSTEP\tSTATUS\tATTEMPTS\tTIME\tDETAIL\n", r.Package, r.Status, r.ContentDigest, r.Isolation, network)
	for _, s := range r.Steps {
		var spent time.Duration
		for _, at := range s.Attempts {
			spent += time.Duration(at.DurationMs) * time.Millisecond
		}
		fmt.Fprintf(w, "%s\t%s\t%d\t%s\t%s\n", s.ID, s.Status, len(s.Attempts), spent, s.Detail)
	}
	for _, s := range r.Steps {
		if s.Status != mwpkg.StatusFailed || len(s.Attempts) == 0 {
			continue
		}
		lines := strings.Split(strings.TrimRight(s.Attempts[len(s.Attempts)-1].Log, "\n"), "\n")
		fmt.Fprintf(w, "\nThe log of %s ends:\n", s.ID)
		for _, line := range lines[max(0, len(lines)-logTail):] {
			fmt.Fprintf(w, "  %s\n", strings.ReplaceAll(line, "\t", "    ")) // a tab would begin a column of the report
		}
	}
	if len(r.Outputs) > 0 {
		fmt.Fprintf(w, "\nOUTPUT\tVALUE\n")
		for _, name := range slices.Sorted(maps.Keys(r.Outputs)) {
			fmt.Fprintf(w, "%s\t%v\n", name, r.Outputs[name])
		}
	}
	if len(r.Artifacts) > 0 {
		fmt.Fprintf(w, "\nARTIFACT\tBYTES\tDIGEST\n")
		for _, art := range r.Artifacts {
			fmt.Fprintf(w, "%s\t%d\t%s\n", art.Path, art.Bytes, art.Digest)
		}
	}
	if r.Status != mwpkg.StatusSucceeded {
		fmt.Fprintf(w, "\n%s: %s\n", r.Status, r.Detail)
	}
}
