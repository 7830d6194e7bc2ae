//go:build interop

package interop

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"go.yaml.in/yaml/v3"

	clusterv1 "github.com/maestro-conductor/maestro/api/gen/mc/cluster/v1"
	limiterv1 "github.com/maestro-conductor/maestro/api/gen/mc/limiter/v1"
	"github.com/maestro-conductor/maestro/internal/client"
	"github.com/maestro-conductor/maestro/internal/devregion"
)

// patience bounds every wait.
const patience = 2 * time.Minute

const examples = "../docs/examples/envoy"

// region is a running region with the mapping and the limits of the documentation.
type region struct {
	*devregion.Region
	t      *testing.T
	client *client.Client
	token  string // of a runner of the platform
	stop   func()
}

func startRegion(t *testing.T) *region {
	t.Helper()
	binary := os.Getenv("MAESTRO")
	if binary == "" {
		t.Fatal("MAESTRO names no binary; run make interop")
	}
	r, err := devregion.Start(t.Context(), devregion.Options{
		Dir: filepath.Join(t.TempDir(), "region"), Binary: binary, NoSeed: true, EnvoyMapping: filepath.Join(examples, "mapping.yaml"),
		Report: func(line string) { t.Log(line) },
	})
	must(t, err)
	out := &region{Region: r, t: t}
	stopped := false
	out.stop = func() {
		if !stopped {
			stopped = true
			must(t, r.Stop())
		}
	}
	t.Cleanup(out.stop)
	out.client, err = r.Client()
	must(t, err)
	t.Cleanup(out.client.Close)
	token, err := out.client.Tokens().CreateToken(t.Context(), connect.NewRequest(&clusterv1.CreateTokenRequest{Tenant: "*", Role: "runner", Description: "envoy"}))
	must(t, err)
	out.token = token.Msg.GetToken()
	out.setLimits()
	return out
}

// setLimits sets those of the documentation, and waits until they are in force everywhere.
func (r *region) setLimits() {
	r.t.Helper()
	data, err := os.ReadFile(filepath.Join(examples, "limits.yaml"))
	must(r.t, err)
	var file struct {
		Limits []struct {
			ID, Scope, Selector string
			TokenBucket         *limiterv1.TokenBucket `yaml:"tokenBucket"`
			Window              *limiterv1.Window
		}
	}
	must(r.t, yaml.Unmarshal(data, &file))
	var limits []*limiterv1.Limit
	for _, l := range file.Limits {
		limits = append(limits, &limiterv1.Limit{Id: l.ID, Scope: l.Scope, Selector: l.Selector, TokenBucket: l.TokenBucket, Window: l.Window})
	}
	await(r.t, "the limits to be in force", func() bool {
		resp, err := r.client.Limiter().SetLimits(r.t.Context(), connect.NewRequest(&limiterv1.SetLimitsRequest{Limits: limits}))
		must(r.t, err)
		return resp.Msg.GetInForce()
	})
}

func (r *region) setMode(mode string) {
	r.t.Helper()
	_, err := r.client.Limiter().SetMode(r.t.Context(), connect.NewRequest(&limiterv1.SetModeRequest{Mode: mode}))
	must(r.t, err)
}

// addresses are the API's, HOST:PORT.
func (r *region) addresses() []string {
	var out []string
	for _, n := range r.State().Regions[0].Nodes {
		out = append(out, strings.TrimPrefix(n.API, "https://"))
	}
	return out
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-ctx.Done():
			t.Fatalf("waited %v for %s", patience, what)
		case <-tick.C:
		}
	}
}
