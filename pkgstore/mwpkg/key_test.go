package mwpkg

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/sigstore/sigstore/pkg/signature"
)

func pemOf(t testing.TB, kind string, der []byte, err error) []byte {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// Keys of other kinds neither sign nor verify, whatever they would be good for.
func TestS23OtherKeysAreRefused(t *testing.T) {
	_, edwards, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	larger, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("GODEBUG", "rsa1024min=0")
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	for name, private := range map[string]crypto.Signer{"Ed25519": edwards, "P-384": larger, "RSA of 1024 bits": weak} {
		t.Run(name, func(t *testing.T) {
			der, err := x509.MarshalPKIXPublicKey(private.Public())
			_, err = NewKey(pemOf(t, "PUBLIC KEY", der, err))
			wantCode(t, err, CodeKey)
			der, err = x509.MarshalPKCS8PrivateKey(private)
			_, err = LoadSigner(pemOf(t, "PRIVATE KEY", der, err), noPassword)
			wantCode(t, err, CodeKey)
			signer, err := signature.LoadSigner(private, crypto.SHA256)
			if err != nil {
				t.Fatal(err)
			}
			_, err = build(t, goodFiles()).Sign(signer)
			wantCode(t, err, CodeKey)
		})
	}
}

func noPassword() ([]byte, error) { return nil, errors.New("nobody asked for a password") }

// S24: a signer that hashes with anything but SHA-256 makes signatures that do not verify, and Sign says so.
func TestS24OtherHashesAreRefused(t *testing.T) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, sum := range []crypto.Hash{crypto.SHA1, crypto.SHA512} {
		_, err := build(t, goodFiles()).Sign(hashing{private, sum})
		wantCode(t, err, CodeSignatureInvalid)
	}
}

// hashing signs with another hash than SHA-256.
type hashing struct {
	private *ecdsa.PrivateKey
	sum     crypto.Hash
}

func (h hashing) PublicKey(...signature.PublicKeyOption) (crypto.PublicKey, error) {
	return h.private.Public(), nil
}

func (h hashing) SignMessage(message io.Reader, _ ...signature.SignOption) ([]byte, error) {
	sum := h.sum.New()
	if _, err := io.Copy(sum, message); err != nil {
		return nil, err
	}
	return ecdsa.SignASN1(rand.Reader, h.private, sum.Sum(nil))
}

// A key pair that was made opens with its password and no other, and both files are one key.
func TestKeyFiles(t *testing.T) {
	private, public, err := GenerateKey([]byte("letmein"))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(private, []byte("BEGIN ENCRYPTED SIGSTORE PRIVATE KEY")) {
		t.Errorf("the private key is not as cosign writes it:\n%s", private)
	}
	key, err := NewKey(public)
	if err != nil {
		t.Fatal(err)
	}
	again, err := key.PEM()
	if err != nil || !bytes.Equal(again, public) {
		t.Errorf("the public key is written again as %s, %v", again, err)
	}
	signer, err := LoadSigner(private, func() ([]byte, error) { return []byte("letmein"), nil })
	if err != nil {
		t.Fatal(err)
	}
	key.Publisher = "acme"
	p := sign(t, build(t, goodFiles()), tester{Signer: signer})
	if _, err := p.Verify(&Trust{[]Key{key}}, today); err != nil {
		t.Error(err)
	}
	for name, password := range map[string][]byte{"another": []byte("letmeout"), "an empty": {}, "no": nil} {
		if _, err := LoadSigner(private, func() ([]byte, error) { return password, nil }); !isCode(err, CodeKeyPassword) {
			t.Errorf("%s password: %v", name, err)
		}
	}
	gone := errors.New("no terminal")
	if _, err := LoadSigner(private, func() ([]byte, error) { return nil, gone }); !errors.Is(err, gone) {
		t.Errorf("without a password: %v", err)
	}
}

// A key file with an empty password is encrypted with the empty password, and opens with it.
func TestEmptyPassword(t *testing.T) {
	private, _, err := GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := LoadSigner(private, func() ([]byte, error) { return nil, nil }); err != nil {
		t.Error(err)
	}
}

// S27: whoever wrote a key file does not choose how long it takes to refuse it.
func TestS27HostileKeyFiles(t *testing.T) {
	box := func(n, r, p int) []byte {
		return pemOf(t, "ENCRYPTED SIGSTORE PRIVATE KEY", fmt.Appendf(nil,
			`{"kdf":{"name":"scrypt","params":{"N":%d,"r":%d,"p":%d},"salt":"AAAA"},"cipher":{"name":"nacl/secretbox","nonce":"AAAA"},"ciphertext":"AAAA"}`, n, r, p), nil)
	}
	private, public, err := GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, file := range map[string][]byte{
		"scrypt with much memory": box(1<<30, 8, 1),
		"scrypt with many rounds": box(65536, 8, 1<<20),
		"scrypt with large r":     box(65536, 1<<24, 1),
		"scrypt with N = 0":       box(0, 8, 1),
		"a short nonce":           box(65536, 8, 1),
		"no JSON":                 pemOf(t, "ENCRYPTED SIGSTORE PRIVATE KEY", []byte("{"), nil),
		"PBKDF2 of PKCS #8":       pemOf(t, "ENCRYPTED PRIVATE KEY", []byte{0x30, 0}, nil),
		"RFC 1423": pem.EncodeToMemory(&pem.Block{
			Type: "EC PRIVATE KEY", Bytes: make([]byte, 16),
			Headers: map[string]string{"Proc-Type": "4,ENCRYPTED", "DEK-Info": "AES-256-CBC,00000000000000000000000000000000"},
		}),
		"two keys":         append(bytes.Clone(private), private...),
		"a public key":     public,
		"nothing":          nil,
		"a megabyte":       bytes.Repeat([]byte("x"), 1<<20),
		"an OpenSSH key":   pemOf(t, "OPENSSH PRIVATE KEY", []byte("openssh-key-v1"), nil),
		"an empty key":     pemOf(t, "PRIVATE KEY", nil, nil),
		"text around keys": append([]byte("x\n"), append(bytes.Clone(private), 'x')...),
	} {
		t.Run(name, func(t *testing.T) {
			began := cpuTime(t)
			_, err := LoadSigner(file, func() ([]byte, error) { return []byte("x"), nil })
			wantCode(t, err, CodeKey)
			if took := cpuTime(t) - began; took > 2*time.Second {
				t.Errorf("it took %v of processor time", took)
			}
		})
	}
	for name, file := range map[string][]byte{
		"a private key": private, "two keys": append(bytes.Clone(public), public...), "nothing": nil, "a megabyte": bytes.Repeat([]byte("x"), 1<<20),
		"a certificate": pemOf(t, "CERTIFICATE", []byte{0x30, 0}, nil), "no key": pemOf(t, "PUBLIC KEY", []byte{0x30, 0}, nil),
	} {
		_, err := NewKey(file)
		if !isCode(err, CodeKey) {
			t.Errorf("%s as a public key: %v", name, err)
		}
	}
}

// A trust file says whose keys are believed, and all that is wrong with it.
func TestTrustFile(t *testing.T) {
	by := newTester(t)
	public, err := by.key.PEM()
	if err != nil {
		t.Fatal(err)
	}
	indented := "      " + strings.ReplaceAll(strings.TrimSpace(string(public)), "\n", "\n      ")
	text := "version: 1\nkeys:\n  - publisher: acme\n    publicKey: |\n" + indented +
		"\n    notBefore: 2026-01-01T00:00:00Z\n    notAfter: 2027-01-01T00:00:00Z\n    revoked: {kind: superseded, at: 2026-12-01T00:00:00Z}\n"
	trust, err := ParseTrust([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	p := sign(t, build(t, goodFiles()), by)
	if _, err := p.Verify(trust, today); err != nil {
		t.Error(err)
	}
	_, err = p.Verify(trust, today.AddDate(0, 0, 7))
	wantCode(t, err, CodeKeySuperseded)

	for name, c := range map[string]struct{ old, replacement string }{
		"another version":      {"version: 1", "version: 2"},
		"no keys":              {text[strings.Index(text, "keys:"):], "keys: []\n"},
		"an unknown field":     {"publisher:", "issuer:"},
		"a publisher's form":   {"acme", "acme/*"},
		"a time's form":        {"2027-01-01T00:00:00Z", "next year"},
		"a window of nothing":  {"2027-01-01T00:00:00Z", "2026-01-01T00:00:00Z"},
		"a kind of revocation": {"kind: superseded", "kind: lost"},
		"no time":              {", at: 2026-12-01T00:00:00Z", ""},
		"a broken key":         {"BEGIN PUBLIC", "BEGIN PRIVATE"},
		"a key twice":          {text[strings.Index(text, "  - publisher"):], strings.Repeat("  - publisher: acme\n    publicKey: |\n"+indented+"\n", 2)},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ParseTrust([]byte(strings.Replace(text, c.old, c.replacement, 1)))
			if !isCode(err, CodeTrust) && !isCode(err, CodeKey) {
				t.Errorf("refused with %v", err)
			}
		})
	}
}
