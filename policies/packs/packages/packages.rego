# METADATA
# title: Packages
# description: Decides which packages a tenant may publish, install and run, by signer, capability and the tenant's policy.
package mc.packages

# input.package holds what was verified of a package: its publisher, the keys whose signatures hold, what it asks
# for, and whether it was withdrawn. input.tenantPolicy is what the tenant has set; what it does not hold is not restricted.

actions := {"package.publish", "package.install", "package.load"}

# METADATA
# title: Nothing is known of the package
# description: The action is one on a package, and what was verified of the package is not in the input.
# custom:
#   severity: high
#   remediation: Send the request again; when it is refused again, tell an operator, since the catalog should have verified the package.
# labels:
#   rule: packages.facts_missing
violation contains {"rule": "packages.facts_missing", "reason": reason} if {
	input.action in actions
	not input.package
	reason := sprintf("%s was asked for, and nothing is known of the package", [input.action])
}

# METADATA
# title: Nobody trusted has signed the package
# description: No signature of the package holds against the trust keys of this moment.
# custom:
#   severity: critical
#   remediation: Have the package signed by a key that is trusted for its publisher, then publish the signature.
# labels:
#   rule: packages.unsigned
violation contains {"rule": "packages.unsigned", "reason": reason} if {
	count(input.package.signers) == 0
	reason := sprintf("%s has no signature that holds", [input.package.name])
}

# METADATA
# title: Too few have signed the package
# description: The tenant wants more signatures by different keys than the package has.
# custom:
#   severity: high
#   remediation: Have the package counter-signed by another trusted key.
# labels:
#   rule: packages.signers_too_few
violation contains {"rule": "packages.signers_too_few", "reason": reason} if {
	count(input.package.signers) > 0
	got := count(counted)
	got < input.tenantPolicy.minSigners
	reason := sprintf("%s has %d signatures that count; the tenant wants %d", [input.package.name, got, input.tenantPolicy.minSigners])
}

# Keys that the tenant accepts, each once. A tenant without a list accepts all that are trusted.
counted contains signer if {
	some signer in input.package.signers
	not input.tenantPolicy.signers
}

counted contains signer if {
	some signer in input.package.signers
	signer in input.tenantPolicy.signers
}

# METADATA
# title: No signer that the tenant accepts
# description: The tenant has a list of keys, and none of those that signed the package is on it.
# custom:
#   severity: high
#   remediation: Add the key to the tenant's signers, or have the package signed by a key that is on the list.
# labels:
#   rule: packages.signer_not_accepted
violation contains {"rule": "packages.signer_not_accepted", "reason": reason} if {
	accepted := input.tenantPolicy.signers
	count(input.package.signers) > 0
	not signed_by_one_of(accepted)
	reason := sprintf("no key that signed %s is one that the tenant accepts", [input.package.name])
}

signed_by_one_of(accepted) if {
	some signer in input.package.signers
	signer in accepted
}

# METADATA
# title: Not the tenant's publisher
# description: A tenant publishes under the publishers that are its own only.
# custom:
#   severity: high
#   remediation: Publish under a publisher of your tenant, or have the platform give the publisher to it.
# labels:
#   rule: packages.publisher_foreign
violation contains {"rule": "packages.publisher_foreign", "reason": reason} if {
	input.action == "package.publish"
	input.package
	not own_publisher
	reason := sprintf("the tenant %s does not publish as %s", [input.tenant, input.package.publisher])
}

own_publisher if input.package.publisher in input.tenantPolicy.publishers

# METADATA
# title: A capability that the tenant does not grant
# description: The package asks for something that is not on the tenant's list.
# custom:
#   severity: high
#   remediation: Add the capability to the tenant's list if the package may have it, or use a version that does not ask for it.
# labels:
#   rule: packages.capability_not_granted
violation contains {"rule": "packages.capability_not_granted", "reason": reason} if {
	input.action in {"package.install", "package.load"}
	granted := input.tenantPolicy.capabilities
	some capability in input.package.capabilities
	not capability in granted
	reason := sprintf("%s asks for %s, which the tenant does not grant", [input.package.name, capability])
}

# METADATA
# title: A place that packages may not connect to
# description: The package connects to a host that is not on the tenant's list.
# custom:
#   severity: high
#   remediation: Add the host and port to the tenant's egress list if the package may reach it.
# labels:
#   rule: packages.egress_not_granted
violation contains {"rule": "packages.egress_not_granted", "reason": reason} if {
	input.action in {"package.install", "package.load"}
	granted := input.tenantPolicy.egress
	some place in input.package.egress
	not place in granted
	reason := sprintf("%s connects to %s, which the tenant does not grant", [input.package.name, place])
}

# METADATA
# title: The package was withdrawn
# description: A version that is yanked is not installed any more; one that is blocked for security is not run either.
# custom:
#   severity: critical
#   remediation: Install another version; the catalog says which ones are not withdrawn.
# labels:
#   rule: packages.withdrawn
violation contains {"rule": "packages.withdrawn", "reason": reason} if {
	withdrawn[input.action]
	reason := sprintf("%s was withdrawn: %s", [input.package.name, input.package.status])
}

withdrawn["package.install"] if input.package.status in {"yanked", "blocked"}

withdrawn["package.load"] if input.package.status == "blocked"
