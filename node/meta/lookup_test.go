package meta

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/maestro-conductor/maestro/api"
)

// A node whose replica lags, after a restart or because the token was made elsewhere a moment
// ago, admits the token all the same, and still refuses what the region does not know.
func TestLaggingReplicaLooksTokensUp(t *testing.T) {
	r := newRegion(t, regionRules)
	ctx := context.Background()
	ahead := NewService(Options{Groups: r, Group: metaGroup, Machine: r.meta.Machine().(*Machine), Clock: func() time.Time { return r.now }})
	behind := NewService(Options{Groups: r, Group: metaGroup, Machine: newMachine(regionRules), Clock: func() time.Time { return r.now }})
	secret, made, err := ahead.CreateToken(ctx, api.Token{Tenant: "acme", Role: api.RoleReader})
	if err != nil {
		t.Fatal(err)
	}
	p, err := behind.Authenticate(ctx, secret)
	if err != nil || p.ID != made.ID || p.Tenant != "acme" {
		t.Fatalf("lagging replica: %+v, %v", p, err)
	}
	forged := secret[:len(secret)-1] + "0"
	if forged == secret {
		forged = secret[:len(secret)-1] + "1"
	}
	for name, text := range map[string]string{"forged secret": forged, "unknown id": "mct_0123456789abcdef_" + secret[len(secret)-64:]} {
		if _, err := behind.Authenticate(ctx, text); !errors.Is(err, api.ErrTokenUnknown) {
			t.Errorf("%s at a lagging replica: %v", name, err)
		}
	}
	if err := ahead.RevokeToken(ctx, made.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := behind.Authenticate(ctx, secret); !errors.Is(err, api.ErrTokenRevoked) {
		t.Errorf("revoked token at a lagging replica: %v", err)
	}
	r.down[metaGroup] = true
	if _, err := behind.Authenticate(ctx, secret); !errors.Is(err, api.ErrNotReady) {
		t.Errorf("unknown token without a leader of meta: %v", err)
	}
}
