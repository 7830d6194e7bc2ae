package api

import (
	"strings"
	"testing"

	"connectrpc.com/connect"

	limiterv1 "github.com/maestro-conductor/maestro/api/gen/mc/limiter/v1"
	"github.com/maestro-conductor/maestro/api/gen/mc/limiter/v1/limiterv1connect"
	"github.com/maestro-conductor/maestro/limiter"
)

// Setting the mode leaves a line in the log that says who did it; a word that is no mode is refused.
func TestSetModeIsAudited(t *testing.T) {
	e := newEnv(t, nil)
	c := limiterv1connect.NewLimiterClient(e.client(secretOf(AllTenants, RoleAdmin)), e.url)
	_, err := c.SetMode(t.Context(), connect.NewRequest(&limiterv1.SetModeRequest{Mode: "OFF"}))
	wantReason(t, err, connect.CodeInvalidArgument, "field_malformed")
	got, err := c.SetMode(t.Context(), connect.NewRequest(&limiterv1.SetModeRequest{Mode: "off"}))
	if err != nil || got.Msg.GetMode() != "off" || got.Msg.GetBefore() != "enforce" {
		t.Fatalf("%v, %v", got, err)
	}
	if e.services.mode != limiter.ModeOff {
		t.Errorf("mode %v", e.services.mode)
	}
	e.close()
	log := e.log.String()
	if n := strings.Count(log, "audit: the mode of the limits was set"); n != 1 || !strings.Contains(log, "mode=off before=enforce principal="+AllTenants) {
		t.Errorf("%d lines, or one without who did it:\n%s", n, log)
	}
}
