package blobsign

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/asn1"
	"math/big"
	"strings"
	"testing"
)

// TestRoundTrip: a signature is the same read back as text, as a bundle and in the form with the higher s, and holds for its file only.
func TestRoundTrip(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	file, id := []byte("content"), sha256.Sum256([]byte("key"))
	digest := sha256.Sum256(file)
	der, err := ecdsa.SignASN1(rand.Reader, key, digest[:])
	if err != nil {
		t.Fatal(err)
	}
	s, err := Parse(der, id)
	if err != nil || !s.Holds(&key.PublicKey, file) || s.Holds(&key.PublicKey, []byte("other")) {
		t.Fatalf("%+v, %v", s, err)
	}
	if r := s.Raw(); len(r) != 64 || new(big.Int).SetBytes(r[:32]).Cmp(s.R) != 0 || new(big.Int).SetBytes(r[32:]).Cmp(s.S) != 0 {
		t.Errorf("raw: %x", r)
	}
	higher, err := asn1.Marshal(numbers{s.R, new(big.Int).Sub(elliptic.P256().Params().N, s.S)})
	if err != nil {
		t.Fatal(err)
	}
	for name, read := range map[string]func() (Signature, error){
		"higher s": func() (Signature, error) { return Parse(higher, id) },
		"text":     func() (Signature, error) { return ParseText(append(s.Text(), '\n'), id) },
		"bundle":   func() (Signature, error) { return ParseBundle(s.Bundle(file), file) },
	} {
		if got, err := read(); err != nil || !bytes.Equal(got.DER(), s.DER()) || got.KeyID != id {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

// TestWhatIsRefused: signatures and bundles that are written in another way, or say more than is checked.
func TestWhatIsRefused(t *testing.T) {
	n := elliptic.P256().Params().N
	der := func(r, s *big.Int) []byte {
		out, err := asn1.Marshal(numbers{r, s})
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	one, id := big.NewInt(1), [sha256.Size]byte{}
	for name, data := range map[string][]byte{
		"empty": nil, "r is 0": der(new(big.Int), one), "s is 0": der(one, new(big.Int)), "s is n": der(one, n), "r is negative": der(big.NewInt(-1), one),
		"more follows": append(der(one, one), 0),
	} {
		if _, err := Parse(data, id); err == nil {
			t.Errorf("%s is read", name)
		}
	}
	file := []byte("content")
	good := string(Signature{id, one, one}.Bundle(file))
	if _, err := ParseBundle([]byte(good), file); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"other file":     string(Signature{id, one, one}.Bundle([]byte("other"))),
		"other version":  strings.Replace(good, "v0.3", "v0.4", 1),
		"SHA-1":          strings.Replace(good, "SHA2_256", "SHA1", 1),
		"certificate":    strings.Replace(good, `"publicKey"`, `"certificate":{},"publicKey"`, 1),
		"log entries":    strings.Replace(good, `"publicKey"`, `"tlogEntries":[],"publicKey"`, 1),
		"more follows":   good + "{}",
		"short key hint": strings.Replace(good, "AAAAAAAA", "", 1),
		"too large":      good + strings.Repeat(" ", MaxSize),
	} {
		if _, err := ParseBundle([]byte(text), file); err == nil {
			t.Errorf("%s is read", name)
		}
	}
	for name, text := range map[string]string{"empty": "", "two lines": "AA\nAA", "no base64": "?"} {
		if _, err := ParseText([]byte(text), id); err == nil {
			t.Errorf("%s is read", name)
		}
	}
}
