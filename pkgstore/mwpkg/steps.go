package mwpkg

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
)

var (
	stepID = regexp.MustCompile(`^[a-z][a-z0-9_-]{0,62}$`)
	envRe  = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,63}$`)
	// ownEnv are variables that only the runner sets.
	ownEnv = regexp.MustCompile(`^(PATH|HOME|TMPDIR|IFS|BASH_ENV|ENV|SHELLOPTS|LD_.*|DYLD_.*|MAESTRO_.*)$`)
	// secretEnv are names of variables that hold credentials.
	secretEnv = regexp.MustCompile(`(?i)(PASSWORD|PASSWD|SECRET|TOKEN|API_?KEY|PRIVATE_?KEY|CREDENTIALS?)$`)
	imageRe   = regexp.MustCompile(`^[a-z0-9][a-z0-9.:/_-]{0,200}@sha256:[0-9a-f]{64}$`)
	// scriptFlag are arguments that programs take the next one of for a program to run.
	scriptFlag = regexp.MustCompile(`^(-[A-Za-z]*[ceE]|--(eval|command|execute|exec|expression))$`)
)

// Bounds of a step.
const (
	maxArgs     = 64
	maxArgument = 8 << 10
	maxRetries  = 10
)

func (m *Manifest) checkSteps(found *problems) {
	steps := m.Workflow.Steps
	if len(steps) == 0 || len(steps) > MaxSteps {
		found.add(CodeManifest, "workflow.steps", "there are %d; a workflow has 1 to %d", len(steps), MaxSteps)
		return
	}
	byID := map[string]*Step{}
	for i := range steps {
		s := &steps[i]
		if !stepID.MatchString(s.ID) {
			found.add(CodeManifest, fmt.Sprintf("workflow.steps[%d].id", i), "an id begins with a lower-case letter and has lower-case letters, digits, - and _, at most 63")
		} else if byID[s.ID] != nil {
			found.add(CodeManifest, fmt.Sprintf("workflow.steps[%d].id", i), "%s is there twice", s.ID)
		}
		byID[s.ID] = s
	}
	before, ok := m.order(byID, found)
	for i := range steps {
		c := stepCheck{m: m, step: &steps[i], at: "steps." + steps[i].ID, found: found}
		if ok {
			c.before = before[steps[i].ID]
		}
		c.check()
	}
}

// order gives the steps that have ended before each step. It refuses needs that are not there or go round.
func (m *Manifest) order(byID map[string]*Step, found *problems) (map[string]map[string]bool, bool) {
	before := map[string]map[string]bool{}
	good := true
	for _, s := range m.Workflow.Steps {
		for i, need := range s.Needs {
			if byID[need] == nil || slices.Contains(s.Needs[:i], need) {
				found.add(CodeReference, "steps."+s.ID+".needs", "%s is no step, or is there twice", quoted(need))
				good = false
			}
		}
	}
	if !good {
		return nil, false
	}
	for len(before) < len(byID) {
		n := len(before)
		for id, s := range byID {
			if before[id] != nil || slices.ContainsFunc(s.Needs, func(need string) bool { return before[need] == nil }) {
				continue
			}
			set := map[string]bool{}
			for _, need := range s.Needs {
				set[need] = true
				for earlier := range before[need] {
					set[earlier] = true
				}
			}
			before[id] = set
		}
		if len(before) == n {
			found.add(CodeReference, "workflow.steps", "the needs of the steps go round in a circle")
			return nil, false
		}
	}
	return before, true
}

// stepCheck checks one step.
type stepCheck struct {
	m     *Manifest
	step  *Step
	at    string
	found *problems
	// before are the steps that have ended when this one runs; nil when that is not known.
	before map[string]bool
}

func (c *stepCheck) check() {
	s, f := c.step, c.found
	if s.Name != "" {
		checkLine(f, c.at+".name", s.Name, maxTitle)
	}
	c.checkRun()
	c.checkEnv()
	if s.Image != "" && !imageRe.MatchString(s.Image) {
		f.add(CodeDigest, c.at+".image", "an image is named by its content, as NAME@sha256: and 64 hexadecimal digits, and not by a tag")
	}
	checkList(f, c.at+".egress", s.Egress, maxItems, egressRe.MatchString, "HOST:PORT")
	checkList(f, c.at+".outputs", s.Outputs, maxItems, valueName.MatchString, "letters, digits and underscores, beginning with a letter")
	for _, name := range s.Outputs {
		if _, taken := stepWords[name]; taken {
			f.add(CodeManifest, c.at+".outputs", "%s is what conditions ask of every step; give the output another name", name)
		}
	}
	condition, err := ParseCondition(s.If)
	f.take(c.at+".if", err)
	if err == nil {
		for _, r := range condition.refs {
			c.resolve(".if", r, true)
		}
	}
	if s.Retry.Max < 0 || s.Retry.Max > maxRetries {
		f.add(CodeManifest, c.at+".retry.max", "it must be 0 to %d", maxRetries)
	}
	if s.Retry.Backoff < 0 || s.Retry.Backoff > time.Hour || s.Retry.Backoff > 0 && s.Retry.Max == 0 {
		f.add(CodeManifest, c.at+".retry.backoff", "it must be up to 1h, and beside a max above 0")
	}
	if s.Timeout < 0 || s.Timeout > c.m.Resources.Timeout {
		f.add(CodeManifest, c.at+".timeout", "it must be above 0 and at most that of the run")
	}
}

func (c *stepCheck) checkRun() {
	run, f := c.step.Run, c.found
	if len(run) == 0 || len(run) > maxArgs {
		f.add(CodeManifest, c.at+".run", "it must be a list of a program and its arguments, at most %d", maxArgs)
		return
	}
	if !commandRe.MatchString(run[0]) {
		f.add(CodeManifest, c.at+".run", "%s is no name of a program; scripts of the package are run by one, such as sh", quoted(run[0]))
	}
	for i, arg := range run {
		if len(arg) > maxArgument || strings.ContainsRune(arg, 0) {
			f.add(CodeManifest, c.at+".run", "an argument has more than %d bytes", maxArgument)
		}
		r, is, err := parsePlaceholder(arg)
		f.take(c.at+".run", err)
		switch {
		case !is:
		case i == 0 || scriptFlag.MatchString(run[i-1]):
			f.add(CodeExpression, c.at+".run", "%s would be run as a program; pass the value in a variable of env", arg)
		case c.m.Inputs[r.name].Type == TypeSecret && r.step == "":
			f.add(CodeExpression, c.at+".run", "%s is a secret, and arguments can be seen by others on the machine; pass it in a variable of env", arg)
		default:
			c.resolve(".run", r, false)
		}
	}
}

func (c *stepCheck) checkEnv() {
	f := c.found
	if len(c.step.Env) > maxItems {
		f.add(CodeManifest, c.at+".env", "there are %d variables; at most %d are allowed", len(c.step.Env), maxItems)
	}
	for _, name := range sorted(c.step.Env) {
		value, at := c.step.Env[name], c.at+".env."+name
		if !envRe.MatchString(name) || ownEnv.MatchString(name) {
			f.add(CodeManifest, at, "it is no name of a variable that a step may set")
		}
		if len(value) > maxArgument {
			f.add(CodeManifest, at, "it has more than %d bytes", maxArgument)
		}
		r, is, err := parsePlaceholder(value)
		f.take(at, err)
		switch {
		case is:
			c.resolve(".env."+name, r, false)
		case value != "" && secretEnv.MatchString(name):
			f.add(CodeSecret, at, "a variable of that name holds a secret, which must be an input of type secretRef")
		}
	}
}

// resolve refuses a reference to what is not there, or not there yet, when the step runs.
func (c *stepCheck) resolve(where string, r reference, condition bool) {
	if r.step == "" {
		input, ok := c.m.Inputs[r.name]
		if !ok {
			c.found.add(CodeReference, c.at+where, "there is no input %s", r.name)
		} else if condition && input.Type == TypeSecret {
			c.found.add(CodeExpression, c.at+where, "a condition may not ask for the secret %s", r.name)
		}
		return
	}
	if c.before != nil && !c.before[r.step] {
		c.found.add(CodeReference, c.at+where, "%s: the step is not among those that have ended before; name it in needs", r)
		return
	}
	if _, word := stepWords[r.name]; word && condition {
		return
	}
	if !c.m.hasOutput(r) {
		c.found.add(CodeReference, c.at+where, "%s: the step does not declare that output", r)
	}
}
