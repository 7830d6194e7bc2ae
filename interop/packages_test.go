//go:build interop

package interop

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/maestro-conductor/maestro/pkgstore/mwpkg"
)

// password is that of every key here.
const password = "letmein"

// bench is a folder with an unsigned package, where programs run.
type bench struct {
	t       *testing.T
	dir     string
	file    string
	maestro string
	cosign  string
}

func newBench(t *testing.T) bench {
	t.Helper()
	b := bench{t: t, dir: t.TempDir(), file: "myflow-0.1.0.mwpkg.tgz", maestro: os.Getenv("MAESTRO"), cosign: os.Getenv("COSIGN")}
	if b.maestro == "" || b.cosign == "" {
		t.Fatal("MAESTRO or COSIGN names no binary; run make interop")
	}
	b.run(b.maestro, "pkg", "init", "myflow")
	b.run(b.maestro, "pkg", "build", "myflow")
	return b
}

// try runs a program in the folder.
func (b bench) try(program string, args ...string) (string, error) {
	b.t.Helper()
	cmd := exec.CommandContext(b.t.Context(), program, args...)
	cmd.Dir = b.dir
	cmd.Env = append(os.Environ(), "COSIGN_PASSWORD="+password, "MAESTRO_CONFIG_DIR="+b.dir)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// run runs a program that must succeed.
func (b bench) run(program string, args ...string) {
	b.t.Helper()
	if out, err := b.try(program, args...); err != nil {
		b.t.Fatalf("%s %s: %v\n%s", filepath.Base(program), strings.Join(args, " "), err, out)
	}
}

// fails runs a program that must not succeed.
func (b bench) fails(program string, args ...string) {
	b.t.Helper()
	if out, err := b.try(program, args...); err == nil {
		b.t.Fatalf("%s %s succeeded:\n%s", filepath.Base(program), strings.Join(args, " "), out)
	}
}

// change turns one letter of a file into another.
func (b bench) change(name string) {
	b.t.Helper()
	path := filepath.Join(b.dir, name)
	data, err := os.ReadFile(path)
	must(b.t, err)
	data[0] ^= 1
	must(b.t, os.WriteFile(path, data, 0o600))
}

// judges are the programs of others that say whether a package's signatures hold.
func (b bench) judges(key string) map[string][]string {
	modules, err := filepath.Abs("sigstorejs/verify.js")
	must(b.t, err)
	return map[string][]string{
		"sums":           {"sha256sum", "--strict", "-c", mwpkg.SumsPath},
		"blob signature": {b.cosign, "verify-blob", "--key", key, "--signature", mwpkg.SignaturePath, "--insecure-ignore-tlog=true", mwpkg.SumsPath},
		"bundle":         {b.cosign, "verify-blob", "--key", key, "--bundle", mwpkg.BundlePath, "--insecure-ignore-tlog=true", mwpkg.SumsPath},
		"JavaScript":     {"node", modules, mwpkg.BundlePath, key, mwpkg.SumsPath},
	}
}

// Packages that were signed here are good for stock tar and sha256sum, for cosign, and for the verifier of the npm client, and
// no longer once their sums are changed.
func TestOthersVerifyOurSignatures(t *testing.T) {
	b := newBench(t)
	b.run(b.maestro, "pkg", "keygen", "--out", "k")
	b.run(b.maestro, "pkg", "keygen", "--out", "other")
	b.run(b.maestro, "pkg", "sign", "--key", "k.key", b.file)
	b.run("tar", "-xzf", b.file)
	for name, judge := range b.judges("k.pub") {
		t.Run(name, func(t *testing.T) { b.t = t; b.run(judge[0], judge[1:]...) })
	}
	for name, judge := range b.judges("other.pub") {
		if name != "sums" {
			t.Run(name+" by another key", func(t *testing.T) { b.t = t; b.fails(judge[0], judge[1:]...) })
		}
	}
	b.change(mwpkg.SumsPath)
	for name, judge := range b.judges("k.pub") {
		t.Run(name+" of other sums", func(t *testing.T) { b.t = t; b.fails(judge[0], judge[1:]...) })
	}
}

// Keys that cosign made sign here, and ours sign there.
func TestKeyFilesAreShared(t *testing.T) {
	b := newBench(t)
	b.run(b.cosign, "generate-key-pair", "--output-key-prefix", "theirs")
	b.run(b.maestro, "pkg", "sign", "--key", "theirs.key", b.file)
	b.run(b.maestro, "pkg", "verify", "--key", "theirs.pub", b.file)
	b.run(b.maestro, "pkg", "keygen", "--out", "ours")
	b.run("tar", "-xzf", b.file)
	b.run(b.cosign, "sign-blob", "--yes", "--key", "ours.key", "--bundle", "b.json", "--use-signing-config=false", "--tlog-upload=false", mwpkg.SumsPath)
	b.run(b.maestro, "pkg", "sign", "--bundle", "b.json", b.file)
	b.run(b.maestro, "pkg", "verify", "--key", "ours.pub", b.file)
	b.run(b.maestro, "pkg", "verify", "--key", "theirs.pub", b.file) // it stays beside the other
}

// What cosign signs verifies here, as a bundle and as a blob signature, time after time: half of its signatures have the higher s.
func TestWeVerifySignaturesOfCosign(t *testing.T) {
	b := newBench(t)
	b.run(b.cosign, "generate-key-pair", "--output-key-prefix", "theirs")
	public, err := os.ReadFile(filepath.Join(b.dir, "theirs.pub"))
	must(t, err)
	key, err := mwpkg.NewKey(public)
	must(t, err)
	trust := &mwpkg.Trust{Keys: []mwpkg.Key{key}}
	data, err := os.ReadFile(filepath.Join(b.dir, b.file))
	must(t, err)
	p, err := mwpkg.Open(data)
	must(t, err)
	must(t, os.WriteFile(filepath.Join(b.dir, "sums"), p.Sums(), 0o600))
	check := func(s mwpkg.Signature, err error) {
		t.Helper()
		must(t, err)
		signed, err := p.WithSignature(s)
		must(t, err)
		data, err := signed.Bytes()
		must(t, err)
		opened, err := mwpkg.Open(data)
		must(t, err)
		_, err = opened.Verify(trust, time.Now())
		must(t, err)
	}
	read := func(name string) []byte {
		data, err := os.ReadFile(filepath.Join(b.dir, name))
		must(t, err)
		return data
	}
	for range 6 {
		b.run(b.cosign, "sign-blob", "--yes", "--key", "theirs.key", "--bundle", "b.json", "--use-signing-config=false", "--tlog-upload=false", "sums")
		check(mwpkg.ParseBundle(read("b.json"), p.Sums()))
		b.run(b.cosign, "sign-blob", "--yes", "--key", "theirs.key", "--output-signature", "s", "--new-bundle-format=false", "--use-signing-config=false", "--tlog-upload=false", "sums")
		check(mwpkg.ParseBlobSignature(read("s"), key.ID))
	}
	// A bundle of something else is not one of this package.
	must(t, os.WriteFile(filepath.Join(b.dir, "else"), bytes.ToUpper(p.Sums()), 0o600))
	b.run(b.cosign, "sign-blob", "--yes", "--key", "theirs.key", "--bundle", "b.json", "--use-signing-config=false", "--tlog-upload=false", "else")
	b.fails(b.maestro, "pkg", "sign", "--bundle", "b.json", b.file)
}
