package stepexec

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/maestro-conductor/maestro/internal/sandbox"
	"github.com/maestro-conductor/maestro/pkgstore/mwpkg"
)

// Limits of a run, beside those that its manifest sets. A step that reaches one is ended and
// has failed, with the reason that stands here.
const (
	// MaxLog bounds what an attempt writes to its standard streams together, in bytes: log_too_large.
	MaxLog = 1 << 20
	// MaxFolder bounds the files of a run at any moment, in bytes, and MaxEntries their number:
	// folder_too_large. One file is stopped at exactly MaxFolder; all together are measured each
	// MeasureEvery, or more rarely when that takes long, and at the end of each attempt.
	MaxFolder    = 512 << 20
	MaxEntries   = 20_000
	MeasureEvery = 100 * time.Millisecond
	// MaxOutputs bounds the file of a step's outputs and MaxValue one value, in bytes: outputs_invalid.
	MaxOutputs = 64 << 10
	MaxValue   = 4 << 10
	// MaxProcesses bounds the processes and threads of an isolated step, for callers that are not
	// root, and MaxOpenFiles the descriptors of each.
	MaxProcesses = 512
	MaxOpenFiles = 1024
	// MaxArtifacts bounds the artifacts of a run: artifacts_refused.
	MaxArtifacts = 1000
	// CleanupTime bounds the steps that run although the run's own time is over.
	CleanupTime = 5 * time.Minute
)

var (
	// ErrIsolation means that this machine does not permit isolation and that the caller did not
	// allow to run without. Nothing has run.
	ErrIsolation = errors.New("stepexec: steps cannot be isolated on this machine")
	// ErrUnsupported means that the package asks for something that this executor does not have.
	ErrUnsupported = errors.New("stepexec: the package cannot run here")
	// ErrInputs means that the values for the inputs do not fit the manifest.
	ErrInputs = errors.New("stepexec: inputs do not fit")
)

// Options say what to run and what it may do.
type Options struct {
	Package *mwpkg.Package
	// Inputs are values by input. Those of the type secretRef are names, which Secret resolves.
	Inputs map[string]any
	// Secret gives the secret that a name stands for. It is asked once for each input of the type
	// secretRef; nil knows no secrets.
	Secret func(ctx context.Context, input, name string) (string, error)
	// AllowNetwork grants the machine's network to steps that declare egress. Which
	// addresses they connect to is not checked here.
	AllowNetwork bool
	// AllowUnisolated runs steps with the caller's own rights on this machine where it permits no
	// isolation. NoIsolation does so even where it would.
	AllowUnisolated, NoIsolation bool
	// Dir is the folder in which the run's own folder is made, and removed at the end; empty means
	// the system's folder for temporary files.
	Dir string
	// Artifacts, if not empty, is an existing folder that gets a copy of the artifacts.
	Artifacts string
	// Progress, if not nil, is called when a step starts, with the status running, and when it has
	// ended or is skipped. Calls do not overlap.
	Progress func(StepReport)
}

// run is what is fixed once a run has begun.
type run struct {
	Options
	manifest  *mwpkg.Manifest
	inputs    map[string]any
	secrets   map[string]string // by input
	mask      *masker
	memory    uint64
	isolation sandbox.Isolation
	folder    *folder
}

// prepare checks everything that can be checked before a step runs.
func prepare(ctx context.Context, o Options) (*run, error) {
	m := o.Package.Manifest
	r := &run{Options: o, manifest: m, secrets: map[string]string{}}
	for _, s := range m.Workflow.Steps {
		if s.Image != "" {
			return nil, fmt.Errorf("%w: step %s runs in a container image; this executor runs programs of the machine itself", ErrUnsupported, s.ID)
		}
	}
	if err := ordered(m.Workflow.Steps); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnsupported, err)
	}
	if m.Runner.OS == "linux" && runtime.GOOS != "linux" || len(m.Runner.Arch) > 0 && !slices.Contains(m.Runner.Arch, runtime.GOARCH) {
		return nil, fmt.Errorf("%w: it is for %s %s, and this machine is %s/%s", ErrUnsupported, m.Runner.OS, strings.Join(m.Runner.Arch, " or "), runtime.GOOS, runtime.GOARCH)
	}
	var err error
	if r.memory, err = bytesOf(m.Resources.Memory); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnsupported, err)
	}
	if r.inputs, err = m.Resolve(o.Inputs); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInputs, err)
	}
	if err := r.resolveSecrets(ctx); err != nil {
		return nil, err
	}
	r.isolation = sandbox.Full
	if o.NoIsolation {
		r.isolation = sandbox.None
	} else if err := sandbox.Probe(ctx); err != nil {
		if !errors.Is(err, sandbox.ErrUnavailable) {
			return nil, err
		}
		if !o.AllowUnisolated {
			return nil, fmt.Errorf("%w: %w; permit unprivileged user namespaces, or allow to run without isolation", ErrIsolation, err)
		}
		r.isolation = sandbox.None
	}
	return r, nil
}

func (r *run) resolveSecrets(ctx context.Context) error {
	for _, name := range slices.Sorted(maps.Keys(r.inputs)) {
		if r.manifest.Inputs[name].Type != mwpkg.TypeSecret {
			continue
		}
		if r.Secret == nil {
			return fmt.Errorf("%w: input %s is a secret, and no secrets are given", ErrInputs, name)
		}
		value, err := r.Secret(ctx, name, fmt.Sprint(r.inputs[name]))
		if err != nil {
			return fmt.Errorf("%w: secret of input %s: %w", ErrInputs, name, err)
		}
		if value == "" || strings.ContainsRune(value, 0) {
			return fmt.Errorf("%w: the secret of input %s is empty or holds a NUL", ErrInputs, name)
		}
		r.secrets[name] = value
	}
	r.mask = newMasker(slices.Collect(maps.Values(r.secrets)))
	return nil
}

// ordered refuses steps that need one another in a circle, or one that is not there. Manifests
// that were read are free of both; those that a program makes need not be.
func ordered(steps []mwpkg.Step) error {
	done := map[string]bool{}
	for range steps {
		for _, s := range steps {
			if !done[s.ID] && !slices.ContainsFunc(s.Needs, func(n string) bool { return !done[n] }) {
				done[s.ID] = true
			}
		}
	}
	for _, s := range steps {
		if !done[s.ID] {
			return fmt.Errorf("step %s needs %s, which never ends before it: a step that is not there, or a circle", s.ID, strings.Join(s.Needs, ", "))
		}
	}
	return nil
}

// bytesOf reads a size such as 512Mi; "" is no limit.
func bytesOf(text string) (uint64, error) {
	if text == "" {
		return 0, nil
	}
	digits := strings.TrimRight(text, "KMGi")
	n, err := strconv.ParseUint(digits, 10, 33)
	shift, ok := map[string]uint{"": 0, "Ki": 10, "Mi": 20, "Gi": 30}[text[len(digits):]]
	if err != nil || !ok {
		return 0, fmt.Errorf("%q is no amount of memory; write one such as 512Mi", text)
	}
	return n << shift, nil
}
