package mwpkg

import (
	"errors"
	"slices"
)

// detail is what an *Error says without its subject and code.
func detail(err error) string {
	var e *Error
	if errors.As(err, &e) {
		return e.Detail
	}
	return err.Error()
}

// checkExample checks an example against the manifest whose package it is in.
func (m *Manifest) checkExample(e *Example, found *problems) {
	checkLine(found, "title", e.Title, maxTitle)
	if _, err := m.Resolve(e.Inputs); err != nil {
		for _, p := range err.(*Error).Problems {
			found.add(CodeExample, p.Subject, "%s", p.Detail)
		}
	}
	for _, name := range sorted(e.Inputs) {
		if _, given := e.Secrets[name]; m.Inputs[name].Type == TypeSecret && !given {
			found.add(CodeExample, "secrets."+name, "the example names the secret and gives no invented value for it")
		}
	}
	for _, name := range sorted(e.Secrets) {
		if m.Inputs[name].Type != TypeSecret {
			found.add(CodeExample, "secrets."+name, "there is no input of type secretRef with that name")
		}
	}
	if s := e.Expect.Status; s != StatusSucceeded && s != StatusFailed {
		found.add(CodeExample, "expect.status", "it must be succeeded or failed")
	}
	for _, id := range sorted(e.Expect.Steps) {
		if !slices.ContainsFunc(m.Workflow.Steps, func(s Step) bool { return s.ID == id }) {
			found.add(CodeExample, "expect.steps."+id, "there is no such step")
		}
		if s := e.Expect.Steps[id]; !slices.Contains([]string{StatusSucceeded, StatusFailed, StatusSkipped}, s) {
			found.add(CodeExample, "expect.steps."+id, "it must be succeeded, failed or skipped")
		}
	}
	for _, name := range sorted(e.Expect.Outputs) {
		o, ok := m.Outputs[name]
		if !ok {
			found.add(CodeExample, "expect.outputs."+name, "there is no such output")
		} else if _, err := scalar(o.Type, e.Expect.Outputs[name]); err != nil {
			found.add(CodeExample, "expect.outputs."+name, "it is not of the type %s", o.Type)
		}
	}
}
