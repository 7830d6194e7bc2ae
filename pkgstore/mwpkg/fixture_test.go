package mwpkg

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/sigstore/sigstore/pkg/signature"
)

// goodManifest is a manifest in which nothing is wrong; tests replace parts of it.
const goodManifest = `apiVersion: maestro.dev/pkg/v1
kind: WorkflowPackage
metadata:
  name: acme/restore-drill
  version: 0.1.0
  title: Restores a backup and looks at it
  description: A drill.
  license: Apache-2.0
  keywords: [backup, drill]
  homepage: https://example.com/drill
engine: ">=0.4.0 <1.0.0"
inputs:
  database: {type: string, required: true, pattern: '^[a-z]+$', maxLength: 20}
  dsn: {type: secretRef, required: true}
  minutes: {type: integer, default: 30, minimum: 1, maximum: 60}
  tables: {type: array, items: {type: string}, default: [users]}
outputs:
  restored: {type: boolean, from: steps.check.restored}
runner: {class: small, os: linux, arch: [amd64, arm64]}
resources: {cpu: 500m, memory: 512Mi, timeout: 30m, maxParallel: 2}
capabilities:
  network: {egress: ["db.example.com:5432"]}
  secrets: [dsn]
  commands: [sh]
workflow:
  steps:
    - id: restore
      run: [sh, restore.sh, "${inputs.database}"]
      env: {DSN: "${inputs.dsn}", TABLES: "${inputs.tables}"}
      egress: ["db.example.com:5432"]
      outputs: [rows]
      retry: {max: 2, backoff: 5s}
      timeout: 10m
    - id: check
      needs: [restore]
      if: inputs.minutes != 0 && steps.restore.ok
      run: [sh, check.sh]
      env: {ROWS: "${steps.restore.rows}"}
      outputs: [restored]
    - id: drop
      needs: [check]
      always: true
      run: [sh, drop.sh]
examples: [examples/minimal.yaml]
`

const goodExample = `title: A small database
inputs: {database: shop, dsn: drills/shop}
secrets: {dsn: invented}
expect:
  status: succeeded
  steps: {restore: succeeded, drop: succeeded}
  outputs: {restored: true}
`

// goodFiles are the files of a package in which nothing is wrong.
func goodFiles() map[string]string {
	return map[string]string{
		ManifestPath:            goodManifest,
		ReadmePath:              "# Restore drill\n\nRestores a backup.\n",
		"examples/minimal.yaml": goodExample,
		"restore.sh":            "echo rows=12 >>\"$MAESTRO_OUTPUT\"\n",
		"check.sh":              "echo restored=true >>\"$MAESTRO_OUTPUT\"\n",
		"drop.sh":               "exit 0\n",
	}
}

func folder(files map[string]string) fs.FS {
	m := fstest.MapFS{}
	for path, data := range files {
		m[path] = &fstest.MapFile{Data: []byte(data), Mode: 0o644}
	}
	return m
}

func build(t testing.TB, files map[string]string) *Package {
	t.Helper()
	p, err := Build(folder(files))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func archive(t testing.TB, p *Package) []byte {
	t.Helper()
	data, err := p.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// tester is a key pair that signs in tests.
type tester struct {
	signature.Signer
	key Key
}

// newTester makes a key for every publisher without end.
func newTester(t testing.TB) tester {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := signature.LoadSigner(private, crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	key, err := newKey(private.Public())
	if err != nil {
		t.Fatal(err)
	}
	key.Publisher = AnyPublisher
	return tester{signer, key}
}

func sign(t testing.TB, p *Package, by tester) *Package {
	t.Helper()
	signed, err := p.Sign(by)
	if err != nil {
		t.Fatal(err)
	}
	return signed
}

// today is the moment that tests judge at.
var today = time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC)

// wantCode fails unless err is a refusal with that code.
func wantCode(t testing.TB, err error, code Code) {
	t.Helper()
	if !isCode(err, code) {
		t.Fatalf("refused with %v, want the code %s", err, code)
	}
	if text := err.Error(); len(text) > 700 || strings.ContainsAny(text, "\x00\x1b") {
		t.Errorf("the refusal shows raw or endless text: %.200q", text)
	}
}
