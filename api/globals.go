package api

import (
	"slices"

	"github.com/maestro-conductor/maestro/limiter"
)

// hideGlobals takes out of a decision what an identity of one tenant could learn about the others from
// limits that count all tenants together. That such a limit is there, and denies, it may know.
func hideGlobals(who Principal, d *limiter.Decision) {
	if who.Tenant == AllTenants {
		return
	}
	for i := range d.Levels {
		if l := &d.Levels[i]; l.Scope == limiter.ScopeGlobal {
			l.Limit, l.Remaining, l.Used, l.ResetMs = 0, 0, 0, 0
		}
	}
}

// withoutGlobals is the same where levels become numbers for a gateway's clients.
func withoutGlobals(who Principal, d *limiter.Decision) {
	if who.Tenant != AllTenants {
		d.Levels = slices.DeleteFunc(d.Levels, func(l limiter.Level) bool { return l.Scope == limiter.ScopeGlobal })
	}
}
