package mc.limits_test

import data.mc.limits

rate(limit, used) := {"kind": "rate", "limit": limit, "used": used, "retryAfterMs": 1500}

rules(request) := {v.rule | some v in limits.violation with input as request}

test_room_is_left if {
	rules({"cost": 2, "limits": {"tenant": {"api": rate(10, 8)}}}) == set()
}

test_no_limits if {
	rules({"cost": 2, "limits": {}}) == set()
}

test_exceeded_says_when if {
	found := limits.violation with input as {"cost": 3, "limits": {"tenant": {"api": rate(10, 8)}}}
	found == {{
		"rule": "limits.exceeded",
		"reason": "the tenant limit api has 8 of 10 used, and the request costs 3",
		"retryAfterMs": 1500,
	}}
}

test_each_level_is_named if {
	found := limits.violation with input as {"cost": 3, "limits": {
		"tenant": {"api": rate(10, 8)},
		"key": {"a": rate(10, 9), "b": rate(10, 0)},
	}}
	count(found) == 2
}

test_never_fits_has_no_time if {
	found := limits.violation with input as {"cost": 11, "limits": {"global": {"all": rate(10, 0)}}}
	found == {{"rule": "limits.never_fits", "reason": "the global limit all is 10, and the request costs 11"}}
}

test_slots if {
	rules({"cost": 1, "limits": {"tenant": {"jobs": {"kind": "concurrency", "limit": 4, "used": 4}}}}) == {"limits.slots_taken"}
	rules({"cost": 1, "limits": {"tenant": {"jobs": {"kind": "concurrency", "limit": 4, "used": 3}}}}) == set()
}

test_banned if {
	rules({"cost": 0, "limits": {"token": {"x": {"kind": "banned", "limit": 0, "used": 0}}}}) == {"limits.banned"}
}
