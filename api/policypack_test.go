package api

import (
	"context"
	"encoding/json"
	"strings"
	"testing"

	"github.com/maestro-conductor/maestro/policies"
)

// tenantOf is how a procedure reads the tenant that its request names.
var tenantOf = map[string]func(Principal, string) *fault{
	"one":   func(who Principal, named string) *fault { _, f := oneTenant(who, named); return f },
	"any":   func(who Principal, named string) *fault { _, f := anyTenant(who, named); return f },
	"owner": func(who Principal, named string) *fault { _, f := packageOwner(who, named); return f },
	"none":  func(Principal, string) *fault { return nil },
}

// packAction is a row of the pack mc.authz.
type packAction struct {
	Least, Tenant, Star string
	Platform            bool
}

// TestPackDecidesAsTheTable: for every procedure, every role, identities of a tenant, of another and of the platform, and
// each way to name a tenant, mc.authz decides what the table does, for the same reason.
func TestPackDecidesAsTheTable(t *testing.T) {
	source, err := policies.ReadSource(policies.BuiltIn()["mc.authz"])
	if err != nil {
		t.Fatal(err)
	}
	pack, err := policies.Compile(source)
	if err != nil {
		t.Fatal(err)
	}
	set, err := policies.NewSet(pack)
	if err != nil {
		t.Fatal(err)
	}
	rows := packActions(t, source)
	for _, p := range procedures {
		row, ok := rows[p.name]
		if !ok {
			t.Errorf("mc.authz has no row for %s", p.name)
			continue
		}
		delete(rows, p.name)
		if row.Least != p.least || row.Platform != p.platform {
			t.Errorf("%s: the pack says %+v, the table %s, platform %v", p.name, row, p.least, p.platform)
		}
		for _, role := range append([]string{"odd"}, allRoles...) {
			for _, own := range []string{"acme", "globex", AllTenants} {
				for _, named := range []string{"", "acme", "globex", AllTenants, "Acme Inc"} {
					who := Principal{Tenant: own, Role: role}
					want := tableReason(&p, row, who, named)
					d, err := set.Decide(context.Background(), &policies.Input{
						Tenant: named, Subject: policies.Subject{ID: "t", Tenant: own, Roles: []string{role}}, Action: p.name, Cost: 1,
					})
					if err != nil {
						t.Fatal(err)
					}
					got := ""
					for _, r := range d.Reasons {
						got += strings.TrimPrefix(r.ID, "authz.")
					}
					if got != want {
						t.Errorf("%s as %s of %s for %q: the pack says %q, the table %q", p.name, role, own, named, got, want)
					}
				}
			}
		}
	}
	for name := range rows {
		if strings.ContainsAny(name, "/ ") {
			t.Errorf("mc.authz has a row for %s, which is no procedure", name)
		}
	}
}

// tableReason is why the table refuses, or "".
func tableReason(p *procedure, row packAction, who Principal, named string) string {
	f := p.authorize(who)
	star := named == AllTenants && (row.Star == "everyone" || row.Star == "platform" && who.Tenant == AllTenants)
	if f == nil && !star {
		f = tenantOf[row.Tenant](who, named)
	}
	if f == nil {
		return ""
	}
	return f.name
}

func packActions(t *testing.T, source *policies.Source) map[string]packAction {
	t.Helper()
	for _, f := range source.Files {
		if f.Path != "data.json" {
			continue
		}
		var data struct {
			MC struct {
				Authz struct{ Actions map[string]packAction }
			}
		}
		if err := json.Unmarshal(f.Data, &data); err != nil {
			t.Fatal(err)
		}
		return data.MC.Authz.Actions
	}
	t.Fatal("the pack has no data")
	return nil
}
