package policies

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"testing"
	"time"
)

// TestGoldenPack: a pack that an earlier build signed is verified and decides, and its content gives the same archive again.
func TestGoldenPack(t *testing.T) {
	read := func(name string) []byte { return get(os.ReadFile("testdata/" + name))(t) }
	key := get(NewKey(read("golden.pub"), "acme/acme.hours"))(t)
	const file = "acme.hours-3.tar.gz"
	v, err := Verify(read(file), Demand{
		Tenant: "acme", Pack: "acme.hours", Keys: []Key{key}, Now: time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC),
		Text: read(file + ".sig"), Bundle: read(file + ".sigstore.json"),
	})
	must(t, v, err)
	const digest = "sha256:2574f399035f34b69436ac3ed52c759ebc218eeda49939d238e2a0e84a13ef3d"
	if want := (PackRef{"acme.hours", 3, digest}); v.Pack.Ref() != want || v.Issuer != "acme-security" {
		t.Errorf("%+v", v)
	}
	set := get(NewSet(v.Pack))(t)
	in := &Input{Action: "execution.start", Resource: Resource{Attributes: map[string]string{"day": "sunday"}}}
	if d := get(set.Decide(t.Context(), in))(t); d.Allow || d.Reasons[0].Text != "closed on sunday" || d.Reasons[0].Line != 11 {
		t.Errorf("%+v", d)
	}
	_, archive, err := Build(v.Source, 3)
	sum := sha256.Sum256(must(t, archive, err))
	if got := hex.EncodeToString(sum[:]); got != goldenArchive {
		t.Errorf("the archive without a signature is %s", got)
	}
}

const goldenArchive = "2fa7b0003328bd307a622e264eb247060c60c16d6445df63d561c147f1226e13"
