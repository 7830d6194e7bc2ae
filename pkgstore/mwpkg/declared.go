package mwpkg

import (
	"maps"
	"slices"
)

// checkDeclared refuses capabilities that are used and not declared, and the opposite: who reads the
// capabilities knows all that the package may do, and nothing that it does not.
func (m *Manifest) checkDeclared(found *problems) {
	used := m.Used()
	c := m.Capabilities
	checkList(found, "capabilities.network.egress", c.Network.Egress, maxItems, egressRe.MatchString, "HOST:PORT")
	checkList(found, "capabilities.secrets", c.Secrets, MaxInputs, valueName.MatchString, "the name of an input")
	checkList(found, "capabilities.commands", c.Commands, maxItems, commandRe.MatchString, "the name of a program")
	compare(found, "capabilities.network.egress", used.Network.Egress, c.Network.Egress)
	compare(found, "capabilities.secrets", used.Secrets, c.Secrets)
	compare(found, "capabilities.commands", used.Commands, c.Commands)
}

func compare(found *problems, subject string, used, declared []string) {
	for _, u := range used {
		if !slices.Contains(declared, u) {
			found.add(CodeUndeclared, subject, "a step uses %s, which is not declared", quoted(u))
		}
	}
	for _, d := range declared {
		if !slices.Contains(used, d) {
			found.add(CodeUnused, subject, "%s is declared, and no step uses it", quoted(d))
		}
	}
}

// Used is what the steps use, each list sorted. For a manifest that was parsed it is the same set as
// its capabilities.
func (m *Manifest) Used() Capabilities {
	egress, secrets, commands := map[string]bool{}, map[string]bool{}, map[string]bool{}
	for _, s := range m.Workflow.Steps {
		for _, e := range s.Egress {
			egress[e] = true
		}
		if len(s.Run) > 0 && s.Image == "" {
			commands[s.Run[0]] = true
		}
		for _, value := range s.Env {
			if r, is, err := parsePlaceholder(value); err == nil && is && r.step == "" && m.Inputs[r.name].Type == TypeSecret {
				secrets[r.name] = true
			}
		}
	}
	return Capabilities{Network{sorted(egress)}, sorted(secrets), sorted(commands)}
}

// sorted are the keys of a map in order.
func sorted[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
