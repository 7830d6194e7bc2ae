package query

import (
	"errors"
	"math"
	"os"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// testdata/parse.txt is the language by example.
func TestParseGolden(t *testing.T) {
	b, err := os.ReadFile("testdata/parse.txt")
	if err != nil {
		t.Fatal(err)
	}
	var text string
	for i, line := range strings.Split(string(b), "\n") {
		switch {
		case line == "" || strings.HasPrefix(line, "#"):
		case strings.HasPrefix(line, "=> "):
			n, err := Parse(text)
			if err != nil {
				t.Errorf("line %d: %s: %v", i+1, text, err)
			} else if want := strings.TrimPrefix(line, "=> "); n.String() != want {
				t.Errorf("line %d: %s means %s, want %s", i+1, text, n, want)
			}
		case strings.HasPrefix(line, "!! "):
			_, err := Parse(text)
			if want := strings.TrimPrefix(line, "!! "); err == nil || err.Error() != want {
				t.Errorf("line %d: %s: error %v, want %s", i+1, text, err, want)
			}
			if !errors.Is(err, ErrInvalid) {
				t.Errorf("line %d: %s: %v is not ErrInvalid", i+1, text, err)
			}
		default:
			text = strings.Replace(line, "<empty>", "", 1)
		}
	}
}

func TestParseLimits(t *testing.T) {
	for name, text := range map[string]string{
		"too long":       strings.Repeat("a", TextBytesMax+1),
		"too many terms": strings.Repeat("a ", TermsMax+1),
		"too deep":       strings.Repeat("(", DepthMax+1) + "a" + strings.Repeat(")", DepthMax+1),
		"too negative":   strings.Repeat("NOT ", DepthMax+1) + "a",
		"not UTF-8":      "\xff",
	} {
		if _, err := Parse(text); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: error %v", name, err)
		}
	}
	for name, text := range map[string]string{
		"longest":    strings.Repeat("a", TextBytesMax),
		"most terms": strings.Repeat("a ", TermsMax),
		"deepest":    strings.Repeat("(", DepthMax) + "a" + strings.Repeat(")", DepthMax),
	} {
		if _, err := Parse(text); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

var genText = rapid.OneOf(rapid.StringN(1, 10, -1), rapid.SampledFrom([]string{"AND", "OR", "NOT", "-a", "a*", "*", "a:b", `"`, `\`, "[x", ">1", "a b", "(", ")", "sha256:00", "TO"}))

func genNode(rt *rapid.T, depth int) Node {
	kind := rapid.IntRange(0, 7).Draw(rt, "kind")
	if depth == 0 {
		kind = min(kind, 4)
	}
	switch kind {
	case 0:
		return &All{}
	case 1:
		from := rapid.OneOf(rapid.Just(int64(math.MinInt64)), rapid.Int64Range(math.MinInt64+1e10, math.MaxInt64-1e10)).Draw(rt, "from")
		to := rapid.OneOf(rapid.Just(int64(math.MaxInt64)), rapid.Int64Range(from+1, math.MaxInt64)).Draw(rt, "to")
		return &TimeRange{From: from, To: to}
	case 2:
		least := rapid.OneOf(rapid.Just(int64(math.MinInt64)), rapid.Int64Range(math.MinInt64+1, math.MaxInt64)).Draw(rt, "least")
		return &CostRange{Min: least, Max: rapid.Int64Range(least, math.MaxInt64).Draw(rt, "most")}
	case 3:
		return &Word{Value: genText.Draw(rt, "word"), Prefix: rapid.Bool().Draw(rt, "prefix")}
	case 4:
		field := rapid.SampledFrom(append([]Field{Attr}, Fields[:len(Fields)-2]...)).Draw(rt, "field")
		term := &Term{Field: field, Value: genText.Draw(rt, "value"), Prefix: rapid.Bool().Draw(rt, "prefix")}
		if field == Attr {
			term.Name = genText.Draw(rt, "name")
		}
		return term
	case 5:
		return &Not{Node: genNode(rt, depth-1)}
	}
	nodes := make([]Node, 0, 3)
	for range rapid.IntRange(2, 3).Draw(rt, "operands") {
		n := genNode(rt, depth-1)
		// A tree in normal form has no AND directly in an AND.
		for reflect.TypeOf(n) == reflect.TypeFor[*And]() && kind == 6 || reflect.TypeOf(n) == reflect.TypeFor[*Or]() && kind == 7 {
			n = genNode(rt, 0)
		}
		nodes = append(nodes, n)
	}
	if kind == 6 {
		return &And{Nodes: nodes}
	}
	return &Or{Nodes: nodes}
}

// What String writes, Parse reads back as the same tree.
func TestStringRoundTrip(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		n := genNode(rt, 4)
		text := n.String()
		if len(text) > TextBytesMax {
			rt.Skip("longer than a query")
		}
		back, err := Parse(text)
		if err != nil {
			rt.Fatalf("%s: %v", text, err)
		}
		if clearPositions(back); !reflect.DeepEqual(back, n) {
			rt.Fatalf("%s reads back as %s", text, back)
		}
	})
}

// Amounts reach to both ends of what 64 bits of millionths express, and not beyond.
func TestAmountsAtTheEnds(t *testing.T) {
	for text, ok := range map[string]bool{
		"cost:[-9223372036854.775808 TO *]": true,
		"cost:[* TO -9223372036854.775808]": true,
		"cost:[* TO 9223372036854.775807]":  true,
		"cost:[-9223372036854.775809 TO *]": false,
		"cost:[* TO 9223372036854.775808]":  false,
	} {
		if _, err := Parse(text); (err == nil) != ok {
			t.Errorf("%s: error %v, want to be read: %t", text, err, ok)
		}
	}
}

func clearPositions(n Node) {
	switch n := n.(type) {
	case *Term:
		n.Position = 0
	case *Word:
		n.Position = 0
	case *TimeRange:
		n.Position = 0
	case *CostRange:
		n.Position = 0
	case *Not:
		clearPositions(n.Node)
	case *And:
		for _, k := range n.Nodes {
			clearPositions(k)
		}
	case *Or:
		for _, k := range n.Nodes {
			clearPositions(k)
		}
	}
}

// Any text parses to a tree whose text means the same, or is refused at a place in the text.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"", "kind:event AND attr.x:y", `"a b"* OR -(c d)`, "cost:[0.1 TO *]", "time:>2023-07-10", "NOT", "a:\"", "é knid:x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		n, err := Parse(text)
		if err != nil {
			var bad *Error
			if !errors.As(err, &bad) || bad.Position < 0 || bad.Position > len([]rune(text)) || bad.Message == "" {
				t.Fatalf("%q: error %#v", text, err)
			}
			return
		}
		canonical := n.String()
		back, err := Parse(canonical)
		if err != nil && len(canonical) <= TextBytesMax {
			t.Fatalf("%q means %q: %v", text, canonical, err)
		}
		if err == nil && back.String() != canonical {
			t.Fatalf("%q means %q, which means %q", text, canonical, back)
		}
	})
}
