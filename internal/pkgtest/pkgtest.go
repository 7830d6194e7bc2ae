// Package pkgtest makes signed packages for tests and benchmarks.
package pkgtest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"testing"
	"testing/fstest"

	"github.com/sigstore/sigstore/pkg/signature"

	"github.com/maestro-conductor/maestro/pkgstore/mwpkg"
)

// Key is a key pair.
type Key struct {
	Signer signature.Signer
	// PEM is the public key.
	PEM []byte
	// Private is the key file, which is not encrypted.
	Private []byte
	ID      mwpkg.Digest
}

// NewKey makes one.
func NewKey(t testing.TB) Key {
	t.Helper()
	pair, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(pair)
	if err != nil {
		t.Fatal(err)
	}
	spki, err := x509.MarshalPKIXPublicKey(pair.Public())
	if err != nil {
		t.Fatal(err)
	}
	private := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})
	public := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: spki})
	signer, err := mwpkg.LoadSigner(private, nil)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := mwpkg.NewKey(public)
	if err != nil {
		t.Fatal(err)
	}
	return Key{Signer: signer, PEM: public, Private: private, ID: parsed.ID}
}

// Options are what a package is made of; zero values are the defaults.
type Options struct {
	// Name, default acme/flow, and Version, default 0.1.0.
	Name, Version string
	Title         string
	// Egress are where its step connects to.
	Egress string
	// Text is in a file of the package: two packages that differ in nothing else have other contents.
	Text string
	// Bytes is how large it is made, about, by bytes that do not compress.
	Bytes int
	// Dependency is NAME, VERSION and content digest of a package that it needs.
	Dependency *mwpkg.Dependency
}

// New makes a package that the keys have signed.
func New(t testing.TB, o Options, keys ...Key) *mwpkg.Package {
	t.Helper()
	p, err := mwpkg.Build(folder(t, o))
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range keys {
		if p, err = p.Sign(k.Signer); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

// Archive is New as the file.
func Archive(t testing.TB, o Options, keys ...Key) []byte {
	t.Helper()
	data, err := New(t, o, keys...).Bytes()
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func folder(t testing.TB, o Options) fstest.MapFS {
	fallback := func(s *string, v string) {
		if *s == "" {
			*s = v
		}
	}
	fallback(&o.Name, "acme/flow")
	fallback(&o.Version, "0.1.0")
	fallback(&o.Title, "A flow of a test")
	network, egress, dependencies := "", "", ""
	if o.Egress != "" {
		network = fmt.Sprintf("\n  network: {egress: [%q]}", o.Egress)
		egress = fmt.Sprintf("\n      egress: [%q]", o.Egress)
	}
	if d := o.Dependency; d != nil {
		dependencies = fmt.Sprintf("dependencies: [{name: %s, version: %s, digest: %q}]\n", d.Name, d.Version, d.Digest)
	}
	manifest := fmt.Sprintf(`apiVersion: maestro.dev/pkg/v1
kind: WorkflowPackage
metadata:
  name: %s
  version: %s
  title: %q
  description: It runs one step.
  license: Apache-2.0
engine: ">=0.4.0 <1.0.0"
resources: {cpu: 100m, memory: 64Mi, timeout: 1m}
capabilities:%s
  commands: [sh]
workflow:
  steps:
    - id: go
      run: [sh, go.sh]%s
%sexamples: [examples/minimal.yaml]
`, o.Name, o.Version, o.Title, network, egress, dependencies)
	files := fstest.MapFS{}
	add := func(path string, data []byte) { files[path] = &fstest.MapFile{Data: data, Mode: 0o644} }
	add(mwpkg.ManifestPath, []byte(manifest))
	add(mwpkg.ReadmePath, []byte("# A flow\n\nIt runs one step.\n"))
	add("examples/minimal.yaml", []byte("title: One step\nexpect:\n  status: succeeded\n"))
	add("go.sh", []byte("exit 0\n"))
	if o.Text != "" {
		add("note.txt", []byte(o.Text))
	}
	if o.Bytes > 0 {
		data := make([]byte, o.Bytes)
		rand.Read(data) // never fails
		add("data.bin", data)
	}
	return files
}
