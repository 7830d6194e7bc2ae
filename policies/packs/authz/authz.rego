# METADATA
# title: Access
# description: Decides who may do what, by role, tenant, attributes and quotas. What is not allowed is denied.
package mc.authz

# The identity of the platform, which reaches every tenant.
platform := "*"

# Most requests are granted, and most rules below need not look any further then. Of those most are for the identity's own
# tenant, by its name, which needs no other rule.
granted if {
	input.tenant == input.subject.tenant
	not input.tenant in {"", "*"}
	row := data.mc.authz.actions[input.action]
	not row.platform
	some role in input.subject.roles
	data.mc.authz.sufficient[row.least][role]
}

granted if {
	platform_ok
	role_sufficient
	tenant_ok
}

action := data.mc.authz.actions[input.action]

of_platform if input.subject.tenant == "*"

platform_ok if not action.platform

platform_ok if of_platform

role_sufficient if {
	some role in input.subject.roles
	data.mc.authz.sufficient[action.least][role]
}

# The tenant that is named is one that the identity may act on.
tenant_ok if action.tenant == "none"

tenant_ok if {
	input.tenant == input.subject.tenant
	not input.tenant in {"", platform}
}

tenant_ok if {
	input.tenant == ""
	not of_platform
	input.subject.tenant != ""
}

tenant_ok if {
	input.tenant == ""
	of_platform
	action.tenant == "any"
}

tenant_ok if {
	input.tenant != "*"
	of_platform
	tenant_wellformed
}

tenant_ok if {
	input.tenant == "*"
	action.star == "everyone"
}

tenant_ok if {
	input.tenant == "*"
	action.star == "platform"
	of_platform
}

# What belongs to an owner belongs to a tenant or, for all of them, to the platform.
tenant_ok if {
	action.tenant == "owner"
	input.tenant in {"", "*"}
	of_platform
}

tenant_wellformed if regex.match(`^[a-z0-9._-]{1,63}$`, input.tenant)

refusal := first_refusal if not granted

# Refusals come in the order of their checks, so that a caller learns nothing of what it may not see: only who may call
# the action at all is told about the tenant.
first_refusal := "action_unknown" if not action

else := "platform_only" if not platform_ok

else := "role_insufficient" if not role_sufficient

else := "platform_only" if {
	action.tenant == "owner"
	input.tenant == "*"
}

else := "tenant_missing" if input.tenant == ""

else := "tenant_malformed" if not tenant_wellformed

else := "tenant_foreign"

# METADATA
# title: No such action
# description: The action is not in the table of actions. What is not in it is denied.
# custom:
#   severity: medium
#   remediation: Use an action of the table, or add the action to the data of the pack and activate a new revision.
# labels:
#   rule: authz.action_unknown
violation contains {"rule": "authz.action_unknown", "reason": reason} if {
	refusal == "action_unknown"
	reason := sprintf("%v is no known action", [input.action])
}

# METADATA
# title: Only the platform may do this
# description: The action reaches every tenant, and the identity belongs to one.
# custom:
#   severity: high
#   remediation: Use a token of the platform, which an administrator of the platform makes.
# labels:
#   rule: authz.platform_only
violation contains {"rule": "authz.platform_only", "reason": "only identities of the platform may do this"} if {
	refusal == "platform_only"
}

# METADATA
# title: The role is too low
# description: No role of the identity reaches the least role of the action.
# custom:
#   severity: medium
#   remediation: Use a token with the role that the reason names, which an administrator of the tenant makes.
# labels:
#   rule: authz.role_insufficient
violation contains {"rule": "authz.role_insufficient", "reason": reason} if {
	refusal == "role_insufficient"
	reason := sprintf("the identity has the role %s; this needs %s", [concat(", ", input.subject.roles), action.least])
}

# METADATA
# title: No tenant is named
# description: An identity of the platform must say for which tenant it acts.
# custom:
#   severity: low
#   remediation: Name the tenant in the request.
# labels:
#   rule: authz.tenant_missing
violation contains {"rule": "authz.tenant_missing", "reason": "the request names no tenant, and the identity has none"} if {
	refusal == "tenant_missing"
}

# METADATA
# title: Not the name of a tenant
# description: Tenants are named by 1 to 63 of a-z, 0-9, dot, hyphen and underscore.
# custom:
#   severity: low
#   remediation: Correct the name of the tenant in the request.
# labels:
#   rule: authz.tenant_malformed
violation contains {"rule": "authz.tenant_malformed", "reason": "the request names what cannot be a tenant"} if {
	refusal == "tenant_malformed"
}

# METADATA
# title: Another tenant's
# description: The identity belongs to one tenant and the request names another.
# custom:
#   severity: high
#   remediation: Use a token of the tenant that the request names, or leave the tenant out to act on your own.
# labels:
#   rule: authz.tenant_foreign
violation contains {"rule": "authz.tenant_foreign", "reason": reason} if {
	refusal == "tenant_foreign"
	reason := sprintf("the identity belongs to tenant %s and cannot reach tenant %s", [input.subject.tenant, input.tenant])
}

# METADATA
# title: The subject is suspended
# description: The attribute suspended is set on the subject.
# custom:
#   severity: high
#   remediation: Ask the administrator of the tenant, who set the attribute suspended, to lift it.
# labels:
#   rule: authz.subject_suspended
violation contains {"rule": "authz.subject_suspended", "reason": "the subject is suspended"} if {
	input.subject.attributes.suspended == "true"
}

# METADATA
# title: Not a resource of the subject's group
# description: The resource is for a group, and the subject is not in it. Administrators are.
# custom:
#   severity: medium
#   remediation: Ask for the attribute group with the value that the reason names, or for another resource.
# labels:
#   rule: authz.group_required
violation contains {"rule": "authz.group_required", "reason": reason} if {
	group := input.resource.attributes.group
	not in_group
	reason := sprintf("the resource is for the group %s", [group])
}

in_group if input.subject.attributes.group == input.resource.attributes.group

in_group if "admin" in input.subject.roles

# Quotas that the request does not fit into.
short[name] := quota if {
	some name, quota in input.quotas
	quota.used + input.cost > quota.limit
}

# METADATA
# title: A quota is used up
# description: What the action adds to does not fit into the tenant's quota any more. Time cures it when the quota begins anew.
# custom:
#   severity: medium
#   remediation: Wait for retryAfterMs until the quota begins anew, or ask for a larger one.
# labels:
#   rule: authz.quota_exceeded
violation contains {"rule": "authz.quota_exceeded", "reason": reason, "retryAfterMs": quota.retryAfterMs} if {
	some name, quota in short
	input.cost <= quota.limit
	reason := sprintf("the quota %s has %d of %d used, and the request adds %d", [name, quota.used, quota.limit, input.cost])
}

# METADATA
# title: A quota stays used up
# description: The quota has no room for this and does not begin anew, or the request is larger than it.
# custom:
#   severity: medium
#   remediation: Remove what counts in the quota and is no longer needed, or ask for a larger one; waiting does not help.
# labels:
#   rule: authz.quota_full
violation contains {"rule": "authz.quota_full", "reason": reason} if {
	some name, quota in short
	not renewed(quota)
	reason := sprintf("the quota %s has %d of %d used, and the request adds %d", [name, quota.used, quota.limit, input.cost])
}

renewed(quota) if {
	quota.retryAfterMs
	input.cost <= quota.limit
}
