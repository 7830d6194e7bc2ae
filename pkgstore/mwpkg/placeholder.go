package mwpkg

import (
	"encoding/json"
	"regexp"
	"strings"
)

// opening finds what looks like a placeholder of this or another system's syntax. Where no placeholder may
// stand it is refused, so that nobody believes that it is replaced. Shell variables such as ${HOME} are no placeholders.
var opening = regexp.MustCompile(`\$\{\s*(inputs|steps)\b|\$\{\{|\{\{`)

// parsePlaceholder reads a text that is one placeholder as a whole. A text with a placeholder in it is refused: values
// are passed on, never pasted into something that is read again.
func parsePlaceholder(text string) (r reference, is bool, err error) {
	inner, begins := strings.CutPrefix(text, "${")
	if inner, ends := strings.CutSuffix(inner, "}"); begins && ends {
		if r, is = parseReference(inner); is {
			return r, true, nil
		}
	}
	if opening.MatchString(text) {
		return r, false, refuse(CodeExpression, "", "%s has a placeholder in it; ${inputs.NAME} and ${steps.ID.OUTPUT} stand alone", quoted(text)).
			hint("pass the value in a variable of env, or as an argument of its own")
	}
	return r, false, nil
}

// Expand gives the text that an argument or a variable of a step stands for: its placeholder's value,
// or itself. Arrays are JSON, other values as JSON writes them without quotes; ok is false for a value that
// is absent.
func (v Values) Expand(text string) (value string, ok bool) {
	r, is, err := parsePlaceholder(text)
	if err != nil || !is {
		return text, err == nil
	}
	got := r.value(v)
	if got == nil {
		return "", false
	}
	return written(got), true
}

func marshalArray(v []any) string {
	out, err := json.Marshal(v)
	if err != nil {
		return ""
	}
	return string(out)
}
