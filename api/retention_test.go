package api

import (
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	provenancev1 "github.com/maestro-conductor/maestro/api/gen/mc/provenance/v1"
	"github.com/maestro-conductor/maestro/index"
)

// Rules are checked before anything is changed, who changed them is in the log, and a tenant sees no rule of
// another.
func TestRetentionRules(t *testing.T) {
	e := newEnv(t, nil)
	c := e.provenance(secretOf(AllTenants, RoleAdmin))
	set := func(r *provenancev1.RetentionRule) (*connect.Response[provenancev1.SetRetentionResponse], error) {
		return c.SetRetention(t.Context(), connect.NewRequest(&provenancev1.SetRetentionRequest{Rules: []*provenancev1.RetentionRule{r}}))
	}
	for _, bad := range []*provenancev1.RetentionRule{
		{AgeSeconds: 59}, {AgeSeconds: -1}, {AgeSeconds: 1 << 60}, {Kind: "disposition", AgeSeconds: 60}, {Tenant: "A b", AgeSeconds: 60}, {Hold: true}, {Hold: true, Tenant: "acme", Kind: "event"},
	} {
		_, err := set(bad)
		wantReason(t, err, connect.CodeInvalidArgument, "field_malformed")
	}
	for _, r := range []*provenancev1.RetentionRule{{Kind: "event", AgeSeconds: 3600}, {Tenant: "acme", Hold: true}, {Tenant: "beta", AgeSeconds: 60}} {
		if _, err := set(r); err != nil {
			t.Fatal(err)
		}
	}
	if want := (index.RetentionRule{Kind: "event", Age: time.Hour}); len(e.services.retention.Rules) != 3 || e.services.retention.Rules[0] != want {
		t.Errorf("%+v", e.services.retention)
	}
	got, err := e.provenance(secretOf("acme", RoleReader)).ListRetention(t.Context(), connect.NewRequest(&provenancev1.ListRetentionRequest{}))
	if err != nil || len(got.Msg.GetRules()) != 2 || got.Msg.GetRules()[0].GetName() != "*/event" || got.Msg.GetRules()[1].GetName() != "acme/hold" {
		t.Errorf("acme sees %v, %v", got, err)
	}
	left, err := c.RemoveRetention(t.Context(), connect.NewRequest(&provenancev1.RemoveRetentionRequest{Names: []string{"beta/*", "*/event"}}))
	if err != nil || len(left.Msg.GetRules()) != 1 || left.Msg.GetVersion() != 4 {
		t.Errorf("%v, %v", left, err)
	}
	e.close()
	log := e.log.String()
	if strings.Count(log, "audit: a rule of retention was set") != 3 || strings.Count(log, "audit: rules of retention were removed") != 1 || !strings.Contains(log, "principal="+AllTenants) {
		t.Errorf("the log does not tell:\n%s", log)
	}
}
