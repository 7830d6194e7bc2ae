package ingest

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
)

func TestCanonicalJSON(t *testing.T) {
	for in, want := range map[string]string{
		` { "b" : [ 1.50 , true , null ] , "a" : { } } `:  `{"a":{},"b":[1.50,true,null]}`,
		`{"é": "\u00e9\/<>&\u2028", "Z": "\t\u0001\"\\"}`: `{"Z":"\t\u0001\"\\","é":"é/<>&` + "\u2028" + `"}`,
		`[]`: `[]`,
	} {
		v, fault := parseJSON([]byte(in))
		if fault != nil {
			t.Fatal(fault)
		}
		if got := string(appendCanonical(nil, v)); got != want {
			t.Errorf("%s is %s, want %s", in, got, want)
		}
	}
}

// What encoding/json reads is read the same here, and the canonical form is a fixed point.
func FuzzParseJSON(f *testing.F) {
	for _, s := range []string{`{"a": [1, 2.50, "x", null, true, {"b": {}}]}`, `{"a":1,"a":2}`, `"\ud800"`, `[[[]]]`, `-0.0e-5`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		v, fault := parseJSON(b)
		if fault != nil {
			return
		}
		canonical := appendCanonical(nil, v)
		again, fault := parseJSON(canonical)
		if fault != nil || string(appendCanonical(nil, again)) != string(canonical) {
			t.Fatalf("%s is read back as %v, %v", canonical, again, fault)
		}
		if got, want := usual(t, canonical), usual(t, b); !reflect.DeepEqual(got, want) {
			t.Fatalf("%s is read as %s", b, canonical)
		}
	})
}

func usual(t *testing.T, b []byte) any {
	decoder := json.NewDecoder(strings.NewReader(string(b)))
	decoder.UseNumber()
	var v any
	if err := decoder.Decode(&v); err != nil {
		t.Fatalf("%s: %v", b, err)
	}
	return v
}
