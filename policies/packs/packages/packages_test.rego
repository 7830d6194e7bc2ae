package mc.packages_test

import data.mc.packages

good := {
	"name": "acme/restore", "version": "1.0.0", "publisher": "acme", "status": "",
	"signers": ["k1"], "capabilities": ["network", "secret:dsn"], "egress": ["db.example:5432"],
}

asks(action, package_, policy) := {"action": action, "tenant": "acme", "package": package_, "tenantPolicy": policy}

rules(request) := {v.rule | some v in packages.violation with input as request}

test_other_actions_are_not_judged if rules({"action": "execution.start", "tenant": "acme"}) == set()

test_facts_are_needed if rules({"action": "package.load", "tenant": "acme"}) == {"packages.facts_missing"}

test_install_without_a_policy if rules(asks("package.install", good, {})) == set()

test_unsigned if {
	rules(asks("package.load", object.union(good, {"signers": []}), {"minSigners": 2, "signers": ["k1"]})) == {"packages.unsigned"}
}

test_too_few if rules(asks("package.install", good, {"minSigners": 2})) == {"packages.signers_too_few"}

test_signers_count_once_and_when_accepted if {
	twice := object.union(good, {"signers": ["k1", "k1"]})
	rules(asks("package.install", twice, {"minSigners": 2})) == {"packages.signers_too_few"}
	two := object.union(good, {"signers": ["k1", "k2"]})
	rules(asks("package.install", two, {"minSigners": 2, "signers": ["k1"]})) == {"packages.signers_too_few"}
	rules(asks("package.install", two, {"minSigners": 2, "signers": ["k1", "k2"]})) == set()
}

test_signers if {
	rules(asks("package.install", good, {"signers": ["k2"]})) == {"packages.signer_not_accepted"}
	rules(asks("package.install", good, {"signers": ["k2", "k1"]})) == set()
	rules(asks("package.install", good, {"signers": []})) == {"packages.signer_not_accepted"}
}

test_publish if {
	rules(asks("package.publish", good, {"publishers": ["acme"]})) == set()
	rules(asks("package.publish", good, {"publishers": ["globex"]})) == {"packages.publisher_foreign"}
	rules(asks("package.publish", good, {})) == {"packages.publisher_foreign"}
}

test_capabilities if {
	rules(asks("package.install", good, {"capabilities": ["network"]})) == {"packages.capability_not_granted"}
	rules(asks("package.install", good, {"capabilities": ["network", "secret:dsn"]})) == set()
	rules(asks("package.publish", good, {"publishers": ["acme"], "capabilities": []})) == set()
}

test_egress if {
	rules(asks("package.load", good, {"egress": []})) == {"packages.egress_not_granted"}
	rules(asks("package.load", good, {"egress": ["db.example:5432"]})) == set()
}

test_withdrawn if {
	yanked := object.union(good, {"status": "yanked"})
	blocked := object.union(good, {"status": "blocked"})
	rules(asks("package.install", yanked, {})) == {"packages.withdrawn"}
	rules(asks("package.load", yanked, {})) == set()
	rules(asks("package.load", blocked, {})) == {"packages.withdrawn"}
}
