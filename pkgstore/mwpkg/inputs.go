package mwpkg

import (
	"fmt"
	"math"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"
)

var (
	// valueName is a name of an input or output; conditions and placeholders hold it.
	valueName = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_]{0,62}$`)
	// secretName is what the value of a secretRef may be: a name that the runner looks up.
	secretName = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_./-]{0,199}$`)
)

// Bounds of values.
const (
	maxText     = 64 << 10 // bytes of a string
	maxElements = 1000     // of an array
	maxPattern  = 500      // bytes
)

func (m *Manifest) checkInputs(found *problems) {
	if len(m.Inputs) > MaxInputs {
		found.add(CodeInput, "inputs", "there are %d; at most %d are allowed", len(m.Inputs), MaxInputs)
		return
	}
	for _, name := range sorted(m.Inputs) {
		in, at := m.Inputs[name], "inputs."+name
		if !valueName.MatchString(name) {
			found.add(CodeInput, at, "a name begins with a letter and has letters, digits and underscores, at most 63")
		}
		if utf8.RuneCountInString(in.Description) > maxDescription {
			found.add(CodeInput, at, "its description has more than %d characters", maxDescription)
		}
		in.check(at, found)
	}
}

// check refuses a declaration that no value can fit, or with fields that do not belong to its type.
func (in Input) check(at string, found *problems) {
	text, numeric, array := in.Type == TypeString, in.Type == TypeInteger || in.Type == TypeNumber, in.Type == TypeArray
	if !text && !numeric && !array && in.Type != TypeBoolean && in.Type != TypeSecret {
		found.add(CodeInput, at+".type", "it must be string, integer, number, boolean, array or secretRef")
		return
	}
	for _, f := range []struct {
		name        string
		set, belong bool
	}{
		{"enum", in.Enum != nil, text || numeric},
		{"minimum", in.Minimum != nil, numeric},
		{"maximum", in.Maximum != nil, numeric},
		{"minLength", in.MinLength != nil, text},
		{"maxLength", in.MaxLength != nil, text},
		{"pattern", in.Pattern != "", text},
		{"items", in.Items != nil, array},
		{"maxItems", in.MaxItems != nil, array},
	} {
		if f.set && !f.belong {
			found.add(CodeInput, at+"."+f.name, "it does not belong to the type %s", in.Type)
		}
	}
	checkPattern(at+".pattern", in.Pattern, found)
	if array {
		in.Items.check(at+".items", found)
	}
	if in.Minimum != nil && in.Maximum != nil && *in.Minimum > *in.Maximum ||
		in.MinLength != nil && in.MaxLength != nil && *in.MinLength > *in.MaxLength {
		found.add(CodeInput, at, "the least is above the most")
	}
	for _, v := range in.Enum {
		bare := Input{Type: in.Type}
		if _, err := bare.value(v); err != nil {
			found.add(CodeInput, at+".enum", "%s is not of the type %s", quoted(fmt.Sprint(v)), in.Type)
		}
	}
	in.checkDefault(at+".default", found)
}

func (in Input) checkDefault(at string, found *problems) {
	switch {
	case in.Default == nil:
		return
	case in.Required:
		found.add(CodeInput, at, "an input that is required has no default")
	case in.Type == TypeSecret:
		found.add(CodeSecret, at, "a secret has no default")
	}
	if opening.MatchString(fmt.Sprint(in.Default)) {
		found.add(CodeExpression, at, "a default is a value; nothing in it is replaced")
		return
	}
	if _, err := in.value(in.Default); err != nil {
		found.add(CodeInput, at, "%v", detail(err))
	}
}

func (it *Items) check(at string, found *problems) {
	switch {
	case it == nil || !slices.Contains([]string{TypeString, TypeInteger, TypeNumber, TypeBoolean}, it.Type):
		found.add(CodeInput, at+".type", "an array has items of string, integer, number or boolean")
	case it.Pattern != "" && it.Type != TypeString:
		found.add(CodeInput, at+".pattern", "it does not belong to the type %s", it.Type)
	default:
		checkPattern(at+".pattern", it.Pattern, found)
	}
}

func checkPattern(at, pattern string, found *problems) {
	if _, err := regexp.Compile(pattern); err != nil || len(pattern) > maxPattern {
		found.add(CodeInput, at, "it must be a regular expression of RE2 with at most %d bytes", maxPattern)
	}
}

// Resolve checks values for the inputs of a run and gives them with the defaults of those that
// are absent. It takes numbers of any of Go's types; integers come back as int64, numbers as float64, arrays as []any.
func (m *Manifest) Resolve(values map[string]any) (map[string]any, error) {
	var found problems
	out := map[string]any{}
	for _, name := range sorted(values) {
		if _, ok := m.Inputs[name]; !ok {
			found.add(CodeValue, "inputs."+name, "there is no such input")
		}
	}
	for _, name := range sorted(m.Inputs) {
		in := m.Inputs[name]
		v, given := values[name]
		if !given || v == nil {
			v = in.Default
		}
		if v == nil {
			if in.Required {
				found.add(CodeValue, "inputs."+name, "a value is required")
			}
			continue
		}
		checked, err := in.value(v)
		if err != nil {
			found.take("inputs."+name, err)
			continue
		}
		out[name] = checked
	}
	if err := found.err(); err != nil {
		return nil, err
	}
	return out, nil
}

// value checks v and gives it in the type that it has everywhere.
func (in Input) value(v any) (any, error) {
	out, err := scalar(in.Type, v)
	if in.Type == TypeArray {
		out, err = in.array(v)
	}
	if err != nil {
		return nil, err
	}
	switch v := out.(type) {
	case string:
		n := utf8.RuneCountInString(v)
		switch {
		case in.Type == TypeSecret && !secretName.MatchString(v):
			return nil, refuse(CodeValue, "", "it must be the name of a secret: letters, digits and _./-, at most 200")
		case in.MinLength != nil && n < *in.MinLength || in.MaxLength != nil && n > *in.MaxLength:
			return nil, refuse(CodeValue, "", "it has %d characters, which is outside of its bounds", n)
		case !matches(in.Pattern, v):
			return nil, refuse(CodeValue, "", "it does not match %s", in.Pattern)
		}
	case int64:
		err = in.within(float64(v))
	case float64:
		err = in.within(v)
	}
	if err == nil && in.Enum != nil && !slices.ContainsFunc(in.Enum, func(e any) bool {
		allowed, err := scalar(in.Type, e)
		return err == nil && allowed == out
	}) {
		err = refuse(CodeValue, "", "it is none of the values that are allowed")
	}
	return out, err
}

func (in Input) within(f float64) error {
	if in.Minimum != nil && f < *in.Minimum || in.Maximum != nil && f > *in.Maximum {
		return refuse(CodeValue, "", "%v is outside of its bounds", f)
	}
	return nil
}

func (in Input) array(v any) (any, error) {
	list, ok := v.([]any)
	most := maxElements
	if in.MaxItems != nil {
		most = min(most, *in.MaxItems)
	}
	if !ok || in.Items == nil || len(list) > most {
		return nil, refuse(CodeValue, "", "it must be a list of at most %d", most)
	}
	out := make([]any, len(list))
	for i, item := range list {
		checked, err := scalar(in.Items.Type, item)
		if err != nil {
			return nil, err
		}
		if text, ok := checked.(string); ok && !matches(in.Items.Pattern, text) {
			return nil, refuse(CodeValue, "", "%s does not match %s", quoted(text), in.Items.Pattern)
		}
		out[i] = checked
	}
	return out, nil
}

// scalar gives a single value as string, int64, float64 or bool.
func scalar(kind string, v any) (any, error) {
	f, isNumber := number(v)
	switch kind {
	case TypeString, TypeSecret:
		if text, ok := v.(string); ok && len(text) <= maxText && utf8.ValidString(text) && !strings.ContainsRune(text, 0) {
			return text, nil
		}
		return nil, refuse(CodeValue, "", "it must be text of at most %d bytes, in quotes where YAML would read something else", maxText)
	case TypeBoolean:
		if b, ok := v.(bool); ok {
			return b, nil
		}
		return nil, refuse(CodeValue, "", "it must be true or false")
	case TypeInteger:
		// Every number that JSON readers keep exactly.
		if isNumber && f == math.Trunc(f) && math.Abs(f) < 1<<53 {
			return int64(f), nil
		}
		return nil, refuse(CodeValue, "", "it must be a whole number")
	case TypeNumber:
		if isNumber {
			return f, nil
		}
	}
	return nil, refuse(CodeValue, "", "it must be a number")
}

func number(v any) (float64, bool) {
	var f float64
	switch v := v.(type) {
	case int:
		f = float64(v)
	case int64:
		f = float64(v)
	case uint64:
		f = float64(v)
	case float64:
		f = v
	default:
		return 0, false
	}
	return f, !math.IsNaN(f) && !math.IsInf(f, 0)
}

func matches(pattern, text string) bool {
	if pattern == "" {
		return true
	}
	re, err := regexp.Compile(pattern)
	return err == nil && re.MatchString(text)
}
