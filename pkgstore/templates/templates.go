// Package templates holds the curated packages that come with Maestro: workflows for platform teams, each a
// folder with a manifest, a README, steps in POSIX shell, and examples that run without a network.
package templates

import (
	"embed"
	"fmt"
	"io/fs"

	"github.com/sigstore/sigstore/pkg/signature"

	"github.com/maestro-conductor/maestro/pkgstore/mwpkg"
)

//go:embed */*
var files embed.FS

// Publisher is in front of the name of each template: maestro/NAME.
const Publisher = "maestro"

// Template is the source of a package.
type Template struct {
	// Name is the template's folder, and its package's name without the publisher.
	Name  string
	Files fs.FS
}

// All are the templates in the order of their names.
func All() []Template {
	entries, err := files.ReadDir(".")
	if err != nil {
		panic(err) // the root of what was embedded
	}
	var all []Template
	for _, e := range entries {
		sub, err := fs.Sub(files, e.Name())
		if err != nil {
			panic(err) // a name that ReadDir gave
		}
		all = append(all, Template{e.Name(), sub})
	}
	return all
}

// Build makes the package of a template, without signatures: the same content, and so the same digest, in every build.
func (t *Template) Build() (*mwpkg.Package, error) {
	p, err := mwpkg.Build(t.Files)
	if err != nil {
		return nil, fmt.Errorf("template %s: %w", t.Name, err)
	}
	return p, nil
}

// Packages builds all templates and signs each with signer.
func Packages(signer signature.Signer) ([]*mwpkg.Package, error) {
	var out []*mwpkg.Package
	for _, t := range All() {
		p, err := t.Build()
		if err != nil {
			return nil, err
		}
		if p, err = p.Sign(signer); err != nil {
			return nil, fmt.Errorf("template %s: %w", t.Name, err)
		}
		out = append(out, p)
	}
	return out, nil
}
