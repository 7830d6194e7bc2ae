package stepexec

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/maestro-conductor/maestro/internal/sandbox"
	"github.com/maestro-conductor/maestro/pkgstore/mwpkg"
)

// Statuses of runs and steps, beside those of mwpkg.
const (
	StatusRunning   = "running"   // steps, in Options.Progress only
	StatusCancelled = "cancelled" // runs and steps that the caller ended
)

// Reasons why a step or a run failed: stable words.
const (
	ReasonExit      = "exit_status"       // the program ended with a status other than 0
	ReasonSignal    = "signal"            // a signal ended the program; SIGXFSZ means a file above MaxFolder
	ReasonTimeout   = "timeout"           // the step's time was over, or the run's
	ReasonNotFound  = "program_not_found" // there is no such program here
	ReasonIsolation = "isolation_refused" // the machine stopped permitting isolation; the program did not run
	ReasonLog       = "log_too_large"
	ReasonFolder    = "folder_too_large"
	ReasonOutputs   = "outputs_invalid"   // the file of outputs cannot be read, or says what is not declared
	ReasonSecret    = "secret_in_output"  // an output holds a secret
	ReasonValue     = "value_absent"      // an argument or variable stands for a value that there is not
	ReasonCondition = "condition_invalid" // the condition cannot be judged
	ReasonArtifacts = "artifacts_refused" // runs only: an artifact that is no regular file, or too many
)

// Report is what became of a run: enough for a receipt, and no secret in it.
type Report struct {
	Package string `json:"package"` // NAME@VERSION
	// ContentDigest is the package's identity: sha256: and 64 hexadecimal digits, as all digests here.
	ContentDigest string            `json:"contentDigest"`
	Status        string            `json:"status"` // succeeded, failed or cancelled
	Reason        string            `json:"reason,omitempty"`
	Detail        string            `json:"detail,omitempty"`
	Isolation     sandbox.Isolation `json:"isolation"`
	// Network says that the network was granted to the steps that declare it.
	Network  bool      `json:"network"`
	Started  time.Time `json:"started"`
	Finished time.Time `json:"finished"`
	// Inputs are those that were given or have defaults, by name in order.
	Inputs  []Value        `json:"inputs"`
	Steps   []StepReport   `json:"steps"`
	Outputs map[string]any `json:"outputs"`
	// Artifacts are the files that steps left in MAESTRO_ARTIFACTS, by path in order.
	Artifacts []Artifact `json:"artifacts"`
}

// Value is an input or output by name. A secret has no digest: a guess could be checked with one.
type Value struct {
	Name   string `json:"name"`
	Digest string `json:"digest,omitempty"`
	Secret bool   `json:"secret,omitempty"`
}

// Artifact is a file that a run leaves.
type Artifact struct {
	Path   string `json:"path"`
	Bytes  int64  `json:"bytes"`
	Digest string `json:"digest"`
}

// StepReport is what became of one step.
type StepReport struct {
	ID       string    `json:"id"`
	Status   string    `json:"status"`
	Reason   string    `json:"reason,omitempty"`
	Detail   string    `json:"detail,omitempty"`
	Attempts []Attempt `json:"attempts"`
	// Outputs are what the step wrote, by name in order.
	Outputs []Value `json:"outputs"`
	// Network says that the step had the network.
	Network bool `json:"network,omitempty"`

	values map[string]string
}

// Attempt is one start of a step's program.
type Attempt struct {
	Started    time.Time `json:"started"`
	DurationMs int64     `json:"durationMs"`
	// ExitCode is -1 when the program did not end by itself.
	ExitCode int    `json:"exitCode"`
	Reason   string `json:"reason,omitempty"`
	Detail   string `json:"detail,omitempty"`
	// Leftovers counts the processes that the program left running; they were killed.
	Leftovers int `json:"leftovers,omitempty"`
	// Log is what the program wrote to its standard streams, with *** for each secret.
	Log string `json:"log"`
}

// digest names a text by its SHA-256.
func digest(text []byte) string {
	sum := sha256.Sum256(text)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// inputValues names inputs by the digests of their JSON.
func inputValues(m *mwpkg.Manifest, inputs map[string]any) []Value {
	out := []Value{}
	for _, name := range slices.Sorted(maps.Keys(inputs)) {
		if m.Inputs[name].Type == mwpkg.TypeSecret {
			out = append(out, Value{Name: name, Secret: true})
			continue
		}
		text, err := json.Marshal(inputs[name])
		if err != nil {
			text = fmt.Append(nil, inputs[name]) // a number that JSON does not have
		}
		out = append(out, Value{Name: name, Digest: digest(text)})
	}
	return out
}

func outputValues(values map[string]string) []Value {
	out := []Value{}
	for _, name := range slices.Sorted(maps.Keys(values)) {
		out = append(out, Value{Name: name, Digest: digest([]byte(values[name]))})
	}
	return out
}
