package mc.authz_test

import data.mc.authz

check := "/mc.limiter.v1.Limiter/Check"

plans := "/mc.limiter.v1.Limiter/SetPlans"

search := "/mc.provenance.v1.Provenance/Search"

by(tenant, roles, action, named) := {
	"subject": {"id": "t", "tenant": tenant, "roles": roles, "attributes": {}},
	"action": action, "tenant": named, "cost": 1, "resource": {"attributes": {}},
}

rules(request) := {v.rule | some v in authz.violation with input as request}

test_runner_checks_own if {
	rules(by("acme", ["runner"], check, "acme")) == set()
	rules(by("acme", ["runner"], check, "")) == set()
}

test_reader_may_not_check if rules(by("acme", ["reader"], check, "acme")) == {"authz.role_insufficient"}

test_highest_role_counts if rules(by("acme", ["reader", "operator"], check, "acme")) == set()

test_unknown_role if rules(by("acme", ["odd"], check, "acme")) == {"authz.role_insufficient"}

test_no_role if rules(by("acme", [], check, "acme")) == {"authz.role_insufficient"}

test_foreign if {
	rules(by("acme", ["admin"], check, "globex")) == {"authz.tenant_foreign"}
	rules(by("acme", ["reader"], check, "globex")) == {"authz.role_insufficient"}
}

test_malformed if {
	rules(by("acme", ["runner"], check, "Acme Inc")) == {"authz.tenant_malformed"}
	rules(by("acme", ["runner"], check, "*")) == {"authz.tenant_malformed"}
	rules(by("*", ["runner"], check, "*")) == {"authz.tenant_malformed"}
}

test_platform if {
	rules(by("acme", ["admin"], plans, "")) == {"authz.platform_only"}
	rules(by("*", ["admin"], plans, "")) == set()
	rules(by("*", ["operator"], plans, "")) == {"authz.role_insufficient"}
}

test_platform_names_a_tenant_where_one_is_needed if {
	rules(by("*", ["runner"], check, "")) == {"authz.tenant_missing"}
	rules(by("*", ["runner"], check, "acme")) == set()
	rules(by("*", ["reader"], search, "")) == set()
}

test_unknown_action if {
	rules(by("*", ["admin"], "/mc.limiter.v1.Limiter/Mint", "")) == {"authz.action_unknown"}
}

test_suspended if {
	suspended := object.union(by("acme", ["admin"], check, "acme"), {"subject": {"attributes": {"suspended": "true"}}})
	rules(suspended) == {"authz.subject_suspended"}
}

test_group if {
	request := object.union(by("acme", ["runner"], check, "acme"), {"resource": {"attributes": {"group": "finance"}}})
	rules(request) == {"authz.group_required"}
	rules(object.union(request, {"subject": {"attributes": {"group": "finance"}}})) == set()
	rules(object.union(request, {"subject": {"roles": ["admin"]}})) == set()
}

test_quota if {
	request := by("acme", ["runner"], check, "acme")
	rules(object.union(request, {"quotas": {"runs": {"limit": 5, "used": 4, "retryAfterMs": 10}}})) == set()
	rules(object.union(request, {"quotas": {"runs": {"limit": 5, "used": 5, "retryAfterMs": 10}}})) == {"authz.quota_exceeded"}
	rules(object.union(request, {"quotas": {"runs": {"limit": 5, "used": 5}}})) == {"authz.quota_full"}
	rules(object.union(request, {"cost": 6, "quotas": {"runs": {"limit": 5, "used": 0, "retryAfterMs": 10}}})) == {"authz.quota_full"}
}

test_identity_without_a_tenant if rules(by("", ["admin"], check, "")) == {"authz.tenant_missing"}
