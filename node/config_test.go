package node

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/maestro-conductor/maestro/internal/certs"
)

const goodConfig = `
name: node-2
region: eu-central
data_dir: data
api: {listen: "127.0.0.1:7410"}
cluster: {listen: "127.0.0.1:7411"}
admin: {listen: "127.0.0.1:7412"}
seeds:
- {name: node-1, cluster: "10.0.0.1:7401", api: "10.0.0.1:7400"}
- {name: node-2, cluster: "10.0.0.2:7401", api: "10.0.0.2:7400"}
- {name: node-3, cluster: "10.0.0.3:7401", api: "10.0.0.3:7400"}
tls: {ca: ca.pem, cert: node-2.pem, key: /keys/node-2.key}
groups: {index: 5}
`

func TestParseConfig(t *testing.T) {
	c, problems := parseConfig([]byte(goodConfig), "/etc/maestro", Overrides{})
	if len(problems) > 0 {
		t.Fatalf("problems: %q", problems)
	}
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	for _, f := range []struct{ what, got, want string }{
		{"relative data folder", c.DataDir, "/etc/maestro/data"},
		{"relative certificate", c.TLS.Cert, "/etc/maestro/node-2.pem"},
		{"absolute key", c.TLS.Key, "/keys/node-2.key"},
		{"advertised API address", c.API.Advertise, "10.0.0.2:7400"},
		{"advertised cluster address", c.Cluster.Advertise, "10.0.0.2:7401"},
		{"default log level", c.Log.Level, "info"},
		{"groups", fmt.Sprint(c.Groups), "{3 5}"},
		{"default services", fmt.Sprint(c.Services), "[limiter index]"},
	} {
		if f.got != f.want {
			t.Errorf("%s: got %q, want %q", f.what, f.got, f.want)
		}
	}
	if !c.Runs(ServiceIndex) || c.Runs("scheduler") {
		t.Error("Runs does not follow services")
	}
}

// A node that joins a region names nodes of it, and says itself where it is.
func TestConfigOfANodeThatJoins(t *testing.T) {
	text := strings.NewReplacer("name: node-2\n", "name: node-9\n", `api: {listen: "127.0.0.1:7410"}`, `api: {listen: ":1", advertise: "10.0.0.9:7400"}`,
		`cluster: {listen: "127.0.0.1:7411"}`, `cluster: {listen: ":2", advertise: "10.0.0.9:7401"}`).Replace(goodConfig)
	text = strings.Replace(text, "- {name: node-2,", "- {name: node-4,", 1)
	c, problems := parseConfig([]byte(text), "", Overrides{})
	if len(problems) > 0 || c.Self() != (Seed{Name: "node-9", Cluster: "10.0.0.9:7401", API: "10.0.0.9:7400"}) {
		t.Errorf("problems %q, self %+v", problems, c.Self())
	}
}

func TestFlagsOverrideEnvironmentOverridesFile(t *testing.T) {
	env := map[string]string{"MAESTRO_DATA_DIR": "from-env", "MAESTRO_LOG_LEVEL": "warn", "MAESTRO_SERVICES": "limiter", "MAESTRO_REGION": ""}
	c, problems := parseConfig([]byte(goodConfig), "/etc/maestro", Overrides{
		LookupEnv: func(name string) (string, bool) { v, ok := env[name]; return v, ok },
		Flags:     map[string]string{"log.level": "debug"},
	})
	if len(problems) > 0 {
		t.Fatalf("problems: %q", problems)
	}
	if c.DataDir != "from-env" || c.Log.Level != "debug" || !slices.Equal(c.Services, []string{"limiter"}) {
		t.Errorf("data_dir %q, log.level %q, services %q", c.DataDir, c.Log.Level, c.Services)
	}
	if c.Region != "eu-central" {
		t.Errorf("an empty variable changed region to %q", c.Region)
	}
	_, problems = parseConfig([]byte(goodConfig), "", Overrides{Flags: map[string]string{"seeds": "x"}})
	if !slices.Contains(problems, `no setting is called "seeds"`) {
		t.Errorf("problems %q", problems)
	}
}

func TestConfigProblems(t *testing.T) {
	for _, tc := range []struct{ name, old, new, want string }{
		{"unknown key", "data_dir: data", "datadir: data", `line 4: unknown key "datadir"; did you mean "data_dir"?`},
		{"unknown nested key", "groups: {index: 5}", "groups: {indx: 5}", `line 13: unknown key "groups.indx"; did you mean "groups.index"?`},
		{"no name", "name: node-2\n", "", `name is empty`},
		{"bad name", "region: eu-central", "region: EU_central", `region is "EU_central"; use 1 to 63 lower-case letters`},
		{"empty data folder", "data_dir: data", `data_dir: ""`, `data_dir is empty`},
		{"not among the seeds", "name: node-2\n", "name: node-9\n", `cluster.advertise is empty, and seeds does not list this node, "node-9"`},
		{"joins at a seed's address", "name: node-2\nregion: eu-central\ndata_dir: data\napi: {listen: \"127.0.0.1:7410\"}\n", "name: node-9\napi: {listen: ':1', advertise: '10.0.0.1:7400'}\n", `api.advertise is 10.0.0.1:7400, which is seeds[0].api already`},
		{"joins from every interface", "name: node-2\nregion: eu-central\ndata_dir: data\napi: {listen: \"127.0.0.1:7410\"}\n", "name: node-9\napi: {listen: ':1', advertise: ':7400'}\n", `api.advertise is ":7400"; other machines need a host`},
		{"even seeds", "- {name: node-3, cluster: \"10.0.0.3:7401\", api: \"10.0.0.3:7400\"}\n", "", `seeds lists 2 nodes; a region starts with 1, 3 or 5`},
		{"seed name twice", "- {name: node-3", "- {name: node-1", `seeds[2].name "node-1" is another seed's name too`},
		{"seed address twice", `api: "10.0.0.3:7400"`, `api: "10.0.0.3:7401"`, `seeds[2].api is 10.0.0.3:7401, which is seeds[2].cluster already`},
		{"seed without host", `api: "10.0.0.3:7400"`, `api: ":7400"`, `seeds[2].api is ":7400"; other machines need a host`},
		{"seed on every interface", `api: "10.0.0.3:7400"`, `api: "0.0.0.0:7400"`, `other machines need a host they can dial`},
		{"address without port", `"127.0.0.1:7410"`, "localhost", `api.listen is "localhost"; write HOST:PORT`},
		{"port out of range", "127.0.0.1:7410", "127.0.0.1:74100", `the port must be a number from 1 to 65535`},
		{"one port for two", "127.0.0.1:7411", "127.0.0.1:7410", `api.listen and cluster.listen are both "127.0.0.1:7410"`},
		{"advertise differs from seed", `api: {listen: "127.0.0.1:7410"}`, `api: {listen: "127.0.0.1:7410", advertise: "10.9.9.9:1"}`, `api.advertise is "10.9.9.9:1", but the seed entry of this node says "10.0.0.2:7400"`},
		{"no certificate", "ca: ca.pem, ", "", `tls.ca is empty; maestro certs create makes the files`},
		{"no services", "groups:", "services: []\ngroups:", `services is empty`},
		{"unknown service", "groups:", "services: [limitr]\ngroups:", `services[0] is "limitr"; did you mean "limiter"?`},
		{"service twice", "groups:", "services: [index, index]\ngroups:", `services lists "index" twice`},
		{"no groups", "{index: 5}", "{index: 0}", `groups.index is 0; it must be at least 1`},
		{"too many groups", "{index: 5}", "{limiter: 65}", `groups.limiter and groups.index make 69 groups with meta; a node hosts at most 64`},
		{"group not a number", "{index: 5}", "{limiter: many}", `line 13: "groups.limiter" must be a whole number, not "many"`},
		{"log level", "groups:", "log: {level: loud}\ngroups:", `log.level is "loud"; it must be debug or info or warn or error`},
		{"log format", "groups:", "log: {format: jsn}\ngroups:", `log.format is "jsn"; did you mean "json"?`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			text := strings.Replace(goodConfig, tc.old, tc.new, 1)
			if text == goodConfig {
				t.Fatalf("%q is not in the good configuration", tc.old)
			}
			_, problems := parseConfig([]byte(text), "", Overrides{})
			if !strings.Contains(strings.Join(problems, "\n"), tc.want) {
				t.Errorf("got  %q\nwant %s", problems, tc.want)
			}
		})
	}
}

func TestLoadConfigReportsAllAtOnce(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "node.yaml")
	text := strings.ReplaceAll(strings.Replace(goodConfig, "region: eu-central", "region: EU\nregoin: eu", 1), "groups:", "log: {level: loud}\ngroups:")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := LoadConfig(path, Overrides{})
	if !errors.Is(err, ErrConfig) {
		t.Fatalf("got %v, want ErrConfig", err)
	}
	for _, want := range []string{path + " has 6 problems", "line 4: unknown key \"regoin\"", `region is "EU"`, `log.level is "loud"`, "tls.ca: open " + dir + "/ca.pem"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is missing in:\n%v", want, err)
		}
	}
	if _, err := LoadConfig(filepath.Join(dir, "none.yaml"), Overrides{}); !errors.Is(err, ErrConfig) || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a missing file: %v", err)
	}
}

// What is wrong in the mapping of Envoy's descriptors is reported with the rest.
func TestLoadConfigReadsTheMapping(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "node.yaml")
	text := strings.Replace(goodConfig, "groups:", "envoy_mapping: envoy.yaml\nservices: [index]\ngroups:", 1)
	for file, content := range map[string]string{
		path: text, filepath.Join(dir, "envoy.yaml"): "domains: [{domain: edge, unmatched: deny}]",
	} {
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	_, err := LoadConfig(path, Overrides{})
	for _, want := range []string{
		"envoy_mapping: " + dir + "/envoy.yaml: domains[0].rules is empty; a domain needs a rule",
		"envoy_mapping is " + dir + "/envoy.yaml, but services does not list limiter", "tls.ca: open",
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is missing in:\n%v", want, err)
		}
	}
}

func TestLoadConfigWithRealCertificates(t *testing.T) {
	dir := t.TempDir()
	if err := certs.CreateCA(dir); err != nil {
		t.Fatal(err)
	}
	if err := certs.IssueNode(dir, "node-1", []string{"127.0.0.1"}); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "node.yaml")
	text := "name: node-1\nseeds: [{name: node-1, cluster: 'localhost:1', api: 'localhost:2'}]\ntls: {ca: ca.pem, cert: node-1.pem, key: node-1.key}\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := LoadConfig(path, Overrides{LookupEnv: os.LookupEnv})
	if err != nil {
		t.Fatal(err)
	}
	if c.Self().API != "localhost:2" {
		t.Errorf("own seed %+v", c.Self())
	}
}

func TestLoggerFollowsConfig(t *testing.T) {
	var out bytes.Buffer
	log := LogConfig{Level: "warn", Format: "json"}.Logger(&out)
	log.Info("hidden")
	log.Warn("shown")
	if s := out.String(); strings.Contains(s, "hidden") || !strings.HasPrefix(s, `{"time":`) || !strings.Contains(s, "shown") {
		t.Errorf("logged %s", s)
	}
}

// FuzzConfig: whatever the file says, it is accepted as valid or refused with problems.
func FuzzConfig(f *testing.F) {
	f.Add([]byte(goodConfig))
	f.Add([]byte("seeds: [{}, ~]\nlog: ~\nservices: ~\n"))
	f.Add([]byte("name: &a node-1\nregion: *a\n"))
	f.Add([]byte("groups: {limiter: 1e3, index: 0x10}\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, problems := parseConfig(data, "/etc/maestro", Overrides{})
		if err := c.Validate(); len(problems) == 0 && err != nil {
			t.Fatalf("accepted, but invalid: %v", err)
		}
	})
}

// The room on the disk and the clock's exactness have defaults, and bounds that are named.
func TestDiskAndClockSettings(t *testing.T) {
	c, problems := parseConfig([]byte(goodConfig), "/", Overrides{})
	if len(problems) > 0 || c.Disk.BallastBytes != 256<<20 || c.Disk.LowBytes != 0 || c.Clock.OffsetMax != 500*time.Millisecond {
		t.Errorf("defaults %+v, %+v, problems %q", c.Disk, c.Clock, problems)
	}
	c, problems = parseConfig([]byte(goodConfig+"disk: {ballast_bytes: 0, low_bytes: 1000}\nclock: {offset_max: 2s}\n"), "/", Overrides{})
	if len(problems) > 0 || c.Disk.BallastBytes != 0 || c.Disk.LowBytes != 1000 || c.Clock.OffsetMax != 2*time.Second {
		t.Errorf("set to %+v, %+v, problems %q", c.Disk, c.Clock, problems)
	}
	_, problems = parseConfig([]byte(goodConfig+"clock: {offset_max: 500}\n"), "/", Overrides{})
	if len(problems) == 0 || !strings.Contains(problems[0], "a duration with its unit") {
		t.Errorf("a number without a unit: %q", problems)
	}
}
