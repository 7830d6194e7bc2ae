package mwpkg

import (
	"regexp"
	"strings"

	"github.com/maestro-conductor/maestro/internal/strictyaml"
)

// secret finds texts that are credentials by their form.
var secret = regexp.MustCompile(`-----BEGIN [A-Z ]*PRIVATE KEY-----|\bAKIA[0-9A-Z]{16}\b|\bgh[pousr]_[A-Za-z0-9]{36,}|\bgithub_pat_[A-Za-z0-9_]{40,}|` +
	`\bglpat-[A-Za-z0-9_-]{20,}|\bxox[abeprs]-[A-Za-z0-9-]{10,}|\bsk_live_[A-Za-z0-9]{16,}|\bAIza[A-Za-z0-9_-]{35}\b|` +
	`\beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.|\bmc_[A-Za-z0-9_-]{32,}|://[^/\s:@"'$]+:[^/\s@"'$]+@`)

// ParseManifest reads manifest.yaml and checks it, without the files that it names. The error is an
// *Error that names every problem.
func ParseManifest(data []byte) (*Manifest, error) {
	m := &Manifest{}
	if err := decode(ManifestPath, data, m, CodeManifest); err != nil {
		return nil, err
	}
	if err := m.check(); err != nil {
		return nil, err
	}
	return m, nil
}

func (m *Manifest) parseExample(path string, data []byte) (*Example, error) {
	e := &Example{}
	if err := decode(path, data, e, CodeExample); err != nil {
		return nil, err
	}
	var found problems
	m.checkExample(e, &found)
	for _, p := range found {
		p.Code = CodeExample
		p.Subject = strings.TrimSuffix(path+": "+p.Subject, ": ")
	}
	if err := found.err(); err != nil {
		return nil, err
	}
	return e, nil
}

// decode reads a small YAML file strictly.
func decode(path string, data []byte, out any, code Code) error {
	switch {
	case len(data) > MaxManifest:
		return refuse(code, path, "the file has %d bytes; at most %d are read", len(data), MaxManifest)
	case !isText(data):
		return refuse(code, path, "the file is not UTF-8 text")
	case secret.Match(data):
		return refuse(CodeSecret, path, "the file holds what looks like a credential").
			hint("declare an input of type secretRef and give its value in a variable of env")
	}
	var found problems
	for _, text := range strictyaml.Decode(data, out) {
		found.add(code, path, "%s", text)
	}
	return found.err()
}
