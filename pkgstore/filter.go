package pkgstore

import "strings"

// PageMax bounds a page of packages or installs.
const PageMax = 200

// Filter keeps some packages of a list; empty fields keep all.
type Filter struct {
	// Text are words that all stand in the name, title, description or capabilities, whatever their case.
	Text string
	// Capability is one that the package declares: network, secrets or commands, or one of these and what it
	// is for, such as network:db.example:5432.
	Capability string
	// Name is the whole name.
	Name string
	// Signer is a key that has signed the package.
	Signer *Digest
}

// Words are those of Text, to be given to Matches.
func (f *Filter) Words() []string { return strings.Fields(strings.ToLower(f.Text)) }

// Matches tells whether the filter keeps a package.
func (f *Filter) Matches(p *Package, words []string) bool {
	if f.Name != "" && f.Name != p.Name {
		return false
	}
	if f.Signer != nil && !p.signedBy(*f.Signer) {
		return false
	}
	if f.Capability != "" && !p.declares(f.Capability) {
		return false
	}
	if len(words) == 0 {
		return true
	}
	text := strings.ToLower(strings.Join([]string{p.Name, p.Title, p.Description, strings.Join(p.Capabilities, " ")}, "\n"))
	for _, w := range words {
		if !strings.Contains(text, w) {
			return false
		}
	}
	return true
}

func (p *Package) signedBy(key Digest) bool {
	for _, s := range p.Signatures {
		if s.Key == key {
			return true
		}
	}
	return false
}

func (p *Package) declares(capability string) bool {
	for _, c := range p.Capabilities {
		if c == capability || strings.HasPrefix(c, capability+":") {
			return true
		}
	}
	return false
}
