package mwpkg

import (
	"bytes"
	"crypto/elliptic"
	"encoding/asn1"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"math/big"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

// rewritten is a signed package with the files that edit makes of its own, in a canonical tar.
func rewritten(t testing.TB, p *Package, edit func(files map[string]string)) []byte {
	t.Helper()
	content, err := decompress(archive(t, p))
	if err != nil {
		t.Fatal(err)
	}
	files, err := readTar(content)
	if err != nil {
		t.Fatal(err)
	}
	m := map[string]string{}
	for _, f := range files {
		m[f.Path] = string(f.Data)
	}
	edit(m)
	files = files[:0]
	for path, data := range m {
		files = append(files, File{path, []byte(data)})
	}
	slices.SortFunc(files, byPath)
	return zip(t, writeTar(files))
}

// resign replaces the primary signature by value, in both of its files.
func resign(files map[string]string, id Digest, value []byte) {
	files[SignaturePath] = base64.StdEncoding.EncodeToString(value)
	files[BundlePath] = string(writeBundle([]byte(files[SumsPath]), Signature{id, value}))
}

// flip changes the last letter of a text for another.
func flip(text string) string {
	last := text[len(text)-1]
	return text[:len(text)-1] + string(last^1)
}

// noise is text that does not shrink much.
func noise(n int) string {
	out := make([]byte, n/2)
	if _, err := rand.NewChaCha8([32]byte{}).Read(out); err != nil {
		panic(err)
	}
	return hex.EncodeToString(out)
}

// ecdsaValue is an ECDSA signature in ASN.1 (RFC 3279).
type ecdsaValue struct{ R, S *big.Int }

// hint is how bundles name a key.
func hint(id Digest) string { return base64.StdEncoding.EncodeToString(id[:]) }

func der(t testing.TB, r, s *big.Int) []byte {
	t.Helper()
	out, err := asn1.Marshal(ecdsaValue{r, s})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// Packages whose signatures or sums are not what they must be cannot be opened.
func TestBadSignatureFiles(t *testing.T) {
	by, other := newTester(t), newTester(t)
	p := sign(t, build(t, goodFiles()), by)
	id := by.key.ID
	changed := goodFiles()
	changed["drop.sh"] = "exit 1\n"
	foreign := sign(t, build(t, changed), by)
	foreignFiles := signatureFiles(foreign.sums, foreign.Signatures)

	var v ecdsaValue
	if _, err := asn1.Unmarshal(p.Signatures[0].Value, &v); err != nil {
		t.Fatal(err)
	}
	n := elliptic.P256().Params().N
	highS := der(t, v.R, new(big.Int).Sub(n, v.S))
	zero := big.NewInt(0)
	padded := append([]byte{0x30, 0x81}, p.Signatures[0].Value[1:]...)
	good := string(writeBundle(p.sums, p.Signatures[0]))
	bundleOf := func(old, replacement string) func(map[string]string) {
		if !strings.Contains(good, old) {
			t.Fatalf("the bundle has no %s: %s", old, good)
		}
		return func(f map[string]string) { f[BundlePath] = strings.Replace(good, old, replacement, 1) }
	}
	value := func(value []byte) func(map[string]string) {
		return func(f map[string]string) { resign(f, id, value) }
	}
	set := func(path, data string) func(map[string]string) {
		return func(f map[string]string) { f[path] = data }
	}
	sums := func(edit func(lines []string) []string) func(map[string]string) {
		return func(f map[string]string) {
			lines := strings.SplitAfter(strings.TrimSuffix(f[SumsPath], "\n")+"\n", "\n")
			f[SumsPath] = strings.Join(edit(lines[:len(lines)-1]), "")
		}
	}
	keyBundle := signaturesFolder + other.key.ID.String() + bundleSuffix

	type badCase struct {
		id, what string
		edit     func(map[string]string)
		code     Code
	}
	cases := []badCase{
		{"S01", "no folder signatures", func(f map[string]string) {
			for path := range f {
				if strings.HasPrefix(path, signaturesFolder) {
					delete(f, path)
				}
			}
		}, CodeFileMissing},
		{"S01", "no cosign.sig beside the bundle", func(f map[string]string) { delete(f, SignaturePath) }, CodeSignatureMalformed},
		{"S01", "no bundle beside cosign.sig", func(f map[string]string) { delete(f, BundlePath) }, CodeSignatureMalformed},
		{"S02", "an empty signature", set(SignaturePath, ""), CodeSignatureMalformed},
		{"S02", "an empty signature in both", value(nil), CodeSignatureMalformed},
		{"S02", "an empty bundle", set(BundlePath, ""), CodeBundle},
		{"S03", "the bundle of another package", set(BundlePath, string(foreignFiles[1].Data)), CodeBundleMismatch},
		{"S04", "a flipped cosign.sig", set(SignaturePath, base64.StdEncoding.EncodeToString(foreign.Signatures[0].Value)), CodeBundleMismatch},
		{"S04", "a flipped bundle", bundleOf("SHA2_256", "SHA2_257"), CodeBundle},
		{"S04", "a flipped sum", sums(func(l []string) []string { l[0] = "0" + l[0][1:]; return l }), CodeSumsMismatch},
		{"S05", "a file that is not listed", set("zz.sh", "x"), CodeFileUnlisted},
		{"S06", "a listed file that is gone", func(f map[string]string) { delete(f, "drop.sh") }, CodeFileMissing},
		{"S07", "a line twice", sums(func(l []string) []string { return append(l[:1:1], l...) }), CodeSums},
		{"S07", "lines in another order", sums(func(l []string) []string { slices.Reverse(l); return l }), CodeSums},
		{"S07", "a line without an end", sums(func(l []string) []string { l[len(l)-1] = strings.TrimSpace(l[len(l)-1]); return l }), CodeSums},
		{"S07", "ends of lines of another system", sums(func(l []string) []string { l[0] = strings.TrimSpace(l[0]) + "\r\n"; return l }), CodeSums},
		{"S07", "binary marks", sums(func(l []string) []string { l[0] = strings.Replace(l[0], "  ", " *", 1); return l }), CodeSums},
		{"S07", "upper case", sums(func(l []string) []string { l[0] = strings.ToUpper(l[0]); return l }), CodeSums},
		{"S07", "empty sums", set(SumsPath, ""), CodeSums},
		{"S08", "sums that list themselves", sums(func(l []string) []string {
			return append(l, strings.Repeat("0", 64)+"  "+SumsPath+"\n")
		}), CodeSums},
		{"S09", "another file in signatures", set(signaturesFolder+"extra.txt", "x"), CodeSignatureFile},
		{"S09", "a bundle under no key's name", set(signaturesFolder+"abc"+bundleSuffix, good), CodeSignatureFile},
		{"S09", "a bundle under another key's name", set(keyBundle, good), CodeBundleMismatch},
		{"S09", "a second signature of the same key", set(signaturesFolder+id.String()+bundleSuffix, good), CodeSignatureFile},
		{"S09", "a further signature without a primary one", func(f map[string]string) {
			delete(f, SignaturePath)
			delete(f, BundlePath)
			f[signaturesFolder+id.String()+bundleSuffix] = good
		}, CodeSignatureMalformed},
		{"S17", "a bundle for another digest", bundleOf(base64.StdEncoding.EncodeToString(p.Digest[:]), base64.StdEncoding.EncodeToString(make([]byte, 32))), CodeBundleMismatch},
		{"S17", "a cosign.sig of another content", set(SignaturePath, string(foreignFiles[0].Data)), CodeBundleMismatch},
		{"S18", "a DSSE envelope with two signatures", bundleOf(`"messageSignature":`, `"dsseEnvelope":{"signatures":[{},{}]},"messageSignature":`), CodeBundle},
		{"S19", "a certificate", bundleOf(`"publicKey":{"hint":"`+hint(id)+`"}`, `"certificate":{"rawBytes":"AA=="}`), CodeBundle},
		{"S19", "a certificate beside the key", bundleOf(`"publicKey":`, `"certificate":{"rawBytes":"AA=="},"publicKey":`), CodeBundle},
		{"S20", "a bundle of version 0.4", bundleOf("v0.3", "v0.4"), CodeBundle},
		{"S20", "a bundle of version 0.1", bundleOf(BundleType, "application/vnd.dev.sigstore.bundle+json;version=0.1"), CodeBundle},
		{"S21", "cosign.sig that is no base64", set(SignaturePath, "!!!!"), CodeSignatureMalformed},
		{"S21", "cosign.sig with an end of line", func(f map[string]string) { f[SignaturePath] += "\n" }, CodeSignatureMalformed},
		{"S21", "cosign.sig of a megabyte", set(SignaturePath, strings.Repeat("A", 1<<20)), CodeSignatureMalformed},
		{"S21", "a bundle that is no JSON", set(BundlePath, "{"), CodeBundle},
		{"S21", "a key twice in the bundle", bundleOf(`"mediaType":`, `"mediaType":"x","mediaType":`), CodeSignatureForm},
		{"S21", "a field in another case", bundleOf(`"mediaType":`, `"MEDIATYPE":`), CodeSignatureForm},
		{"S21", "a bundle with spaces", bundleOf(`{"mediaType":`, `{ "mediaType":`), CodeSignatureForm},
		{"S21", "more behind the bundle", func(f map[string]string) { f[BundlePath] += "{}" }, CodeBundle},
		{"S21", "a bundle of ten megabytes", set(BundlePath, noise(10<<20)), CodeBundle},
		{"S21", "33 entries of a log", bundleOf(`"publicKey":`, `"tlogEntries":[`+strings.Repeat(`{},`, 32)+`{}],"publicKey":`), CodeBundle},
		{"S22", "a high s", value(highS), CodeSignatureForm},
		{"S22", "a length in two bytes", value(padded), CodeSignatureMalformed},
		{"S22", "bytes behind the signature", value(append(bytes.Clone(p.Signatures[0].Value), 0)), CodeSignatureMalformed},
		{"S22", "r = 0", value(der(t, zero, v.S)), CodeSignatureMalformed},
		{"S22", "s = 0", value(der(t, v.R, zero)), CodeSignatureMalformed},
		{"S22", "r = n", value(der(t, n, v.S)), CodeSignatureMalformed},
		{"S22", "a negative s", value(der(t, v.R, big.NewInt(-5))), CodeSignatureMalformed},
		{"S22", "numbers of a thousand bytes", value(der(t, new(big.Int).Lsh(v.R, 8000), v.S)), CodeSignatureMalformed},
		{"S24", "a digest by SHA-1", bundleOf("SHA2_256", "SHA1"), CodeBundle},
		{"S24", "no algorithm", bundleOf(`"algorithm":"SHA2_256",`, ``), CodeBundle},
		{"S25", "the bundle of a policy pack", set(signaturesFolder+".signatures.json", "{}"), CodePath},
		{"S26", "a proof of inclusion", bundleOf(`"publicKey":`, `"tlogEntries":[{"logIndex":"-1","inclusionProof":{"logIndex":"7","rootHash":"AA==","treeSize":"1"}}],"publicKey":`), CodeBundle},
		{"S26", "a time by others", bundleOf(`"publicKey":`, `"timestampVerificationData":{"rfc3161Timestamps":[]},"publicKey":`), CodeBundle},
	}
	for _, f := range p.Files {
		cases = append(cases, badCase{"S04", "a flipped " + f.Path, func(files map[string]string) { files[f.Path] = flip(files[f.Path]) }, CodeSumsMismatch})
	}
	for _, c := range cases {
		t.Run(c.id+" "+c.what, func(t *testing.T) {
			_, err := Open(rewritten(t, p, c.edit))
			wantCode(t, err, c.code)
		})
	}
}

// Packages that can be opened are refused by Verify when nobody has signed them who may.
func TestBadSigners(t *testing.T) {
	by, other := newTester(t), newTester(t)
	p := sign(t, build(t, goodFiles()), by)
	changed := goodFiles()
	changed["drop.sh"] = "exit 1\n"
	foreign := sign(t, build(t, changed), by)
	hour := func(n int) time.Time { return today.Add(time.Duration(n) * time.Hour) }
	key := func(edit func(*Key)) Trust {
		k := by.key
		edit(&k)
		return Trust{[]Key{k}}
	}
	anyKey := key(func(*Key) {})

	for _, c := range []struct {
		id, what string
		p        []byte
		trust    Trust
		code     Code
	}{
		{"S01", "no signature", archive(t, build(t, goodFiles())), anyKey, CodeSignatureMissing},
		{
			"S03", "the signature of another package, with a bundle made for this one",
			rewritten(t, p, func(f map[string]string) { resign(f, by.key.ID, foreign.Signatures[0].Value) }), anyKey, CodeSignatureInvalid,
		},
		{
			"S04", "files, sums and bundle changed together",
			rewritten(t, foreign, func(f map[string]string) { resign(f, by.key.ID, p.Signatures[0].Value) }), anyKey, CodeSignatureInvalid,
		},
		{"S10", "an unknown key", archive(t, p), Trust{[]Key{other.key}}, CodeKeyUnknown},
		{"S10", "no key at all", archive(t, p), Trust{}, CodeKeyUnknown},
		{"S11", "a key of another publisher", archive(t, p), key(func(k *Key) { k.Publisher = "globex" }), CodeKeyScope},
		{"S11", "a key of a publisher whose name begins alike", archive(t, p), key(func(k *Key) { k.Publisher = "acm" }), CodeKeyScope},
		{"S11", "a key for names without a publisher", archive(t, p), key(func(k *Key) { k.Publisher = "" }), CodeKeyScope},
		{"S12", "an expired key", archive(t, p), key(func(k *Key) { k.NotAfter = hour(-1) }), CodeKeyExpired},
		{"S12", "a key at its end", archive(t, p), key(func(k *Key) { k.NotAfter = today }), CodeKeyExpired},
		{"S13", "a key before its time", archive(t, p), key(func(k *Key) { k.NotBefore = hour(1) }), CodeKeyNotYet},
		{"S14", "a compromised key", archive(t, p), key(func(k *Key) { k.Revocation = &Revocation{Compromised, hour(-1)} }), CodeKeyCompromised},
		{"S14", "a key that was compromised after it had signed", archive(t, p), key(func(k *Key) { k.Revocation = &Revocation{Compromised, hour(1)} }), CodeKeyCompromised},
		{"S14", "a kind of revocation that this build does not know", archive(t, p), key(func(k *Key) { k.Revocation = &Revocation{"lost", hour(1)} }), CodeKeyCompromised},
		{"S15", "a replaced key", archive(t, p), key(func(k *Key) { k.Revocation = &Revocation{Superseded, hour(-1)} }), CodeKeySuperseded},
		{"S15", "a key at the moment of its replacement", archive(t, p), key(func(k *Key) { k.Revocation = &Revocation{Superseded, today} }), CodeKeySuperseded},
		{
			"S16", "a bundle that names another key than the signer",
			rewritten(t, p, func(f map[string]string) { resign(f, other.key.ID, p.Signatures[0].Value) }),
			Trust{[]Key{by.key, other.key}},
			CodeSignatureInvalid,
		},
		{
			"S16", "a bundle that names an unknown key",
			rewritten(t, p, func(f map[string]string) { resign(f, other.key.ID, p.Signatures[0].Value) }), anyKey, CodeKeyUnknown,
		},
	} {
		t.Run(c.id+" "+c.what, func(t *testing.T) {
			opened, err := Open(c.p)
			if err != nil {
				t.Fatal(err)
			}
			_, err = opened.Verify(&c.trust, today)
			wantCode(t, err, c.code)
		})
	}

	// At its bounds a key is good: nothing in the package can move the moment that it is judged for.
	for name, trust := range map[string]Trust{
		"from notBefore on":                 key(func(k *Key) { k.NotBefore = today }),
		"up to notAfter":                    key(func(k *Key) { k.NotAfter = today.Add(1) }),
		"of the publisher":                  key(func(k *Key) { k.Publisher = "acme" }),
		"replaced after the signature came": key(func(k *Key) { k.Revocation = &Revocation{Superseded, today.Add(1)} }),
	} {
		if _, err := p.Verify(&trust, today); err != nil {
			t.Errorf("a key %s: %v", name, err)
		}
	}
}

// Signatures are a set beside the content: re-signing changes no digest, one good signature is enough, and
// each is judged by itself.
func TestSeveralSignatures(t *testing.T) {
	first, second := newTester(t), newTester(t)
	p := build(t, goodFiles())
	both := sign(t, sign(t, p, first), second)
	opened, err := Open(archive(t, both))
	if err != nil {
		t.Fatal(err)
	}
	if opened.Digest != p.Digest || len(opened.Signatures) != 2 || opened.Signatures[0].KeyID != second.key.ID {
		t.Fatalf("signed as %s by %+v, want %s and the second key first", opened.Digest, opened.Signatures, p.Digest)
	}
	compromised := first.key
	compromised.Revocation = &Revocation{Compromised, today}
	v, err := opened.Verify(&Trust{[]Key{compromised, second.key}}, today)
	if err != nil || v.Key.ID != second.key.ID {
		t.Fatalf("verified by %s, %v", v.Key.ID, err)
	}
	wantCode(t, v.Signatures[1].Err, CodeKeyCompromised)
	if v.Signatures[0].Err != nil {
		t.Errorf("the good signature is reported as %v", v.Signatures[0].Err)
	}
	// The reason that counts is that of a key which is known.
	_, err = opened.Verify(&Trust{[]Key{compromised}}, today)
	wantCode(t, err, CodeKeyCompromised)

	again := sign(t, both, first)
	if len(again.Signatures) != 2 || !bytes.Equal(again.Signatures[0].Value, both.Signatures[1].Value) {
		t.Error("signing again with the same key does not keep its signature and put it first")
	}
	if _, err := Open(archive(t, again)); err != nil {
		t.Error(err)
	}
	for range MaxSignatures - 2 {
		again = sign(t, again, newTester(t))
	}
	if _, err := Open(archive(t, again)); err != nil {
		t.Errorf("a package with %d signatures: %v", MaxSignatures, err)
	}
	_, err = again.Sign(newTester(t))
	wantCode(t, err, CodeTooManyFiles)
}

// Signatures that others made are taken as they make them: with either s, JSON in any form.
func TestForeignSignatures(t *testing.T) {
	by := newTester(t)
	p := build(t, goodFiles())
	var v ecdsaValue
	if _, err := asn1.Unmarshal(sign(t, p, by).Signatures[0].Value, &v); err != nil {
		t.Fatal(err)
	}
	highS := der(t, v.R, new(big.Int).Sub(elliptic.P256().Params().N, v.S))
	digest := p.Digest
	bundled, err := ParseBundle(fmt.Appendf(nil, "{ \"mediaType\": %q, \"messageSignature\": {\"signature\": %q, \"messageDigest\": {\"digest\": %q, \"algorithm\": \"SHA2_256\"}},\n"+
		" \"verificationMaterial\": {\"publicKey\": {\"hint\": %q}}}\n", BundleType, base64.StdEncoding.EncodeToString(highS),
		base64.StdEncoding.EncodeToString(digest[:]), hint(by.key.ID)), p.Sums())
	if err != nil {
		t.Fatal(err)
	}
	blob, err := ParseBlobSignature([]byte(base64.StdEncoding.EncodeToString(highS)+"\n"), by.key.ID)
	if err != nil {
		t.Fatal(err)
	}
	for name, s := range map[string]Signature{"bundle": bundled, "blob": blob} {
		signed, err := p.WithSignature(s)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		opened, err := Open(archive(t, signed))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if _, err := opened.Verify(&Trust{[]Key{by.key}}, today); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, err = p.WithSignature(Signature{by.key.ID, highS})
	wantCode(t, err, CodeSignatureForm)
}
