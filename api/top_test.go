package api

import (
	"testing"

	"connectrpc.com/connect"

	limiterv1 "github.com/maestro-conductor/maestro/api/gen/mc/limiter/v1"
	"github.com/maestro-conductor/maestro/api/gen/mc/limiter/v1/limiterv1connect"
)

// An identity of one tenant asks about its own keys, whether it names them or not, and the number of
// keys is bounded.
func TestTopIsOfTheCallersTenant(t *testing.T) {
	e := newEnv(t, nil)
	for secret, want := range map[string]string{secretOf("acme", RoleOperator): "acme", secretOf(AllTenants, RoleOperator): ""} {
		c := limiterv1connect.NewLimiterClient(e.client(secret), e.url)
		got, err := c.Top(t.Context(), connect.NewRequest(&limiterv1.TopRequest{}))
		if err != nil {
			t.Fatal(err)
		}
		if k := got.Msg.GetKeys()[0]; k.GetTenant() != want || k.GetChecksPerSecond() != DefaultBusyKeys || k.GetLimitId() != "acme-api" || got.Msg.GetMissing()[0] != "node-3" {
			t.Errorf("got %v, want keys of %q", got.Msg, want)
		}
		_, err = c.Top(t.Context(), connect.NewRequest(&limiterv1.TopRequest{Most: MaxBusyKeys + 1}))
		wantReason(t, err, connect.CodeInvalidArgument, "field_malformed")
	}
}
