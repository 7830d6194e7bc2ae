package main

import (
	"crypto/ed25519"
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"

	provenancev1 "github.com/maestro-conductor/maestro/api/gen/mc/provenance/v1"
	"github.com/maestro-conductor/maestro/index"
	"github.com/maestro-conductor/maestro/index/disposition"
)

// Exported records are verified with the public key alone; what was changed or signed by others is told.
func TestDispositionVerify(t *testing.T) {
	isolate(t)
	dir := t.TempDir()
	if err := disposition.Create(dir); err != nil {
		t.Fatal(err)
	}
	key, err := disposition.LoadKey(filepath.Join(dir, disposition.KeyName))
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(filepath.Join(dir, disposition.KeyName)); err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("%v, %v", info.Mode(), err)
	}
	r := disposition.Record{Type: disposition.Type, Region: "local", Shard: "index-0", Tenant: "acme", Lines: []disposition.Line{{Kind: "event", Rule: "*/event", Age: "1h0m0s", Count: 3}}}
	payload, err := r.Encode()
	if err != nil {
		t.Fatal(err)
	}
	line := func(change func(*provenancev1.Document)) string {
		d := &provenancev1.Document{Id: "disposition-1", Kind: index.KindDisposition, Tenant: "acme", Attributes: map[string]string{
			index.AttributeRecord:    string(payload),
			index.AttributeSignature: base64.StdEncoding.EncodeToString(disposition.Sign(key, payload)),
			index.AttributeKey:       disposition.KeyID(key.Public().(ed25519.PublicKey)),
		}}
		change(d)
		b, err := protojson.Marshal(d)
		if err != nil {
			t.Fatal(err)
		}
		return string(b) + "\n"
	}
	good := line(func(*provenancev1.Document) {})
	public := filepath.Join(dir, disposition.PublicKeyName)
	stdout, stderr, status := maestro(t, good, "index", "disposition", "verify", "--key", public)
	if status != statusDone || !strings.Contains(stdout, "valid") || !strings.Contains(stdout, "*/event") {
		t.Errorf("status %d, %s%s", status, stdout, stderr)
	}
	for what, bad := range map[string]string{
		"count": line(func(d *provenancev1.Document) {
			d.Attributes[index.AttributeRecord] = strings.Replace(string(payload), `"count":3`, `"count":2`, 1)
		}),
		"tenant": line(func(d *provenancev1.Document) { d.Tenant = "beta" }),
		"key":    line(func(d *provenancev1.Document) { d.Attributes[index.AttributeKey] = "sha256:00" }),
		"kind":   line(func(d *provenancev1.Document) { d.Kind = "event" }),
		"json":   "{\n",
	} {
		stdout, _, status := maestro(t, good+bad, "index", "disposition", "verify", "--key", public)
		if status == statusDone || !strings.Contains(stdout, "BAD") || !strings.Contains(stdout, "valid") {
			t.Errorf("%s: status %d, %s", what, status, stdout)
		}
	}
}

func TestAges(t *testing.T) {
	for text, want := range map[string]int64{"forever": 0, "36h": 36 * 3600, "90d": 90 * daySeconds, "7y": 7 * 365 * daySeconds, "1m": 60} {
		if got, err := parseAge(text); err != nil || got != want {
			t.Errorf("%s: %d, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "1", "-3d", "0d", "59s", "d", "1.5y"} {
		if got, err := parseAge(text); err == nil {
			t.Errorf("%q is %d", text, got)
		}
	}
}
