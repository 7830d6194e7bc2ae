package strictyaml

import (
	"strings"
	"testing"
)

type garden struct {
	Name string `yaml:"name"`
	Beds []bed  `yaml:"beds"`
	Pond *pond  `yaml:"pond"`
}

type bed struct {
	Plant string `yaml:"plant"`
	Rows  int    `yaml:"rows"`
}

type pond struct {
	Fish bool `yaml:"fish"`
}

func TestDecodeReadsWhatIsRight(t *testing.T) {
	g := garden{Name: "default"}
	problems := Decode([]byte("beds:\n- {plant: leek, rows: 3}\npond: {fish: true}\n"), &g)
	if len(problems) > 0 {
		t.Fatalf("problems: %q", problems)
	}
	if g.Name != "default" || len(g.Beds) != 1 || g.Beds[0].Rows != 3 || !g.Pond.Fish {
		t.Fatalf("decoded %+v", g)
	}
}

// A field of any type takes any value, whose keys are strict all the same.
func TestDecodeReadsAnyValue(t *testing.T) {
	var out struct {
		Value any            `yaml:"value"`
		Map   map[string]any `yaml:"map"`
	}
	if problems := Decode([]byte("value: [1, {a: b}]\nmap: {x: true, y: [z]}\n"), &out); len(problems) > 0 {
		t.Fatalf("problems: %q", problems)
	}
	if list, ok := out.Value.([]any); !ok || len(list) != 2 || out.Map["x"] != true {
		t.Errorf("decoded %+v", out)
	}
	for text, want := range map[string]string{
		"value: {a: 1, a: 2}":       `line 1: key "value.a" is given twice, first in line 1`,
		"value: [&x 1, *x]":         `line 1: "value[0]" uses an anchor or alias; write the value out`,
		"value: !!binary aGk=":      `line 1: "value" has the tag "!!binary"; write the value without`,
		"map:\n  <<: {x: 1}":        `line 2: a key of "map" is not a plain word (nor may it be an anchor, alias, merge or tag)`,
		"map: {x: [[{y: !own 1}]]}": `line 1: "map.x[0][0].y" has the tag "!own"; write the value without`,
	} {
		if problems := Decode([]byte(text), &out); len(problems) == 0 || problems[0] != want {
			t.Errorf("%s gives %q, want %q", text, problems, want)
		}
	}
}

func TestDecodeReportsEveryProblemWithItsLine(t *testing.T) {
	for _, tc := range []struct{ name, yaml, want string }{
		{"empty is not wrong", "", ""},
		{"null is not wrong", "# nothing\n~\n", ""},
		{"near miss", "nmae: x", `line 1: unknown key "nmae"; did you mean "name"?`},
		{"far miss", "zzzzzzzz: x", `line 1: unknown key "zzzzzzzz"; known keys are name, beds, pond`},
		{"nested near miss", "beds:\n- plant: leek\n  row: 1", `line 3: unknown key "beds[0].row"; did you mean "beds[0].rows"?`},
		{"wrong shapes", "name: [a]\nbeds: 3\npond: yes please\n", "line 1: \"name\" must be one value\n" +
			"line 2: \"beds\" must be a list\nline 3: \"pond\" must be a mapping with the keys fish"},
		{"wrong scalar", "beds: [{rows: many}]", `line 1: "beds[0].rows" must be a whole number, not "many"`},
		{"wrong bool", "pond: {fish: 12}", `line 1: "pond.fish" must be true or false, not "12"`},
		{"twice", "name: a\nname: b", `line 2: key "name" is given twice, first in line 1`},
		{"alias", "name: &n a\nbeds: [{plant: *n}]", "line 1: \"name\" uses an anchor or alias; write the value out\n" +
			`line 2: "beds[0].plant" uses an anchor or alias; write the value out`},
		{"not a mapping", "- a", `line 1: the document must be a mapping with the keys name, beds, pond`},
		{"two documents", "name: a\n---\nname: b", `line 2: a second YAML document begins; only one is read`},
		{"syntax", "name: [", `line 1: did not find expected node content`},
		{"too big", strings.Repeat("#", MaxBytes+1), `the file has 1048577 bytes; at most 1048576 are read`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var g garden
			if got := strings.Join(Decode([]byte(tc.yaml), &g), "\n"); got != tc.want {
				t.Errorf("got  %s\nwant %s", got, tc.want)
			}
		})
	}
}

func TestDecodeFillsWhatItCanBesideProblems(t *testing.T) {
	var g garden
	problems := Decode([]byte("name: kitchen\ncolour: green\n"), &g)
	if len(problems) != 1 || g.Name != "kitchen" {
		t.Fatalf("problems %q, decoded %+v", problems, g)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte("name: a\nbeds:\n- {plant: leek, rows: 3}\n"))
	f.Add([]byte("? [a]\n: b\n"))
	f.Add([]byte("<<: {name: a}\n&a b: *a\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		var g garden
		Decode(data, &g)
	})
}
