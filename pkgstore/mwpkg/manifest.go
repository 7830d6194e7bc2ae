package mwpkg

import "time"

// Constants of the manifest's first two lines.
const (
	APIVersion = "maestro.dev/pkg/v1"
	Kind       = "WorkflowPackage"
)

// Manifest is what manifest.yaml says of a package. ParseManifest returns only manifests that are
// complete and consistent: every reference resolves and everything used is declared.
type Manifest struct {
	APIVersion string   `yaml:"apiVersion"`
	Kind       string   `yaml:"kind"`
	Metadata   Metadata `yaml:"metadata"`
	// Engine is a range of versions of Maestro that run the package, such as ">=0.4.0 <1.0.0".
	Engine       string            `yaml:"engine"`
	Inputs       map[string]Input  `yaml:"inputs"`
	Outputs      map[string]Output `yaml:"outputs"`
	Runner       Runner            `yaml:"runner"`
	Resources    Resources         `yaml:"resources"`
	Capabilities Capabilities      `yaml:"capabilities"`
	Workflow     Workflow          `yaml:"workflow"`
	Dependencies []Dependency      `yaml:"dependencies"`
	// Examples are paths of example files in the package, at least one.
	Examples []string `yaml:"examples"`
}

// Metadata describes a package to people and to the catalog's search.
type Metadata struct {
	// Name is [publisher/]name, Version a semantic version without "v" and build metadata.
	Name    string `yaml:"name"`
	Version string `yaml:"version"`
	// Title is a line, Description at most 4 KiB of text.
	Title       string   `yaml:"title"`
	Description string   `yaml:"description"`
	License     string   `yaml:"license"`
	Keywords    []string `yaml:"keywords"`
	Homepage    string   `yaml:"homepage"`
}

// Types of inputs and outputs, as JSON Schema has them, and secretRef: a secret that the runner
// looks up under the value and that appears nowhere else.
const (
	TypeString  = "string"
	TypeInteger = "integer"
	TypeNumber  = "number"
	TypeBoolean = "boolean"
	TypeArray   = "array"
	TypeSecret  = "secretRef"
)

// Input declares a value that the workflow is run with, by a subset of JSON Schema. Fields other than
// Type, Description, Required and Default belong to some types only.
type Input struct {
	Type        string `yaml:"type" json:"type"`
	Description string `yaml:"description" json:"description,omitempty"`
	// Required means that a run must give the value. An input has a default or is required, or may be absent.
	Required bool `yaml:"required" json:"required,omitempty"`
	Default  any  `yaml:"default" json:"default,omitempty"`
	// Enum lists the values of a string, integer or number that are allowed.
	Enum []any `yaml:"enum" json:"enum,omitempty"`
	// Minimum and Maximum are for integer and number.
	Minimum *float64 `yaml:"minimum" json:"minimum,omitempty"`
	Maximum *float64 `yaml:"maximum" json:"maximum,omitempty"`
	// MinLength, MaxLength (characters) and Pattern (RE2, anywhere in the text) are for string.
	MinLength *int   `yaml:"minLength" json:"minLength,omitempty"`
	MaxLength *int   `yaml:"maxLength" json:"maxLength,omitempty"`
	Pattern   string `yaml:"pattern" json:"pattern,omitempty"`
	// Items and MaxItems are for array; items are strings, integers, numbers or booleans.
	Items    *Items `yaml:"items" json:"items,omitempty"`
	MaxItems *int   `yaml:"maxItems" json:"maxItems,omitempty"`
}

// Items declares the elements of an array.
type Items struct {
	Type    string `yaml:"type" json:"type"`
	Pattern string `yaml:"pattern" json:"pattern,omitempty"`
}

// Output declares a value that a run gives back.
type Output struct {
	// Type is string, integer, number or boolean.
	Type        string `yaml:"type"`
	Description string `yaml:"description"`
	// From is the step's output that it is: steps.ID.NAME.
	From string `yaml:"from"`
}

// Runner says what kind of machine runs the steps.
type Runner struct {
	// Class is small (the default), medium or large.
	Class string `yaml:"class"`
	// OS is linux, the default, or any.
	OS string `yaml:"os"`
	// Arch lists amd64 and arm64; empty means either.
	Arch []string `yaml:"arch"`
}

// Resources bounds a run.
type Resources struct {
	// CPU is in cores or thousandths ("2", "500m"), Memory in bytes with Ki, Mi or Gi ("512Mi").
	CPU    string `yaml:"cpu"`
	Memory string `yaml:"memory"`
	// Timeout bounds the whole run; it is required and at most 24h.
	Timeout time.Duration `yaml:"timeout"`
	// MaxParallel bounds the steps that run at once, 1 to 16; 0 means 1.
	MaxParallel int `yaml:"maxParallel"`
}

// Capabilities is all that the steps may use. What they use and what is declared here are the same set.
type Capabilities struct {
	Network Network `yaml:"network"`
	// Secrets are the inputs of type secretRef that steps receive.
	Secrets []string `yaml:"secrets"`
	// Commands are the programs that steps run: the first words of their run, without those that
	// are run in an image.
	Commands []string `yaml:"commands"`
}

// Network is where steps may connect to; nowhere when it is empty.
type Network struct {
	// Egress are HOST:PORT, where HOST may be "*" or begin with "*." and PORT may be "*".
	Egress []string `yaml:"egress"`
}

// Workflow is the steps of a package.
type Workflow struct {
	Steps []Step `yaml:"steps"`
}

// Step is one program that is run. Steps run when those that they need have ended.
type Step struct {
	ID   string `yaml:"id"`
	Name string `yaml:"name"`
	// Run is a program, by its name, and its arguments; no shell reads them. The working folder holds the
	// package's files. An argument may be one placeholder as a whole: ${inputs.NAME} or ${steps.ID.OUTPUT}.
	Run []string `yaml:"run"`
	// Image is the container image that the step runs in, by digest; empty for the runner itself.
	Image string `yaml:"image"`
	// Env are variables that the step gets. A value is text without placeholders, or one placeholder.
	// Secrets reach steps in this way only.
	Env map[string]string `yaml:"env"`
	// Egress is where this step may connect to, each written as in the capabilities.
	Egress []string `yaml:"egress"`
	// Outputs are the names that the step writes, as lines NAME=VALUE into the file that MAESTRO_OUTPUT names.
	Outputs []string `yaml:"outputs"`
	// Needs are the steps that must have ended before. The step is skipped when one of them did
	// not succeed, unless its condition asks for steps or Always is set.
	Needs []string `yaml:"needs"`
	// If is a condition over inputs and steps that have ended before; see Condition. Empty means true.
	If string `yaml:"if"`
	// Always runs the step, if its condition holds, when what it needs has ended in any way, even when
	// the run was cancelled or is out of time: for clearing up.
	Always bool  `yaml:"always"`
	Retry  Retry `yaml:"retry"`
	// Timeout bounds one attempt; 0 means that of the run.
	Timeout time.Duration `yaml:"timeout"`
}

// Retry says how often a step that failed is run again.
type Retry struct {
	// Max is the number of further attempts, 0 to 10.
	Max int `yaml:"max"`
	// Backoff is the pause before the first of them, doubled before each other one; at most 1h.
	Backoff time.Duration `yaml:"backoff"`
}

// Dependency is a package that must be installed with this one, exactly that content.
type Dependency struct {
	Name    string `yaml:"name"`
	Version string `yaml:"version"`
	// Digest is sha256: and the dependency's content digest.
	Digest string `yaml:"digest"`
}

// Ref is the name and version that the manifest gives.
func (m *Manifest) Ref() Ref { return Ref{m.Metadata.Name, m.Metadata.Version} }

// InputNames are the names of the inputs in order.
func (m *Manifest) InputNames() []string { return sorted(m.Inputs) }

// Example is a file of the manifest's Examples: a run and what must come of it.
type Example struct {
	Title string `yaml:"title"`
	// Inputs are values for the inputs, Secrets what the secretRef among them stand for, by input; they are
	// invented.
	Inputs  map[string]any    `yaml:"inputs"`
	Secrets map[string]string `yaml:"secrets"`
	Expect  Expect            `yaml:"expect"`
}

// Statuses of runs and steps in examples.
const (
	StatusSucceeded = "succeeded"
	StatusFailed    = "failed"
	StatusSkipped   = "skipped" // steps only
)

// Expect is what an example must end with.
type Expect struct {
	// Status is succeeded or failed.
	Status string `yaml:"status"`
	// Steps are statuses by step, Outputs values by output; those that are not named may be anything.
	Steps   map[string]string `yaml:"steps"`
	Outputs map[string]any    `yaml:"outputs"`
}
