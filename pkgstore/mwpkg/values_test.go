package mwpkg

import (
	"reflect"
	"strings"
	"testing"
	"time"
)

// testValues is a run in which build succeeded, test failed and deploy was skipped.
var testValues = Values{
	Inputs: map[string]any{"n": int64(3), "f": 2.5, "yes": true, "no": false, "word": "a b", "list": []any{"x", int64(1)}},
	Steps: map[string]StepResult{
		"build":  {StatusSucceeded, map[string]string{"image": "i@1", "three": "3", "flag": "true"}},
		"test":   {StatusFailed, nil},
		"deploy": {StatusSkipped, nil},
	},
}

func TestConditions(t *testing.T) {
	for text, want := range map[string]bool{
		"":                             true,
		"true":                         true,
		"false":                        false,
		"inputs.yes":                   true,
		"inputs.no":                    false,
		"!inputs.no":                   true,
		"!!inputs.no":                  false,
		"inputs.absent":                false,
		"inputs.word":                  false,
		`inputs.word == "a b"`:         true,
		`inputs.word != "a b"`:         false,
		"inputs.n == 3":                true,
		`inputs.n == "3"`:              true,
		"inputs.n == -3":               false,
		"inputs.f == 2.5":              true,
		"inputs.yes == true":           true,
		`inputs.absent == ""`:          false,
		`inputs.absent != ""`:          true,
		"steps.build.ok":               true,
		"steps.test.ok":                false,
		"steps.test.failed":            true,
		"steps.deploy.skipped":         true,
		"steps.build.flag":             true,
		"steps.build.three == 3":       true,
		`steps.build.image == "i@1"`:   true,
		"steps.build.absent == 1":      false,
		"false && false || true":       true,
		"false && (false || true)":     false,
		"true || false && false":       true,
		"!(steps.build.ok && false)":   true,
		" inputs.yes\n&&\tinputs.n==3": true,
	} {
		c, err := ParseCondition(text)
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		if got := c.Eval(testValues); got != want {
			t.Errorf("%q is %v", text, got)
		}
		if asks := strings.Contains(text, "steps."); c.AsksSteps() != asks {
			t.Errorf("%q asks for steps: %v", text, !asks)
		}
	}
	for _, text := range []string{
		"inputs", "inputs.", "inputs.a.b", "steps.a", "steps.a.b.c", "x", "== 1", "1 ==", "1 == 2 == 3", "(true", "true)", "true &&", "&& true", "true true", "true & false",
		`"open`, `"a\"b"`, "inputs.a = 1", "inputs.a < 1", "f(1)", "!", "()", "inputs.a;", "\xff", strings.Repeat("!", 600) + "true", strings.Repeat("(", 300) + "true",
	} {
		_, err := ParseCondition(text)
		if !isCode(err, CodeExpression) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestExpand(t *testing.T) {
	for text, want := range map[string]string{
		"plain": "plain", "": "", "${HOME}": "${HOME}", "$x": "$x",
		"${inputs.n}": "3", "${inputs.f}": "2.5", "${inputs.yes}": "true", "${inputs.word}": "a b", "${inputs.list}": `["x",1]`,
		"${steps.build.image}": "i@1",
	} {
		if got, ok := testValues.Expand(text); !ok || got != want {
			t.Errorf("%q is %q, %v; want %q", text, got, ok, want)
		}
	}
	for _, text := range []string{"${inputs.absent}", "${steps.test.image}", "${steps.none.image}", "x ${inputs.n}"} {
		if got, ok := testValues.Expand(text); ok {
			t.Errorf("%q is %q", text, got)
		}
	}
}

func TestResolve(t *testing.T) {
	m, err := ParseManifest([]byte(goodManifest))
	if err != nil {
		t.Fatal(err)
	}
	got, err := m.Resolve(map[string]any{"database": "shop", "dsn": "drills/shop", "minutes": 5.0})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]any{"database": "shop", "dsn": "drills/shop", "minutes": int64(5), "tables": []any{"users"}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("resolved to %#v, want %#v", got, want)
	}
	for name, v := range map[string]any{
		"database": "SHOP", "dsn": "a b", "minutes": 61, "tables": []any{1}, "other": 1,
	} {
		values := map[string]any{"database": "shop", "dsn": "drills/shop", name: v}
		_, err := m.Resolve(values)
		wantCode(t, err, CodeValue)
		if !strings.Contains(err.Error(), "inputs."+name) {
			t.Errorf("the refusal of %s does not name it: %v", name, err)
		}
	}
	for _, v := range []any{nil, true, "5", 5.5, 1e300, time.Second, []any{5}} {
		if _, err := (Input{Type: TypeInteger}).value(v); !isCode(err, CodeValue) {
			t.Errorf("%v as an integer: %v", v, err)
		}
	}
	most := 2
	enum := Input{Type: TypeString, Enum: []any{"a", "b"}, MaxLength: &most}
	if _, err := enum.value("a"); err != nil {
		t.Error(err)
	}
	for _, v := range []any{"c", "abc", 1} {
		if _, err := enum.value(v); !isCode(err, CodeValue) {
			t.Errorf("%v as one of two texts: %v", v, err)
		}
	}
}

func TestVersions(t *testing.T) {
	m := Manifest{Engine: ">=0.4.0 <1.0.0"}
	for version, want := range map[string]bool{"0.3.9": false, "0.4.0": true, "0.9.0": true, "1.0.0": false, "0.4.0-rc.1": false, "2.0.0": false} {
		if m.RunsOn(version) != want {
			t.Errorf("%s is in %s: %v", version, m.Engine, !want)
		}
	}
	for engine, want := range map[string]bool{">1.0.0": false, "=1.0.0": true, "<=1.0.0": true, "<1.0.0": false, ">=1.0.0": true, "": false, "=0.9.0": false} {
		if (&Manifest{Engine: engine}).RunsOn("1.0.0") != want {
			t.Errorf("1.0.0 is in %q: %v", engine, !want)
		}
	}
	order := []string{"0.1.0-alpha", "0.1.0-alpha.1", "0.1.0", "0.1.1", "0.10.0", "1.0.0-rc.1", "1.0.0"}
	for i := 1; i < len(order); i++ {
		if CompareVersions(order[i-1], order[i]) >= 0 || CompareVersions(order[i], order[i-1]) <= 0 {
			t.Errorf("%s is not before %s", order[i-1], order[i])
		}
	}
	if ref, err := ParseRef("acme/x@1.0.0-rc.1"); err != nil || ref != (Ref{"acme/x", "1.0.0-rc.1"}) || Publisher(ref.Name) != "acme" || Publisher("x") != "" {
		t.Errorf("parsed as %v, %v", ref, err)
	}
	for _, text := range []string{"x", "x@", "@1.0.0", "a/b/c@1.0.0", "x@v1.0.0", "x@1.0.0@1.0.0"} {
		if _, err := ParseRef(text); err == nil {
			t.Errorf("%q was read", text)
		}
	}
	d := digestOf([]byte("x"))
	for _, text := range []string{d.String(), "sha256:" + d.String()} {
		if got, err := ParseDigest(text); err != nil || got != d {
			t.Errorf("%q: %v", text, err)
		}
	}
	for _, text := range []string{"", "sha256:", d.String()[1:], d.String() + "0", strings.ToUpper(d.String()), "sha1:" + d.String(), strings.Repeat("g", 64)} {
		_, err := ParseDigest(text)
		wantCode(t, err, CodeDigest)
	}
}
