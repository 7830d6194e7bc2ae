// Package strictyaml reads small YAML files that people write by hand, and tells them
// everything that is wrong at once: unknown keys with the nearest known one, values of the
// wrong shape, duplicate keys, each with its line.
//
// Anchors and aliases are refused: they make a small file mean a large one. So are merge keys and
// explicit tags, which make a value another than the one that is read.
package strictyaml

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"sort"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// MaxBytes bounds a file.
const MaxBytes = 1 << 20

// Decode reads one YAML document into out, a pointer to a struct whose fields carry yaml
// tags. It returns one message for each problem, in the order of the lines; out is only
// complete when there is none. Fields that the document does not name keep their value.
func Decode(data []byte, out any) []string {
	if len(data) > MaxBytes {
		return []string{fmt.Sprintf("the file has %d bytes; at most %d are read", len(data), MaxBytes)}
	}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc yaml.Node
	if err := dec.Decode(&doc); err != nil {
		if errors.Is(err, io.EOF) {
			return nil // an empty file says nothing, which is not wrong
		}
		return []string{plain(err)}
	}
	var more yaml.Node
	if err := dec.Decode(&more); err == nil {
		return []string{fmt.Sprintf("line %d: a second YAML document begins; only one is read", more.Line)}
	} else if !errors.Is(err, io.EOF) {
		return []string{plain(err)}
	}
	root := doc.Content[0]
	if isNull(root) {
		return nil
	}
	w := walker{}
	w.walk(root, reflect.TypeOf(out).Elem(), "")
	if len(w.problems) > 0 {
		sort.SliceStable(w.problems, func(i, j int) bool { return w.problems[i].line < w.problems[j].line })
		if !w.aliased {
			// Fill out with what can be read, so that the caller can check the rest too; what
			// goes wrong here has been reported already.
			_ = root.Decode(out)
		}
		return w.messages()
	}
	if err := root.Decode(out); err != nil {
		return decodeErrors(err)
	}
	return nil
}

type problem struct {
	line int
	text string
}

// walker compares a document with the type it is meant for.
type walker struct {
	problems []problem
	// aliased is true when the document uses aliases, which must not be followed.
	aliased bool
}

func (w *walker) add(n *yaml.Node, format string, args ...any) {
	w.problems = append(w.problems, problem{n.Line, fmt.Sprintf(format, args...)})
}

func (w *walker) messages() []string {
	var out []string
	for _, p := range w.problems {
		out = append(out, fmt.Sprintf("line %d: %s", p.line, p.text))
	}
	return out
}

func (w *walker) walk(n *yaml.Node, t reflect.Type, path string) {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch {
	case n.Kind == yaml.AliasNode || n.Anchor != "":
		w.aliased = true
		w.add(n, "%s uses an anchor or alias; write the value out", name(path))
	case n.Style&yaml.TaggedStyle != 0:
		w.add(n, "%s has the tag %s; write the value without", name(path), strconv.Quote(n.Tag))
	case isNull(n):
	case t.Kind() == reflect.Interface:
		w.walkAny(n, t, path)
	case t.Kind() == reflect.Struct:
		w.walkStruct(n, t, path)
	case t.Kind() == reflect.Slice:
		if n.Kind != yaml.SequenceNode {
			w.add(n, "%s must be a list", name(path))
			return
		}
		for i, item := range n.Content {
			w.walk(item, t.Elem(), fmt.Sprintf("%s[%d]", path, i))
		}
	case t.Kind() == reflect.Map:
		w.walkMap(n, t, path)
	case n.Kind != yaml.ScalarNode:
		w.add(n, "%s must be %s", name(path), kindName(t))
	default:
		w.checkScalar(n, t, path)
	}
}

func (w *walker) walkStruct(n *yaml.Node, t reflect.Type, path string) {
	if n.Kind != yaml.MappingNode {
		w.add(n, "%s must be a mapping with the keys %s", name(path), strings.Join(Keys(t), ", "))
		return
	}
	fields := fieldsByKey(t)
	w.eachKey(n, path, func(key, value *yaml.Node, full string) {
		field, ok := fields[key.Value]
		if !ok {
			w.add(key, "unknown key %s%s", strconv.Quote(full), suggestion(key.Value, path, Keys(t)))
			return
		}
		w.walk(value, field, full)
	})
}

// walkMap takes any keys, each once.
func (w *walker) walkMap(n *yaml.Node, t reflect.Type, path string) {
	if n.Kind != yaml.MappingNode {
		w.add(n, "%s must be a mapping", name(path))
		return
	}
	w.eachKey(n, path, func(_, value *yaml.Node, full string) { w.walk(value, t.Elem(), full) })
}

// walkAny takes any value, to which the rules about keys, anchors and tags apply.
func (w *walker) walkAny(n *yaml.Node, t reflect.Type, path string) {
	switch n.Kind {
	case yaml.MappingNode:
		w.walkMap(n, reflect.MapOf(reflect.TypeFor[string](), t), path)
	case yaml.SequenceNode:
		for i, item := range n.Content {
			w.walk(item, t, fmt.Sprintf("%s[%d]", path, i))
		}
	default:
		w.checkScalar(n, t, path)
	}
}

// eachKey calls f with the keys of a mapping that are plain words, the first time that each occurs.
func (w *walker) eachKey(n *yaml.Node, path string, f func(key, value *yaml.Node, full string)) {
	seen := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		full := join(path, key.Value)
		if key.Kind != yaml.ScalarNode || key.Anchor != "" || key.Tag == "!!merge" || key.Style&yaml.TaggedStyle != 0 {
			w.aliased = true
			w.add(key, "a key of %s is not a plain word (nor may it be an anchor, alias, merge or tag)", name(path))
			continue
		}
		if line, ok := seen[key.Value]; ok {
			w.add(key, "key %s is given twice, first in line %d", strconv.Quote(full), line)
			continue
		}
		seen[key.Value] = key.Line
		f(key, value, full)
	}
}

func (w *walker) checkScalar(n *yaml.Node, t reflect.Type, path string) {
	v := reflect.New(t)
	if err := n.Decode(v.Interface()); err != nil {
		w.add(n, "%s must be %s, not %s", name(path), kindName(t), strconv.Quote(n.Value))
	}
}

// Keys returns the yaml keys of a struct type in the order of its fields.
func Keys(t reflect.Type) []string {
	var keys []string
	for i := range t.NumField() {
		if k := keyOf(t.Field(i)); k != "" {
			keys = append(keys, k)
		}
	}
	return keys
}

func fieldsByKey(t reflect.Type) map[string]reflect.Type {
	m := map[string]reflect.Type{}
	for i := range t.NumField() {
		if k := keyOf(t.Field(i)); k != "" {
			m[k] = t.Field(i).Type
		}
	}
	return m
}

func keyOf(f reflect.StructField) string {
	k, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
	if k == "-" {
		return ""
	}
	return k
}

// suggestion names the nearest known key, or all of them when none is near.
func suggestion(key, path string, known []string) string {
	if near := Nearest(key, known); near != "" {
		return fmt.Sprintf("; did you mean %s?", strconv.Quote(join(path, near)))
	}
	return "; known keys are " + strings.Join(known, ", ")
}

// Nearest returns the word of known that is closest to word, or "" when none is close
// enough to be a slip of the keyboard.
func Nearest(word string, known []string) string {
	if len(word) > 64 {
		return ""
	}
	best, bestDistance := "", 1+max(1, len(word)/2)
	for _, k := range known {
		if d := distance(strings.ToLower(word), k); d < bestDistance {
			best, bestDistance = k, d
		}
	}
	return best
}

// distance is the Levenshtein distance in bytes.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			substitute := diagonal
			if a[i] != b[j] {
				substitute++
			}
			diagonal = row[j+1]
			row[j+1] = min(substitute, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

func name(path string) string {
	if path == "" {
		return "the document"
	}
	return strconv.Quote(path)
}

func kindName(t reflect.Type) string {
	if t == reflect.TypeFor[time.Duration]() {
		return "a duration with its unit, such as 500ms"
	}
	switch t.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.Int, reflect.Int32, reflect.Int64:
		return "a whole number"
	case reflect.Uint, reflect.Uint32, reflect.Uint64:
		return "a whole number that is not negative"
	default:
		return "one value"
	}
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.Tag == "!!null" }

func decodeErrors(err error) []string {
	var te *yaml.TypeError
	if errors.As(err, &te) {
		return te.Errors
	}
	return []string{plain(err)}
}

func plain(err error) string { return strings.TrimPrefix(err.Error(), "yaml: ") }
