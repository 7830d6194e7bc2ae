// Package workflows turns recorded workflow runs in the format of WfCommons (version 1.5) into
// receipts: one for each task, whose inputs and outputs are the digests of its files.
package workflows

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	provenancev1 "github.com/maestro-conductor/maestro/api/gen/mc/provenance/v1"
)

// Instance is one run.
type Instance struct {
	Name      string `json:"name"`
	CreatedAt Time   `json:"createdAt"`
	Runtime   struct {
		Name    string `json:"name"`
		Version string `json:"version"`
	} `json:"runtimeSystem"`
	Workflow struct {
		Specification struct {
			Tasks []Task `json:"tasks"`
			Files []File `json:"files"`
		} `json:"specification"`
		Execution struct {
			Tasks []Execution `json:"tasks"`
		} `json:"execution"`
	} `json:"workflow"`
}

// Time is when a run was recorded. Some runs leave out the zone: they mean UTC.
type Time struct{ time.Time }

// UnmarshalJSON reads RFC 3339 with or without a zone.
func (t *Time) UnmarshalJSON(data []byte) error {
	var text string
	if err := json.Unmarshal(data, &text); err != nil {
		return err
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		at, err = time.Parse("2006-01-02T15:04:05", text)
	}
	t.Time = at
	return err
}

// Task is what a task was to do.
type Task struct {
	Name    string   `json:"name"`
	ID      string   `json:"id"`
	Inputs  []string `json:"inputFiles"`
	Outputs []string `json:"outputFiles"`
}

// File is a file; runs do not tell its content.
type File struct {
	ID   string `json:"id"`
	Size int64  `json:"sizeInBytes"`
}

// Execution is how a task ran.
type Execution struct {
	ID       string   `json:"id"`
	Seconds  float64  `json:"runtimeInSeconds"`
	Machines []string `json:"machines"`
}

// Parse reads a run.
func Parse(data []byte) (*Instance, error) {
	var in Instance
	if err := json.Unmarshal(data, &in); err != nil {
		return nil, fmt.Errorf("workflows: %w", err)
	}
	if len(in.Workflow.Specification.Tasks) == 0 {
		return nil, fmt.Errorf("workflows: %q has no tasks under workflow.specification.tasks; only version 1.5 of the format is read", in.Name)
	}
	return &in, nil
}

// Digest stands for the content of a file, which nobody knows: the SHA-256 of its name and size.
func Digest(f File) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s\n%d", f.ID, f.Size))
	return "sha256:" + hex.EncodeToString(sum[:])
}

// Digests are the digests of a run's files, by name.
func (in *Instance) Digests() map[string]string {
	out := map[string]string{}
	for _, f := range in.Workflow.Specification.Files {
		out[f.ID] = Digest(f)
	}
	return out
}

// Receipts are the tasks of a run, of a tenant, under the name of an execution. Runs do not tell
// when a task began: receipts are dated one millisecond apart from when the run was recorded on.
func (in *Instance) Receipts(tenant, execution string) ([]*provenancev1.Document, error) {
	digests := in.Digests()
	ran := map[string]Execution{}
	for _, e := range in.Workflow.Execution.Tasks {
		ran[e.ID] = e
	}
	var out []*provenancev1.Document
	for i, t := range in.Workflow.Specification.Tasks {
		d := &provenancev1.Document{
			Id: execution + "/" + t.ID, Kind: "receipt", Tenant: tenant, Execution: execution, Task: t.ID, Pack: in.Runtime.Name + "@" + in.Runtime.Version,
			Time:       timestamppb.New(in.CreatedAt.Time.Add(time.Duration(i) * time.Millisecond)),
			DurationMs: uint32(ran[t.ID].Seconds * 1000), Attributes: map[string]string{"program": t.Name},
		}
		if machines := ran[t.ID].Machines; len(machines) > 0 {
			d.Runner = machines[0]
		}
		for _, side := range []struct {
			direction string
			files     []string
		}{{"input", t.Inputs}, {"output", t.Outputs}} {
			for _, name := range side.files {
				digest, known := digests[name]
				if !known {
					return nil, fmt.Errorf("workflows: task %s of %s has the file %q, which workflow.specification.files lacks", t.ID, execution, name)
				}
				d.Digests = append(d.Digests, &provenancev1.Digest{Digest: digest, Direction: side.direction, Name: name})
			}
		}
		out = append(out, d)
	}
	return out, nil
}
