package api

import (
	"strings"
	"testing"

	"connectrpc.com/connect"

	provenancev1 "github.com/maestro-conductor/maestro/api/gen/mc/provenance/v1"
	"github.com/maestro-conductor/maestro/index"
)

// Setting the mode leaves a line in the log that says who did it; a word that is no mode is refused.
func TestSetIndexModeIsAudited(t *testing.T) {
	e := newEnv(t, nil)
	c := e.provenance(secretOf(AllTenants, RoleAdmin))
	_, err := c.SetMode(t.Context(), connect.NewRequest(&provenancev1.SetModeRequest{Mode: "on"}))
	wantReason(t, err, connect.CodeInvalidArgument, "field_malformed")
	got, err := c.SetMode(t.Context(), connect.NewRequest(&provenancev1.SetModeRequest{Mode: "read-only"}))
	if err != nil || got.Msg.GetMode() != "read-only" || got.Msg.GetBefore() != "read-write" {
		t.Fatalf("%v, %v", got, err)
	}
	if e.services.indexMode != index.ModeReadOnly {
		t.Errorf("mode %v", e.services.indexMode)
	}
	if got, err := c.GetMode(t.Context(), connect.NewRequest(&provenancev1.GetModeRequest{})); err != nil || got.Msg.GetMode() != "read-only" {
		t.Errorf("%v, %v", got, err)
	}
	e.close()
	log := e.log.String()
	if n := strings.Count(log, "audit: the mode of the index was set"); n != 1 || !strings.Contains(log, "mode=read-only before=read-write principal="+AllTenants) {
		t.Errorf("%d lines, or one without who did it:\n%s", n, log)
	}
}
