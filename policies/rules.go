package policies

import (
	"fmt"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
)

// Rule is what a pack says of one of its deny rules.
type Rule struct {
	// ID is the rule's name in reasons, such as limits.exceeded.
	ID          string `json:"rule"`
	Title       string `json:"title"`
	Description string `json:"description"`
	// Severity is low, medium, high or critical.
	Severity string `json:"severity"`
	// Remediation is what somebody who was denied can do.
	Remediation string `json:"remediation"`
	// Curable is true when the rule says when to try again.
	Curable bool `json:"curable"`
	// File and Line are where the rule stands.
	File string `json:"file"`
	Line int    `json:"line"`
}

// Keys of a violation.
const (
	keyRule   = "rule"
	keyReason = "reason"
	keyRetry  = "retryAfterMs"
)

var severities = []string{"low", "medium", "high", "critical"}

// lint collects the deny rules of a pack, and refuses one without what every one must have: a title, a
// description, a severity, a remediation, and a label that is its id and its alone.
func lint(name string, modules map[string]*ast.Module) (map[string]Rule, error) {
	var all []*ast.Module
	for _, file := range sortedKeys(modules) {
		all = append(all, modules[file])
	}
	set, errs := ast.BuildAnnotationSet(all)
	if len(errs) > 0 {
		return nil, refuse(CodeLint, "", "%v", errs)
	}
	rules := map[string]Rule{}
	var problems []string
	for _, m := range all {
		for _, r := range m.Rules {
			if head := r.Head.Ref(); len(head) == 0 || !head[0].Equal(ast.VarTerm(violationSet)) {
				continue
			}
			rule, wrong := readRule(name, r, set)
			if other, twice := rules[rule.ID]; twice && rule.ID != "" {
				wrong = append(wrong, fmt.Sprintf("the rule %s stands at %s:%d already", rule.ID, other.File, other.Line))
			}
			for _, w := range wrong {
				problems = append(problems, fmt.Sprintf("%s:%d: %s", rule.File, rule.Line, w))
			}
			rules[rule.ID] = rule
		}
	}
	switch {
	case len(rules) == 0:
		return nil, refuse(CodeLint, "", "the pack has no rule of the set %s, so it would never deny", violationSet)
	case len(problems) > 0:
		return nil, refuse(CodeLint, "", "%s", strings.Join(problems, "\n")).
			hint("write title, description, custom.severity, custom.remediation and labels.rule in # METADATA before each rule of violation")
	}
	return rules, nil
}

// readRule reads a deny rule and says what is wrong with it.
func readRule(name string, r *ast.Rule, set *ast.AnnotationSet) (Rule, []string) {
	rule := Rule{File: r.Location.File, Line: r.Location.Row}
	var wrong []string
	if len(r.Head.Ref()) != 1 || r.Head.Key == nil || r.Default || r.Else != nil {
		return rule, []string{"violation is a set: write violation contains {...} if {...}"}
	}
	id, keys := headKeys(r.Head.Key)
	rule.Curable = slices.Contains(keys, keyRetry)
	switch {
	case id == "":
		wrong = append(wrong, `the head must be an object with the key rule and a string, as in {"rule": "limits.exceeded", "reason": reason}`)
	case !slices.Contains(keys, keyReason):
		wrong = append(wrong, "the head has no key reason")
	}
	for _, k := range keys {
		if k != keyRule && k != keyReason && k != keyRetry {
			wrong = append(wrong, fmt.Sprintf("the head has the key %s; a violation has rule, reason and retryAfterMs", quoted(k)))
		}
	}
	rule.ID = id
	if prefix := name[strings.LastIndexByte(name, '.')+1:] + "."; id != "" && (!strings.HasPrefix(id, prefix) || !plainName(id[len(prefix):])) {
		wrong = append(wrong, fmt.Sprintf("the rule is called %s; its name must be %s and a word of a-z, 0-9 and _", quoted(id), prefix))
	}
	for _, a := range set.GetRuleScope(r) {
		rule.Title, rule.Description = a.Title, a.Description
		rule.Severity, _ = a.Custom["severity"].(string)
		rule.Remediation, _ = a.Custom["remediation"].(string)
	}
	labels, _ := set.MergedLabels(r)
	for _, field := range []struct {
		missing bool
		name    string
	}{
		{blank(rule.Title), "title"},
		{blank(rule.Description), "description"},
		{blank(rule.Remediation), "custom.remediation"},
		{!slices.Contains(severities, rule.Severity), "custom.severity, which is low, medium, high or critical"},
		{len(labels) != 1 || labels[keyRule] != id, "labels.rule, which is the rule's name, and no other label"},
	} {
		if field.missing {
			wrong = append(wrong, fmt.Sprintf("the rule %s has no %s in its # METADATA", id, field.name))
		}
	}
	return rule, wrong
}

func blank(text string) bool { return strings.TrimSpace(text) == "" }

// headKeys reads the object in a rule's head.
func headKeys(key *ast.Term) (id string, keys []string) {
	o, ok := key.Value.(ast.Object)
	if !ok {
		return "", nil
	}
	o.Foreach(func(k, v *ast.Term) {
		name, _ := k.Value.(ast.String)
		keys = append(keys, string(name))
		if name == keyRule {
			text, _ := v.Value.(ast.String)
			id = string(text)
		}
	})
	return id, keys
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
