package ingest

import (
	"errors"
	"strings"
	"testing"
)

// All mistakes are told at once, each with its line.
func TestParseMappingTellsEveryMistake(t *testing.T) {
	_, err := ParseMapping([]byte(`records: [a]
kind: {const: evnt}
tenant: {const: ACME}
id: eventID
time: {from: at, layout: iso}
task: {from: a..b}
pack: {from: a, const: b}
rule: {}
runner: {from: a, split: ":"}
reason: {from: a, index: 1}
decision: {from: a, split: ":", index: first}
execution: {from: a, layout: unix}
execution: {from: b}
owner: {from: c}
digests:
  - {from: a}
  - {from: b, direction: up}
  - c
cost: {from: a, currency: usd}
attributes: some
`))
	var mistakes *MappingError
	if !errors.As(err, &mistakes) {
		t.Fatalf("got %v", err)
	}
	want := `mapping file: line 1: records: expected a text that is not empty
mapping file: line 2: kind: "evnt" is not a kind of document; use receipt, event or decision
mapping file: line 3: tenant: "ACME" cannot name a tenant; use 1 to 63 of a-z, 0-9, '.', '_' and '-'
mapping file: line 4: id: expected fields, such as {from: PATH} or {const: VALUE}
mapping file: line 5: time.layout: "iso" is not a layout; use rfc3339, unix, unix_ms, or write the time 2006-01-02 15:04:05 the way your times look
mapping file: line 6: task.from: "a..b" is not a path; write names with single dots between them
mapping file: line 7: pack: give either from (a path) or const (a value)
mapping file: line 8: rule: give either from (a path) or const (a value)
mapping file: line 9: runner: split needs index, the part to take (0 is the first, -1 the last)
mapping file: line 10: reason: index needs split
mapping file: line 11: decision.index: expected a whole number
mapping file: line 12: execution has no field "layout"; the fields are from, const, split, index
mapping file: line 13: the mapping: the field execution is there twice
mapping file: line 14: the mapping has no field "owner"; the fields are records, time, digests, cost, attributes, id, kind, tenant, region, execution, task, pack, rule, decision, reason, runner
mapping file: line 16: digests[0].direction: "" is not a direction; use input, output or subject
mapping file: line 17: digests[1].direction: "up" is not a direction; use input, output or subject
mapping file: line 18: digests[2]: expected fields, such as {from: PATH} or {const: VALUE}
mapping file: line 18: digests[2].direction: "" is not a direction; use input, output or subject
mapping file: line 19: cost.currency: "usd" is not an ISO 4217 code of three upper-case letters, such as USD
mapping file: line 20: attributes: expected all, or a list of paths`
	if got := err.Error(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestParseMappingRefusesTheWholeFile(t *testing.T) {
	for input, want := range map[string]string{
		"":                                        "the file is empty",
		"# nothing\n":                             "the file is empty",
		"kind: {const: event\n":                   "yaml: line",
		"kind: {const: event}\n---\nkind: 1\n":    "a second document begins",
		"- kind\n":                                "the mapping: expected fields",
		"id: {from: a}\n":                         "kind is missing",
		"kind: &k {const: event}\nid: *k\n":       "line 2: id: expected fields",
		strings.Repeat("#", MaxMappingBytes+1):    "more than the 65536 allowed",
		"attributes: [a, a]\nkind: {from: k}":     `attributes[1]: the path "a" is there twice`,
		"cost: {const: '1'}\nkind: {const: null}": "kind.const: expected a text",
	} {
		if _, err := ParseMapping([]byte(input)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: got %v, want %s", input, err, want)
		}
	}
}

func TestLookupFindsNamesWithDots(t *testing.T) {
	v, fault := parseJSON([]byte(`{"a": {"b": 1, "b.c": 2}, "a.b.d": 3, "e": [{"f": 4}, null], "g": null, "a.x": {}}`))
	if fault != nil {
		t.Fatal(fault)
	}
	for path, want := range map[string]string{
		"a.b": "1", "a.b.c": "2", "a.b.d": "3", "e.0.f": "4",
		"e.1": "", "e.2": "", "e.-1": "", "e.x": "", "g": "", "a.b.c.d": "", "a.x.b": "", "zzz": "", "": "",
	} {
		if got, _ := lookup(v, path).scalar(); got != want {
			t.Errorf("%s leads to %q, want %q", path, got, want)
		}
	}
}

func FuzzParseMapping(f *testing.F) {
	for _, s := range []string{
		"kind: {const: event}\nattributes: all\n",
		"records: a.b\nkind: {from: k}\ntime: {from: t, layout: unix}\nid: {from: i, split: ':', index: -1}\n",
		"kind: {const: receipt}\ndigests: [{from: d, split: ',', direction: output, name: n, algorithm: md5}]\ncost: {from: c, currency: EUR}\nattributes: [a, b.c]\n",
		"a: &a [*a]\n", "---\n---\n", "? [x]\n: y\n", "kind: !!binary aGk=\n", "<<: {kind: x}\n",
	} {
		f.Add([]byte(s), []byte(`{"a": {"b": [{"k": "event", "t": 1, "i": "a:b"}]}, "d": "x,y", "c": 1.5}`))
	}
	f.Fuzz(func(t *testing.T, file, content []byte) {
		m, err := ParseMapping(file)
		if err != nil {
			return
		}
		readHostile(t, content, Options{Format: FormatJSON, Mapping: m, Tenant: "acme"})
	})
}
