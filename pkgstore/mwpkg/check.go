package mwpkg

import (
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// Bounds of texts in a manifest, in characters.
const (
	maxTitle       = 120
	maxDescription = 4096
	maxKeywords    = 16
	maxItems       = 32 // of other lists
)

var (
	keywordRe  = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,31}$`)
	licenseRe  = regexp.MustCompile(`^[A-Za-z0-9.+() -]{1,64}$`)
	cpuRe      = regexp.MustCompile(`^([1-9][0-9]?|[1-9][0-9]{1,4}m)$`)
	memoryRe   = regexp.MustCompile(`^[1-9][0-9]{0,4}(Ki|Mi|Gi)$`)
	egressRe   = regexp.MustCompile(`^(\*|(?:\*\.)?[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?):(\*|[1-9][0-9]{0,4})$`)
	exampleRe  = regexp.MustCompile(`^examples/[A-Za-z0-9_][A-Za-z0-9_-]*\.yaml$`)
	commandRe  = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._+-]{0,63}$`)
	maxTimeout = 24 * time.Hour
)

func (m *Manifest) check() error {
	var found problems
	m.checkHead(&found)
	m.checkInputs(&found)
	m.checkResources(&found)
	m.checkSteps(&found)
	m.checkOutputs(&found)
	m.checkDependencies(&found)
	m.checkDeclared(&found)
	return found.err()
}

func (m *Manifest) checkHead(found *problems) {
	if m.APIVersion != APIVersion {
		found.add(CodeManifest, "apiVersion", "it must be %s", APIVersion)
	}
	if m.Kind != Kind {
		found.add(CodeManifest, "kind", "it must be %s", Kind)
	}
	d := m.Metadata
	found.take("metadata.name", CheckName(d.Name))
	found.take("metadata.version", CheckVersion(d.Version))
	checkLine(found, "metadata.title", d.Title, maxTitle)
	if utf8.RuneCountInString(d.Description) > maxDescription {
		found.add(CodeManifest, "metadata.description", "it has more than %d characters", maxDescription)
	}
	if d.License != "" && !licenseRe.MatchString(d.License) {
		found.add(CodeManifest, "metadata.license", "it must be an SPDX expression such as Apache-2.0")
	}
	if u, err := url.Parse(d.Homepage); d.Homepage != "" && (err != nil || u.Scheme != "https" || u.Host == "") {
		found.add(CodeManifest, "metadata.homepage", "it must begin with https://")
	}
	checkList(found, "metadata.keywords", d.Keywords, maxKeywords, keywordRe.MatchString, "lower-case letters, digits and hyphens")
	_, err := parseRange(m.Engine)
	found.take("engine", err)
	if len(m.Examples) == 0 {
		found.add(CodeManifest, "examples", "a package has at least one example")
	}
	checkList(found, "examples", m.Examples, maxItems, exampleRe.MatchString, "examples/NAME.yaml")
}

// checkLine wants a text of one line.
func checkLine(found *problems, subject, text string, most int) {
	switch {
	case strings.TrimSpace(text) == "":
		found.add(CodeManifest, subject, "it is missing")
	case strings.ContainsAny(text, "\r\n") || utf8.RuneCountInString(text) > most:
		found.add(CodeManifest, subject, "it must be one line of at most %d characters", most)
	}
}

// checkList wants a list of different texts of one form.
func checkList(found *problems, subject string, list []string, most int, ok func(string) bool, form string) {
	if len(list) > most {
		found.add(CodeManifest, subject, "it has %d entries; at most %d are allowed", len(list), most)
		return
	}
	for i, item := range list {
		if !ok(item) {
			found.add(CodeManifest, subject, "%s is not written as %s", quoted(item), form)
		} else if slices.Contains(list[:i], item) {
			found.add(CodeManifest, subject, "%s is there twice", quoted(item))
		}
	}
}

func (m *Manifest) checkResources(found *problems) {
	oneOf(found, "runner.class", m.Runner.Class, "", "small", "medium", "large")
	oneOf(found, "runner.os", m.Runner.OS, "", "linux", "any")
	checkList(found, "runner.arch", m.Runner.Arch, 2, func(a string) bool { return a == "amd64" || a == "arm64" }, "amd64 or arm64")
	r := m.Resources
	if r.CPU != "" && !cpuRe.MatchString(r.CPU) {
		found.add(CodeManifest, "resources.cpu", "it must be cores, 1 to 99, or thousandths such as 500m")
	}
	if r.Memory != "" && !memoryRe.MatchString(r.Memory) {
		found.add(CodeManifest, "resources.memory", "it must be a size such as 512Mi or 2Gi")
	}
	if r.Timeout <= 0 || r.Timeout > maxTimeout {
		found.add(CodeManifest, "resources.timeout", "it must be a duration above 0 and up to 24h, such as 30m")
	}
	if r.MaxParallel < 0 || r.MaxParallel > 16 {
		found.add(CodeManifest, "resources.maxParallel", "it must be 1 to 16")
	}
}

func oneOf(found *problems, subject, value string, allowed ...string) {
	if !slices.Contains(allowed, value) {
		found.add(CodeManifest, subject, "it must be one of %s", strings.Join(slices.DeleteFunc(allowed, func(s string) bool { return s == "" }), ", "))
	}
}

func (m *Manifest) checkOutputs(found *problems) {
	if len(m.Outputs) > MaxInputs {
		found.add(CodeInput, "outputs", "there are %d; at most %d are allowed", len(m.Outputs), MaxInputs)
	}
	for _, name := range sorted(m.Outputs) {
		o, at := m.Outputs[name], "outputs."+name
		if !valueName.MatchString(name) {
			found.add(CodeInput, at, "a name begins with a letter and has letters, digits and underscores, at most 63")
		}
		if !slices.Contains([]string{TypeString, TypeInteger, TypeNumber, TypeBoolean}, o.Type) {
			found.add(CodeInput, at+".type", "it must be string, integer, number or boolean")
		}
		r, ok := parseReference(o.From)
		if !ok || r.step == "" || !m.hasOutput(r) {
			found.add(CodeReference, at+".from", "%s is no output of a step; it must be steps.ID.NAME", quoted(o.From))
		}
	}
}

// hasOutput is true when the step of r declares the output of r.
func (m *Manifest) hasOutput(r reference) bool {
	return slices.ContainsFunc(m.Workflow.Steps, func(s Step) bool { return s.ID == r.step && slices.Contains(s.Outputs, r.name) })
}

func (m *Manifest) checkDependencies(found *problems) {
	if len(m.Dependencies) > maxItems {
		found.add(CodeManifest, "dependencies", "there are %d; at most %d are allowed", len(m.Dependencies), maxItems)
	}
	seen := map[string]bool{}
	for _, d := range m.Dependencies {
		at := "dependencies." + quoted(d.Name)
		found.take(at, CheckName(d.Name))
		found.take(at, CheckVersion(d.Version))
		if _, err := ParseDigest(d.Digest); err != nil || !strings.HasPrefix(d.Digest, "sha256:") {
			found.add(CodeDigest, at, "a dependency is named by its content: digest: sha256: and 64 hexadecimal digits")
		}
		if seen[d.Name] || d.Name == m.Metadata.Name {
			found.add(CodeManifest, at, "it is there twice, or the package itself")
		}
		seen[d.Name] = true
	}
}
