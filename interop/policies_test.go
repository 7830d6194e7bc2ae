//go:build interop

package interop

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// packBench is a folder with an unsigned pack, pack.tar.gz, and a key pair that cosign and maestro use, k.key and k.pub.
func packBench(t *testing.T) (b bench, opa string) {
	t.Helper()
	b = bench{t: t, dir: t.TempDir(), file: "pack.tar.gz", maestro: os.Getenv("MAESTRO"), cosign: os.Getenv("COSIGN")}
	if opa = os.Getenv("OPA"); opa == "" || b.maestro == "" || b.cosign == "" {
		t.Fatal("MAESTRO, COSIGN or OPA names no binary; run make interop")
	}
	pack, err := filepath.Abs("../policies/packs/limits")
	must(t, err)
	must(t, os.CopyFS(filepath.Join(b.dir, "limits"), os.DirFS(pack)))
	b.run(b.maestro, "policy", "build", "limits", "--revision", "7", "--out", b.file)
	b.run(b.maestro, "pkg", "keygen", "--out", "k")
	return b, opa
}

// keyID is what maestro calls the key of the folder.
func (b bench) keyID() string {
	b.t.Helper()
	out, err := b.try(b.maestro, "policy", "verify", "--key", "k.pub", b.file, "-o", "json")
	must(b.t, err)
	var v struct{ SignedBy string }
	must(b.t, json.Unmarshal([]byte(out), &v))
	return v.SignedBy
}

// TestOPAVerifiesOurPacks: opa verifies what maestro signed, evaluates it, and refuses it once it was changed or is for another
// scope; cosign verifies what stands beside it.
func TestOPAVerifiesOurPacks(t *testing.T) {
	b, opa := packBench(t)
	b.run(b.maestro, "policy", "sign", "--key", "k.key", "--issuer", "release", b.file)
	verify := func(file, scope string) []string {
		return []string{
			"build", "--bundle", file, "--verification-key", "k.pub", "--verification-key-id", b.keyID(), "--signing-alg", "ES256", "--scope", scope,
			"--output", "loaded.tar.gz",
		}
	}
	b.run(opa, verify(b.file, "*/mc.limits")...)
	out, err := b.try(opa, "eval", "--bundle", b.file, "--format", "raw",
		`count(data.mc.limits.violation) with input as {"cost": 2, "limits": {"key": {"a": {"kind": "rate", "limit": 1, "used": 0}}}}`)
	if err != nil || strings.TrimSpace(out) != "1" {
		t.Errorf("opa eval: %v\n%s", err, out)
	}
	b.fails(opa, verify(b.file, "acme/mc.limits")...)
	must(t, os.Mkdir(filepath.Join(b.dir, "open"), 0o700))
	b.run("tar", "-xzf", b.file, "-C", "open")
	b.run("sh", "-c", "echo >> open/limits.rego && tar -czf changed.tar.gz -C open .")
	b.fails(opa, verify("changed.tar.gz", "*/mc.limits")...)
	b.fails(b.maestro, "policy", "verify", "--key", "k.pub", "changed.tar.gz")

	b.run(b.cosign, "verify-blob", "--key", "k.pub", "--bundle", b.file+".sigstore.json", "--insecure-ignore-tlog=true", b.file)
	b.run(b.cosign, "verify-blob", "--key", "k.pub", "--signature", b.file+".sig", "--insecure-ignore-tlog=true", b.file)
}

// TestPacksOfOthers: what opa built and signed with a key of openssl, and cosign signed beside, is accepted; expired
// or without a scope it is not.
func TestPacksOfOthers(t *testing.T) {
	b, opa := packBench(t)
	b.run("openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", "o.pem")
	b.run("openssl", "ec", "-in", "o.pem", "-pubout", "-out", "o.pub")
	claims := func(exp time.Time, scope string) {
		text := fmt.Sprintf(`{"scope": %q, "iss": "release", "iat": %d, "exp": %d, "revision": "7", "keyid": "o"}`, scope, time.Now().Unix()-5, exp.Unix())
		must(t, os.WriteFile(filepath.Join(b.dir, "claims.json"), []byte(text), 0o600))
	}
	build := func() {
		b.run(opa, "build", "--bundle", "limits", "--ignore", "*_test.rego", "--revision", "7", "--signing-key", "o.pem", "--signing-alg", "ES256",
			"--claims-file", "claims.json", "--output", "theirs.tar.gz")
		b.run(b.cosign, "sign-blob", "--yes", "--key", "k.key", "--bundle", "theirs.tar.gz.sigstore.json", "--use-signing-config=false", "--tlog-upload=false", "theirs.tar.gz")
	}
	verify := []string{"policy", "verify", "--key", "o.pub", "--key", "k.pub", "theirs.tar.gz"}
	claims(time.Now().Add(time.Hour), "*/mc.limits")
	build()
	b.run(b.maestro, verify...)
	claims(time.Now().Add(-time.Second), "*/mc.limits")
	build()
	b.fails(b.maestro, verify...)
	claims(time.Now().Add(time.Hour), "")
	build()
	b.fails(b.maestro, verify...)

	// opa sign writes the signature by itself, for whoever puts the archive together.
	claims(time.Now().Add(time.Hour), "*/mc.limits")
	must(t, os.Mkdir(filepath.Join(b.dir, "open"), 0o700))
	b.run("tar", "-xzf", b.file, "-C", "open")
	b.run(opa, "sign", "--signing-key", "o.pem", "--signing-alg", "ES256", "--claims-file", "claims.json", "--bundle", b.file, "--output-file-path", "open")
	b.run("sh", "-c", "cd open && tar --format=ustar --owner=0 --group=0 -czf ../theirs.tar.gz .manifest .signatures.json limits.rego")
	b.run(b.cosign, "sign-blob", "--yes", "--key", "k.key", "--bundle", "theirs.tar.gz.sigstore.json", "--use-signing-config=false", "--tlog-upload=false", "theirs.tar.gz")
	b.run(b.maestro, verify...)
}

// TestOPARunsOurTests: the tests of the packs are tests of opa too.
func TestOPARunsOurTests(t *testing.T) {
	b, opa := packBench(t)
	for _, name := range []string{"limits", "authz", "packages"} {
		pack, err := filepath.Abs("../policies/packs/" + name)
		must(t, err)
		b.run(opa, "test", pack)
		b.run(opa, "check", "--strict", pack)
	}
}
