package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"connectrpc.com/connect"

	packagesv1 "github.com/maestro-conductor/maestro/api/gen/mc/packages/v1"
	"github.com/maestro-conductor/maestro/internal/client"
	"github.com/maestro-conductor/maestro/internal/devregion"
)

// checkTemplates waits for the packages that come with Maestro, and uses one as a runner would.
func checkTemplates(t *testing.T, dir string) {
	t.Helper()
	eventually(t, "the templates are in the catalog", func() bool {
		out, _, status := maestro(t, "", "pkg", "list", "-o", "json")
		return status == statusDone && strings.Count(out, `"name": "maestro/`) == 20
	})
	if out := works(t, "pkg", "install", sampleTemplate, "--tenant", devregion.SampleTenant); !strings.Contains(out, "installed") {
		t.Errorf("install: %s", out)
	}
	region, err := client.LoadContext(dir)
	if err != nil {
		t.Fatal(err)
	}
	token, err := region.ReadToken()
	if err != nil {
		t.Fatal(err)
	}
	c, err := client.New(client.Options{Endpoints: region.Endpoints, CAFile: region.CA, Token: token})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	loaded, err := c.Packages().Load(t.Context(), connect.NewRequest(&packagesv1.LoadRequest{Name: sampleTemplate, Tenant: devregion.SampleTenant}))
	if err != nil || !strings.Contains(loaded.Msg.GetManifest(), "name: "+sampleTemplate) {
		t.Errorf("load: %v, %v", loaded, err)
	}
	if info, err := os.Stat(devregion.TemplatesKey(dir)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the private key: %v, %v", info, err)
	}
	works(t, "pkg", "download", sampleTemplate, "--tenant", devregion.SampleTenant, "--to", dir)
	works(t, "pkg", "verify", "--key", devregion.TemplatesPublicKey(dir), filepath.Join(dir, "maestro-slo-error-budget-1.0.0.mwpkg.tgz"))
}

// A template that cannot be published keeps none of the others out, and what is there is left as it is.
func TestTemplatesArePublishedOnce(t *testing.T) {
	if testing.Short() {
		t.Skip("runs a region of processes")
	}
	inFolder(t)
	t.Setenv(asMaestro, "1")
	t.Setenv("MAESTRO_KEY_PASSWORD", "")
	dir := t.TempDir()
	region, err := devregion.Start(t.Context(), devregion.Options{Dir: dir, Nodes: 1, NoSeed: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = region.Stop() })
	works(t, "pkg", "init", "maestro/load-test")
	manifest := filepath.Join("load-test", "manifest.yaml")
	text, err := os.ReadFile(manifest)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(manifest, []byte(strings.ReplaceAll(string(text), "0.1.0", "1.0.0")), 0o600); err != nil {
		t.Fatal(err)
	}
	works(t, "pkg", "build", "load-test")
	works(t, "pkg", "keygen", "--out", "k")
	const mine = "maestro-load-test-1.0.0.mwpkg.tgz"
	works(t, "pkg", "sign", "--key", "k.key", mine)
	works(t, "--config-dir", dir, "pkg", "keys", "add", "k.pub", "--publisher", "maestro", "--platform")
	works(t, "--config-dir", dir, "pkg", "publish", mine, "--public")

	var before string
	for range 2 {
		count, err := region.PublishTemplates(t.Context())
		if count != 19 || client.Reason(err) != "version_conflict" || !strings.Contains(err.Error(), "maestro/load-test@1.0.0") {
			t.Fatalf("%d are there, %v", count, err)
		}
		out := works(t, "--config-dir", dir, "pkg", "list", "-o", "json")
		var list struct{ Packages []struct{ Name string } }
		if err := json.Unmarshal([]byte(out), &list); err != nil || len(list.Packages) != 20 {
			t.Errorf("%d packages, %v", len(list.Packages), err)
		}
		if before != "" && out != before {
			t.Errorf("published again, the list is\n%s\nand was\n%s", out, before)
		}
		before = out
	}
	if out := works(t, "--config-dir", dir, "pkg", "keys", "list", "-o", "json"); strings.Count(out, `"publisher": "maestro"`) != 2 {
		t.Errorf("keys: %s", out)
	}
}
