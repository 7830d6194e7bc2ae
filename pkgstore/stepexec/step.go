package stepexec

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/maestro-conductor/maestro/internal/sandbox"
	"github.com/maestro-conductor/maestro/pkgstore/mwpkg"
)

// Causes for which an attempt is ended before its program ends.
var (
	errTimeout = errors.New("its time was over")
	errLog     = fmt.Errorf("it wrote more than %d bytes to its standard streams; long texts belong into a file in MAESTRO_WORK", MaxLog)
	errFolder  = fmt.Errorf("the files of the run took more than %d bytes, or were more than %d, or could not be counted: a folder of them must stay readable", MaxFolder, MaxEntries)
)

// step runs one step, again after failures as its retry says. ctx ends with the run.
func (r *run) step(ctx context.Context, step *mwpkg.Step, values mwpkg.Values) StepReport {
	out := StepReport{ID: step.ID, Outputs: []Value{}, Network: r.network(step)}
	pause := step.Retry.Backoff
	for number := 1; ; number++ {
		attempt, outputs := r.attempt(ctx, step, values, number)
		out.Attempts = append(out.Attempts, attempt)
		out.Status, out.Reason, out.Detail = mwpkg.StatusFailed, attempt.Reason, attempt.Detail
		if attempt.Reason == "" {
			out.Status, out.values, out.Outputs = mwpkg.StatusSucceeded, outputs, outputValues(outputs)
			return out
		}
		if ctx.Err() != nil {
			if !errors.Is(context.Cause(ctx), errTimeout) {
				out.Status, out.Reason, out.Detail = StatusCancelled, "", "the caller ended the run"
			}
			return out
		}
		if number > step.Retry.Max || !retryable(attempt.Reason) {
			return out
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
		pause *= 2
	}
}

// retryable says whether another attempt can end differently.
func retryable(reason string) bool {
	return reason == ReasonExit || reason == ReasonSignal || reason == ReasonTimeout
}

// network says whether the step gets the network: it declares some, and the caller grants it.
func (r *run) network(step *mwpkg.Step) bool { return len(step.Egress) > 0 && r.AllowNetwork }

// attempt starts the step's program once and waits for its end.
func (r *run) attempt(ctx context.Context, step *mwpkg.Step, values mwpkg.Values, number int) (Attempt, map[string]string) {
	a := Attempt{Started: time.Now().UTC(), ExitCode: -1}
	fail := func(reason, format string, args ...any) (Attempt, map[string]string) {
		a.Reason, a.Detail = reason, r.mask.Replace(fmt.Sprintf(format, args...))
		a.DurationMs = time.Since(a.Started).Milliseconds()
		return a, nil
	}
	place, err := r.folder.attempt(step.ID, number, r.isolation)
	if err != nil {
		return fail(ReasonFolder, "%v", err)
	}
	args, env, err := r.words(step, values)
	if err != nil {
		return fail(ReasonValue, "%v", err)
	}
	maps.Copy(env, place.env)
	env["MAESTRO_STEP"], env["MAESTRO_ATTEMPT"] = step.ID, fmt.Sprint(number)

	if step.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, step.Timeout, errTimeout)
		defer cancel()
	}
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	log := &boundedLog{full: func() { end(errLog) }}
	measured := make(chan struct{})
	go func() {
		defer close(measured)
		r.folder.watch(ctx, end)
	}()
	result, err := sandbox.Run(ctx, sandbox.Command{
		Args: args, Dir: place.dir, Env: pairs(env), Stdout: log, Stderr: log,
		Binds: place.binds, Root: place.root, Isolation: r.isolation, Network: r.network(step),
		Limits: sandbox.Limits{FileBytes: MaxFolder, MemoryBytes: r.memory, OpenFiles: MaxOpenFiles, Processes: r.processes()},
	})
	if err == nil && r.folder.tooLarge() {
		end(errFolder)
	}
	cause := context.Cause(ctx)
	end(nil)
	<-measured
	a.Log = log.masked(r.mask)
	a.ExitCode, a.Leftovers = result.ExitCode, result.Leftovers
	if err != nil {
		a.ExitCode = -1
	}
	switch {
	case errors.Is(cause, errLog):
		return fail(ReasonLog, "%v", cause)
	case errors.Is(cause, errFolder):
		return fail(ReasonFolder, "%v", cause)
	case errors.Is(cause, errTimeout):
		return fail(ReasonTimeout, "%v", cause)
	case cause != nil:
		return fail(StatusCancelled, "the run ended: %v", cause)
	case errors.Is(err, sandbox.ErrUnavailable):
		return fail(ReasonIsolation, "%v", err)
	case err != nil:
		return fail(ReasonNotFound, "%v", err)
	case result.Signal != "":
		return fail(ReasonSignal, "a signal ended the program: %s", result.Signal)
	case result.ExitCode != 0:
		return fail(ReasonExit, "the program ended with status %d", result.ExitCode)
	}
	outputs, err := r.folder.outputs(place, step.Outputs)
	if err != nil {
		return fail(ReasonOutputs, "%v", err)
	}
	for _, name := range slices.Sorted(maps.Keys(outputs)) {
		if r.mask.Replace(outputs[name]) != outputs[name] {
			return fail(ReasonSecret, "output %s holds a secret", name)
		}
	}
	a.DurationMs = time.Since(a.Started).Milliseconds()
	return a, outputs
}

// processes bounds an isolated step alone: without isolation, the kernel counts all of the
// caller's processes.
func (r *run) processes() uint64 {
	if r.isolation == sandbox.Full {
		return MaxProcesses
	}
	return 0
}

// words are the step's arguments and variables with placeholders replaced. Secrets are put into
// variables only.
func (r *run) words(step *mwpkg.Step, values mwpkg.Values) ([]string, map[string]string, error) {
	args := make([]string, len(step.Run))
	for i, text := range step.Run {
		var ok bool
		if args[i], ok = values.Expand(text); !ok {
			return nil, nil, fmt.Errorf("argument %d stands for %s, which has no value", i, text)
		}
	}
	withSecrets := mwpkg.Values{Inputs: maps.Clone(values.Inputs), Steps: values.Steps}
	for name, secret := range r.secrets {
		withSecrets.Inputs[name] = secret
	}
	env := map[string]string{}
	for name, text := range step.Env {
		value, ok := withSecrets.Expand(text)
		if !ok {
			continue // an optional input that is absent: the variable is not set
		}
		env[name] = value
	}
	return args, env, nil
}

func pairs(env map[string]string) []string {
	var out []string
	for _, name := range slices.Sorted(maps.Keys(env)) {
		out = append(out, name+"="+env[name])
	}
	return out
}

// boundedLog keeps what both standard streams get, up to MaxLog, and says when it is full.
type boundedLog struct {
	full func()

	mu   sync.Mutex
	text bytes.Buffer
}

// Write takes everything, so that the program sees no error before it is ended.
func (l *boundedLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text.Write(p[:min(len(p), MaxLog-l.text.Len())])
	if l.text.Len() == MaxLog {
		l.full()
	}
	return len(p), nil
}

// masked is the text without secrets. The end of a full log may be the first part of one, which
// no mask knows: as much as that can be is dropped.
func (l *boundedLog) masked(m *masker) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	text := m.Replace(l.text.String())
	if l.text.Len() == MaxLog {
		text = text[:max(0, len(text)-m.part)]
	}
	return strings.ToValidUTF8(text, "\uFFFD")
}

// masker replaces secrets, and the forms that programs commonly give them: the lines of one with
// several, percent-encoding, base64.
type masker struct {
	*strings.Replacer
	part int // bytes that what is left of an incomplete form takes at most, when the rest is masked
}

func newMasker(secrets []string) *masker {
	var forms []string
	for _, s := range secrets {
		forms = append(forms, s, url.QueryEscape(s), url.PathEscape(s), base64.StdEncoding.EncodeToString([]byte(s)), base64.URLEncoding.EncodeToString([]byte(s)))
		if lines := strings.Split(s, "\n"); len(lines) > 1 {
			for _, line := range lines {
				if len(line) >= 8 {
					forms = append(forms, line)
				}
			}
		}
	}
	// Longer ones first, so that none hides behind a part of itself.
	slices.SortFunc(forms, func(a, b string) int { return len(b) - len(a) })
	var words []string
	m := &masker{}
	for _, f := range slices.Compact(forms) {
		words = append(words, f, mask)
	}
	if len(forms) > 0 {
		m.part = len(forms[0]) - 1
		if shortest := len(forms[len(forms)-1]); shortest < len(mask) {
			m.part *= len(mask) // a mask is longer than what it stands for
		}
	}
	m.Replacer = strings.NewReplacer(words...)
	return m
}

// mask stands for a secret.
const mask = "***"
