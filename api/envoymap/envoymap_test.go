package envoymap

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/maestro-conductor/maestro/limiter"
)

const sample = `
domains:
  - domain: edge
    unmatched: deny
    rules:
      - match: {tenant_id: "*", api_key: "key-*"}
        tenant: "{tenant_id}"
        token: "{api_key}"
        key: export
      - match: {tenant_id: "*", path: "/v1/*"}
        tenant: "{tenant_id}"
        key: "{path}@{tenant_id}"
        cost: 5
      - match: {tenant_id: "*", path: "*"}
        tenant: other
        cost: hits_addend
`

// The first rule with the keys of a descriptor, and fitting values, says what it means.
func TestDescriptorsBecomeChecks(t *testing.T) {
	m, problems := Parse([]byte(sample))
	if problems != nil {
		t.Fatal(problems)
	}
	d, ok := m.Domain("edge")
	if _, other := m.Domain("Edge"); !ok || other || d.AllowUnmatched {
		t.Fatalf("domain %+v, %v; another one %v", d, ok, other)
	}
	long := strings.Repeat("x", limiter.SubjectBytesMax)
	for _, c := range []struct{ entries, want string }{
		{"tenant_id=acme api_key=key-1", "{acme key-1 export 3 } true"},
		{"api_key=key-1 tenant_id=acme", "{acme key-1 export 3 } true"},
		{"tenant_id=acme api_key=k", "{   0 } false"},
		{"tenant_id=acme path=/v1/runs", "{acme  /v1/runs@acme 5 } true"},
		{"tenant_id=acme path=/v2", "{other   3 } true"},
		{"tenant_id=acme", "{   0 } false"},
		{"tenant_id=acme path=/v1/ more=x", "{   0 } false"},
		{"tenant_id=acme tenant_id=acme", "{   0 } false"},
		{"tenant_id=A path=/v1/", "{A  /v1/@A 5 } false"},
		{"tenant_id=acme api_key=key-\xff", "{acme key-\xff export 3 } false"},
		{"tenant_id=acme api_key=key-" + long, "{acme key-" + long + " export 3 } false"},
		{"", "{   0 } false"},
	} {
		var entries []Entry
		for _, e := range strings.Fields(c.entries) {
			key, value, _ := strings.Cut(e, "=")
			entries = append(entries, Entry{key, value})
		}
		q, ok := d.Check(entries, 3)
		if got := fmt.Sprintf("{%s %s %s %d %s} %t", q.Tenant, q.Token, q.Key, q.Cost, q.RequestID, ok); got != c.want {
			t.Errorf("%s: %s, want %s", c.entries, got, c.want)
		}
	}
}

// Everything that is wrong is reported at once.
func TestProblemsOfAFile(t *testing.T) {
	_, got := Parse([]byte(`
domains:
  - domain: edge
    unmatched: maybe
    rules:
      - match: {tenant_id: "*"}
        tenant: "{tenant}"
        token: "}"
        key: "{tenant_id"
        cost: 0
      - tenant: ACME
        tokn: x
  - domain: edge
    unmatched: allow
    unmatched: deny
    rules: [{match: [x], tenant: acme}]
`))
	want := []string{
		`line 12: unknown key "domains[0].rules[1].tokn"; did you mean "domains[0].rules[1].token"?`,
		`line 15: key "domains[1].unmatched" is given twice, first in line 14`,
		`line 16: "domains[1].rules[0].match" must be a mapping`,
		`domains[0].unmatched is "maybe"; say what becomes of descriptors that no rule matches: allow or deny`,
		`domains[0].rules[0].tenant names the entry "tenant", which is not in match: that has tenant_id`,
		`domains[0].rules[0].token has a } without a { before it`,
		`domains[0].rules[0].key has a { without a } behind it`,
		`domains[0].rules[0].cost is "0"; write hits_addend, or a whole number from 1 to 4294967295`,
		`domains[0].rules[1].match is empty; name the entries of the descriptors that are meant`,
		`domains[0].rules[1].tenant "ACME" cannot name a tenant: use 1 to 63 of a-z 0-9 . _ -`,
	}
	for i := range max(len(got), len(want)) {
		g, w := "", ""
		if i < len(got) {
			g = got[i]
		}
		if i < len(want) {
			w = want[i]
		}
		if g != w {
			t.Errorf("problem %d: %s\nwant %s", i, g, w)
		}
	}
	if _, got := Parse(nil); len(got) != 1 {
		t.Errorf("an empty file: %q", got)
	}
}

// The files of the documentation can be used.
func TestFilesInTheDocumentation(t *testing.T) {
	docs := filepath.Join("..", "..", "docs")
	m, problems, err := Load(filepath.Join(docs, "examples", "envoy", "mapping.yaml"))
	if err != nil || problems != nil || len(m.domains) == 0 {
		t.Errorf("%v, %v", problems, err)
	}
	page, err := os.ReadFile(filepath.Join(docs, "envoy.md"))
	if err != nil {
		t.Fatal(err)
	}
	for i, part := range strings.Split(string(page), "```yaml\n") {
		if file, _, ok := strings.Cut(part, "```"); ok && i > 0 && strings.HasPrefix(file, "domains:") {
			if _, problems := Parse([]byte(file)); problems != nil {
				t.Errorf("%v\n%s", problems, file)
			}
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(sample), "tenant_id", "acme")
	f.Fuzz(func(t *testing.T, data []byte, key, value string) {
		m, problems := Parse(data)
		if problems != nil {
			return
		}
		for _, d := range m.domains {
			if q, ok := d.Check([]Entry{{key, value}}, 1); ok && (!limiter.ValidName(q.Tenant) || q.Cost == 0) {
				t.Fatalf("%+v", q)
			}
		}
	})
}
