# METADATA
# title: Rate limits
# description: Denies what a limit of any level has no room for, and says when it will have.
package mc.limits

# input.limits holds, by level (global, tenant, token, key) and id, every limit that the request meets: its
# kind, what it is, what is used of it, and, where it is known, after how many milliseconds it would admit the cost.

# Limits that the request does not fit into.
short[level][id] := limit if {
	some level, id
	limit := input.limits[level][id]
	limit.used + input.cost > limit.limit
}

# METADATA
# title: A limit has no room left
# description: The cost of the request does not fit into what is left of a rate limit. Time cures it.
# custom:
#   severity: low
#   remediation: Send the request again after retryAfterMs, spread requests over time, or ask for a higher limit or plan.
# labels:
#   rule: limits.exceeded
violation contains {"rule": "limits.exceeded", "reason": reason, "retryAfterMs": limit.retryAfterMs} if {
	some level, id
	limit := short[level][id]
	input.cost <= limit.limit
	reason := sprintf("the %s limit %s has %d of %d used, and the request costs %d", [level, id, limit.used, limit.limit, input.cost])
}

# METADATA
# title: A request is larger than a limit
# description: The cost of the request is above the limit as a whole. No waiting makes it fit.
# custom:
#   severity: medium
#   remediation: Split the request into smaller ones, or ask for a higher limit or plan; waiting does not help.
# labels:
#   rule: limits.never_fits
violation contains {"rule": "limits.never_fits", "reason": reason} if {
	some level, id
	limit := short[level][id]
	input.cost > limit.limit
	reason := sprintf("the %s limit %s is %d, and the request costs %d", [level, id, limit.limit, input.cost])
}

# METADATA
# title: A limit has no room left, and nobody knows when it will
# description: The cost does not fit into what is left of a limit whose room comes back when others finish, as of slots.
# custom:
#   severity: low
#   remediation: Wait for running work to finish or release its slots, then send the request again.
# labels:
#   rule: limits.slots_taken
violation contains {"rule": "limits.slots_taken", "reason": reason} if {
	some level, id
	limit := short[level][id]
	input.cost <= limit.limit
	not limit.retryAfterMs
	reason := sprintf("the %s limit %s has %d of %d taken, and the request needs %d", [level, id, limit.used, limit.limit, input.cost])
}

# METADATA
# title: The tenant, token or key is banned
# description: A limit was set to admit nothing at all.
# custom:
#   severity: high
#   remediation: Ask an operator of the tenant why the limit bans it; limit set lifts it.
# labels:
#   rule: limits.banned
violation contains {"rule": "limits.banned", "reason": reason} if {
	some level, id
	limit := input.limits[level][id]
	limit.kind == "banned"
	reason := sprintf("the %s limit %s bans it", [level, id])
}
