package main

import (
	"os"
	"strings"
	"testing"
)

// TestPolicyFromTestToVerify: a pack is tested, built, signed and verified with the commands of the page about policies.
func TestPolicyFromTestToVerify(t *testing.T) {
	inFolder(t)
	t.Setenv("COSIGN_PASSWORD", "letmein")
	if out := works(t, "policy", "test"); !strings.Contains(out, "mc.limits") || !strings.Contains(out, "mc.authz") || !strings.Contains(out, "mc.packages") {
		t.Errorf("test prints %s", out)
	}
	rules := `package acme.hours

# METADATA
# title: Closed
# description: No executions on the list of closed days.
# custom:
#   severity: low
#   remediation: Start it on another day.
# labels:
#   rule: hours.closed
violation contains {"rule": "hours.closed", "reason": "closed"} if input.resource.attributes.day == "sunday"
`
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir("hours", 0o700); err != nil {
		t.Fatal(err)
	}
	write("hours/.manifest", `{"roots": ["acme/hours"], "rego_version": 1}`)
	write("hours/hours.rego", strings.Replace(rules, "#   remediation: Start it on another day.\n", "", 1))
	refused(t, "(lint_failed)", "policy", "test", "hours")
	refused(t, "custom.remediation", "policy", "build", "hours", "--revision", "1")
	write("hours/hours.rego", rules)
	write("hours/hours_test.rego", "package acme.hours_test\n\nimport data.acme.hours\n\ntest_wrong if count(hours.violation) == 1\n")
	refused(t, "1 tests failed", "policy", "test", "hours")
	write("hours/hours_test.rego", "package acme.hours_test\n\nimport data.acme.hours\n\ntest_open if count(hours.violation) == 0 with input as {}\n")
	works(t, "policy", "test", "hours")

	const file = "acme.hours-2.tar.gz"
	works(t, "policy", "build", "hours", "--revision", "2")
	works(t, "pkg", "keygen", "--out", "k")
	works(t, "pkg", "keygen", "--out", "other")
	refused(t, "(signature_missing)", "policy", "verify", "--key", "k.pub", "--tenant", "acme", file)
	works(t, "policy", "sign", "--key", "k.key", "--issuer", "acme-security", "--tenant", "acme", file)
	if out := works(t, "policy", "verify", "--key", "k.pub", "--tenant", "acme", file); !strings.Contains(out, "acme-security") {
		t.Errorf("verify prints %s", out)
	}
	refused(t, "(key_unknown)", "policy", "verify", "--key", "other.pub", "--tenant", "acme", file)
	refused(t, "(scope_mismatch)", "policy", "verify", "--key", "k.pub", file)
	refused(t, "(revision_rolled_back)", "policy", "verify", "--key", "k.pub", "--tenant", "acme", "--highest", "3", file)
	refused(t, "(lifetime_too_long)", "policy", "sign", "--key", "k.key", "--issuer", "x", "--valid", "99999h", file)
	if err := os.Remove(file + bundleSuffix); err != nil {
		t.Fatal(err)
	}
	refused(t, "(blob_signature_missing)", "policy", "verify", "--key", "k.pub", "--tenant", "acme", file)
}
