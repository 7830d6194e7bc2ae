// Package envoymap turns the descriptors of Envoy's rate limit service into checks of limits, as a
// file says. A descriptor is a list of entries, each with a key and a value, that Envoy's
// configuration makes out of a request.
package envoymap

import (
	"fmt"
	"maps"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/maestro-conductor/maestro/internal/strictyaml"
	"github.com/maestro-conductor/maestro/limiter"
)

// Bounds of a file.
const (
	DomainsMax = 100
	RulesMax   = 200 // of a domain; they are tried one after the other
)

// file is what people write; docs/envoy.md explains it.
type file struct {
	Domains []domainFile `yaml:"domains"`
}

type domainFile struct {
	Domain    string     `yaml:"domain"`
	Unmatched string     `yaml:"unmatched"`
	Rules     []ruleFile `yaml:"rules"`
}

type ruleFile struct {
	Match  map[string]string `yaml:"match"`
	Tenant string            `yaml:"tenant"`
	Token  string            `yaml:"token"`
	Key    string            `yaml:"key"`
	Cost   string            `yaml:"cost"`
}

// hitsAddend is the cost that is what Envoy says.
const hitsAddend = "hits_addend"

// Mapping is a file that was read.
type Mapping struct{ domains map[string]*Domain }

// Domain is how the descriptors of one of Envoy's domains are understood.
type Domain struct {
	// AllowUnmatched lets descriptors pass that are no check; otherwise they are denied.
	AllowUnmatched bool
	rules          []rule
}

type rule struct {
	match              map[string]func(string) bool
	tenant, token, key template
	cost               uint32 // 0 for what Envoy says
}

// Entry is one key of a descriptor with its value.
type Entry struct{ Key, Value string }

// Load reads the file at path. Without an error, problems are everything that is wrong in it.
func Load(path string) (m *Mapping, problems []string, err error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, nil, err
	}
	m, problems = Parse(data)
	return m, problems, nil
}

// Parse reads a file; the mapping is complete when there are no problems.
func Parse(data []byte) (*Mapping, []string) {
	var f file
	p := problems(strictyaml.Decode(data, &f))
	m := &Mapping{domains: map[string]*Domain{}}
	if len(f.Domains) == 0 {
		p.add("domains is empty; list the domains of Envoy's rate limit filters")
	}
	if len(f.Domains) > DomainsMax {
		p.add("domains lists %d; at most %d are read", len(f.Domains), DomainsMax)
	}
	for i, d := range f.Domains {
		at := fmt.Sprintf("domains[%d]", i)
		if d.Domain == "" {
			p.add("%s.domain is empty; write the domain of Envoy's rate limit filter", at)
		}
		if m.domains[d.Domain] != nil {
			p.add("%s.domain %q is listed before", at, d.Domain)
		}
		m.domains[d.Domain] = p.domain(at, d)
	}
	return m, p
}

// Domain finds a domain by its name.
func (m *Mapping) Domain(name string) (*Domain, bool) {
	d, ok := m.domains[name]
	return d, ok
}

// Check is the check that a descriptor means by the first rule that matches it; hits are what Envoy
// says that it costs. It is false for a descriptor that no rule matches, or whose values cannot
// name a tenant, a token or a key.
func (d *Domain) Check(entries []Entry, hits uint32) (limiter.Request, bool) {
	values := make(map[string]string, len(entries))
	for _, e := range entries {
		values[e.Key] = e.Value
	}
	if len(values) != len(entries) {
		return limiter.Request{}, false // which of the values of a key counts, no rule can say
	}
	for i := range d.rules {
		r := &d.rules[i]
		if !r.matches(values) {
			continue
		}
		q := limiter.Request{Tenant: r.tenant.fill(values), Token: r.token.fill(values), Key: r.key.fill(values), Cost: r.cost}
		if q.Cost == 0 {
			q.Cost = hits
		}
		return q, limiter.ValidName(q.Tenant) && validSubject(q.Token) && validSubject(q.Key)
	}
	return limiter.Request{}, false
}

func validSubject(s string) bool { return len(s) <= limiter.SubjectBytesMax && utf8.ValidString(s) }

// matches tells whether a descriptor has the keys of the rule, and no others, with fitting values.
func (r *rule) matches(values map[string]string) bool {
	if len(values) != len(r.match) {
		return false
	}
	for key, fits := range r.match {
		if value, ok := values[key]; !ok || !fits(value) {
			return false
		}
	}
	return true
}

// problems collects what is wrong.
type problems []string

func (p *problems) add(format string, args ...any) { *p = append(*p, fmt.Sprintf(format, args...)) }

func (p *problems) domain(at string, f domainFile) *Domain {
	d := &Domain{AllowUnmatched: f.Unmatched == "allow"}
	if f.Unmatched != "allow" && f.Unmatched != "deny" {
		p.add("%s.unmatched is %q; say what becomes of descriptors that no rule matches: allow or deny", at, f.Unmatched)
	}
	if len(f.Rules) == 0 {
		p.add("%s.rules is empty; a domain needs a rule", at)
	}
	if len(f.Rules) > RulesMax {
		p.add("%s.rules lists %d; at most %d are read", at, len(f.Rules), RulesMax)
	}
	for i, r := range f.Rules {
		d.rules = append(d.rules, p.rule(fmt.Sprintf("%s.rules[%d]", at, i), r))
	}
	return d
}

func (p *problems) rule(at string, f ruleFile) rule {
	r := rule{match: make(map[string]func(string) bool, len(f.Match))}
	if len(f.Match) == 0 {
		p.add("%s.match is empty; name the entries of the descriptors that are meant", at)
	}
	for key, pattern := range f.Match {
		r.match[key] = limiter.Matcher(pattern)
	}
	keys := slices.Sorted(maps.Keys(f.Match))
	r.tenant = p.template(at+".tenant", f.Tenant, keys)
	switch {
	case f.Tenant == "":
		p.add("%s.tenant is empty; name the tenant, or the entry that does, such as \"{tenant_id}\"", at)
	case !strings.ContainsAny(f.Tenant, "{}") && !limiter.ValidName(f.Tenant):
		p.add("%s.tenant %q cannot name a tenant: use 1 to 63 of a-z 0-9 . _ -", at, f.Tenant)
	}
	r.token = p.template(at+".token", f.Token, keys)
	r.key = p.template(at+".key", f.Key, keys)
	for _, part := range []struct{ name, text string }{{"token", f.Token}, {"key", f.Key}} {
		if len(part.text) > limiter.SubjectBytesMax {
			p.add("%s.%s has %d bytes; at most %d are taken", at, part.name, len(part.text), limiter.SubjectBytesMax)
		}
	}
	if f.Cost != "" && f.Cost != hitsAddend {
		n, err := strconv.ParseUint(f.Cost, 10, 32)
		if err != nil || n == 0 {
			p.add("%s.cost is %q; write %s, or a whole number from 1 to %d", at, f.Cost, hitsAddend, uint32(math.MaxUint32))
		}
		r.cost = uint32(n)
	}
	return r
}

// template is text in which {KEY} stands for the value of an entry.
type template []segment

// segment is plain text, or the key of an entry.
type segment struct{ text, key string }

func (t template) fill(values map[string]string) string {
	var b strings.Builder
	for _, s := range t {
		b.WriteString(s.text)
		b.WriteString(values[s.key])
	}
	return b.String()
}

// template reads text that may name the given keys.
func (p *problems) template(at, text string, keys []string) template {
	var t template
	for text != "" {
		plain, rest, open := strings.Cut(text, "{")
		if strings.Contains(plain, "}") {
			p.add("%s has a } without a { before it", at)
			return nil
		}
		if plain != "" {
			t = append(t, segment{text: plain})
		}
		if !open {
			break
		}
		key, after, closed := strings.Cut(rest, "}")
		switch {
		case !closed:
			p.add("%s has a { without a } behind it", at)
			return nil
		case !slices.Contains(keys, key):
			p.add("%s names the entry %q, which is not in match: that has %s", at, key, strings.Join(keys, ", "))
			return nil
		case key == "":
			// An entry without a key cannot be told from plain text.
			p.add("%s has {} without a key", at)
			return nil
		}
		t = append(t, segment{key: key})
		text = after
	}
	return t
}
