package stepexec

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/maestro-conductor/maestro/pkgstore/mwpkg"
)

// Run runs the package and reports what became of it. A run that failed is a report, not an
// error; an error means that it could not begin, as ErrIsolation, ErrUnsupported and
// ErrInputs say. When ctx ends, running steps are killed and only steps with always start.
func Run(ctx context.Context, o Options) (*Report, error) {
	r, err := prepare(ctx, o)
	if err != nil {
		return nil, err
	}
	report := &Report{
		Package: r.manifest.Ref().String(), ContentDigest: "sha256:" + o.Package.Digest.String(), Isolation: r.isolation, Network: o.AllowNetwork,
		Started: time.Now().UTC(), Inputs: inputValues(r.manifest, r.inputs), Outputs: map[string]any{}, Artifacts: []Artifact{},
	}
	if r.folder, err = newFolder(o.Dir, o.Package.Files); err != nil {
		return nil, err
	}
	r.steps(ctx, report)
	r.conclude(ctx, report)
	if err := r.folder.remove(); err != nil {
		return nil, err
	}
	report.Finished = time.Now().UTC()
	return report, nil
}

// schedule is the state of the steps of a run; one goroutine has it.
type schedule struct {
	run     *run
	results map[string]mwpkg.StepResult // of steps that have ended
	reports map[string]StepReport
	running int
	ended   chan StepReport
}

// steps runs every step whose turn comes, and reports all in the manifest's order.
func (r *run) steps(ctx context.Context, report *Report) {
	timed, cancel := context.WithTimeoutCause(ctx, r.manifest.Resources.Timeout, errTimeout)
	defer cancel()
	// Clearing up has a time of its own, which begins when the run's is over.
	cleanup, cancelCleanup := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancelCleanup(nil)
	stop := context.AfterFunc(timed, func() {
		timer := time.AfterFunc(CleanupTime, func() { cancelCleanup(errTimeout) })
		context.AfterFunc(cleanup, func() { timer.Stop() })
	})
	defer stop()
	s := &schedule{run: r, results: map[string]mwpkg.StepResult{}, reports: map[string]StepReport{}, ended: make(chan StepReport)}
	for {
		s.startReady(timed, cleanup)
		if s.running == 0 {
			break
		}
		one := <-s.ended
		s.running--
		s.end(one)
	}
	for _, step := range r.manifest.Workflow.Steps {
		report.Steps = append(report.Steps, s.reports[step.ID])
	}
}

// startReady starts steps whose needs have ended, in the manifest's order, as far as there is
// room, and skips those that are not to run. Skipping one can make another ready.
func (s *schedule) startReady(timed, cleanup context.Context) {
	for again := true; again; {
		again = false
		for i := range s.run.manifest.Workflow.Steps {
			step := &s.run.manifest.Workflow.Steps[i]
			if _, known := s.reports[step.ID]; known || !s.needsEnded(step) || s.running >= max(1, s.run.manifest.Resources.MaxParallel) {
				continue
			}
			if skipped, skip := s.judge(timed, step); skip {
				s.end(skipped)
				again = true
				continue
			}
			ctx := timed
			if step.Always {
				ctx = cleanup
			}
			s.reports[step.ID] = StepReport{ID: step.ID, Status: StatusRunning}
			s.progress(s.reports[step.ID])
			s.running++
			values := s.values()
			go func() { s.ended <- s.run.step(ctx, step, values) }()
		}
	}
}

func (s *schedule) needsEnded(step *mwpkg.Step) bool {
	return !slices.ContainsFunc(step.Needs, func(n string) bool { _, ended := s.results[n]; return !ended })
}

// judge says whether a step whose needs have ended is skipped.
func (s *schedule) judge(timed context.Context, step *mwpkg.Step) (StepReport, bool) {
	skipped := StepReport{ID: step.ID, Status: mwpkg.StatusSkipped, Attempts: []Attempt{}, Outputs: []Value{}}
	switch {
	case timed.Err() != nil && !step.Always:
		skipped.Detail = "the run was over"
		return skipped, true
	case step.If != "":
		condition, err := mwpkg.ParseCondition(step.If)
		if err != nil {
			skipped.Status, skipped.Reason, skipped.Detail = mwpkg.StatusFailed, ReasonCondition, err.Error()
			return skipped, true
		}
		skipped.Detail = "the condition does not hold: " + step.If
		return skipped, !condition.Eval(s.values())
	case step.Always:
		return StepReport{}, false
	}
	for _, n := range step.Needs {
		if status := s.results[n].Status; status != mwpkg.StatusSucceeded {
			skipped.Detail = fmt.Sprintf("step %s did not succeed: it is %s", n, status)
			return skipped, true
		}
	}
	return StepReport{}, false
}

func (s *schedule) end(one StepReport) {
	status := one.Status
	if status == StatusCancelled {
		status = mwpkg.StatusFailed // conditions know three
	}
	s.results[one.ID] = mwpkg.StepResult{Status: status, Outputs: one.values}
	s.reports[one.ID] = one
	s.progress(one)
}

func (s *schedule) progress(one StepReport) {
	if s.run.Progress != nil {
		s.run.Progress(one)
	}
}

// values are what a step may refer to: inputs, and steps that have ended.
func (s *schedule) values() mwpkg.Values {
	return mwpkg.Values{Inputs: s.run.inputs, Steps: maps.Clone(s.results)}
}

// conclude gives the run its status, its outputs and its artifacts.
func (r *run) conclude(ctx context.Context, report *Report) {
	report.Status = mwpkg.StatusSucceeded
	fail := func(reason, detail string) {
		if report.Status == mwpkg.StatusSucceeded {
			report.Status, report.Reason, report.Detail = mwpkg.StatusFailed, reason, detail
		}
	}
	outputs := map[string]map[string]string{}
	for _, s := range report.Steps {
		outputs[s.ID] = s.values
		if s.Status == mwpkg.StatusFailed {
			fail(s.Reason, "step "+s.ID+" failed: "+s.Detail)
		}
	}
	for name, o := range r.manifest.Outputs {
		id, output, _ := strings.Cut(strings.TrimPrefix(o.From, "steps."), ".")
		text, ok := outputs[id][output]
		if !ok {
			continue // the step did not run, or did not say
		}
		value, err := typed(o.Type, text)
		if err != nil {
			fail(ReasonOutputs, fmt.Sprintf("output %s: %v", name, err))
			continue
		}
		report.Outputs[name] = value
	}
	artifacts, err := r.folder.collect(r.Artifacts)
	report.Artifacts = artifacts
	if err != nil {
		fail(ReasonArtifacts, err.Error())
	}
	if ctx.Err() != nil {
		report.Status, report.Reason, report.Detail = StatusCancelled, "", "the caller ended the run"
	}
}

// typed reads an output as its declaration says.
func typed(kind, text string) (any, error) {
	switch kind {
	case mwpkg.TypeInteger:
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("%q is no integer", text)
		}
		return n, nil
	case mwpkg.TypeNumber:
		n, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return nil, fmt.Errorf("%q is no number", text)
		}
		return n, nil
	case mwpkg.TypeBoolean:
		if text != "true" && text != "false" {
			return nil, fmt.Errorf("%q is neither true nor false", text)
		}
		return text == "true", nil
	}
	return text, nil
}
