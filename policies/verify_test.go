package policies

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sigstore/sigstore/pkg/signature"

	"github.com/maestro-conductor/maestro/internal/blobsign"
)

var testNow = time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC)

func must[T any](t testing.TB, v T, err error) T {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// get is the value of a call that must not fail: get(f())(t).
func get[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		return must(t, v, err)
	}
}

func publicOf(t testing.TB, public any, scopes ...string) Key {
	t.Helper()
	der := get(x509.MarshalPKIXPublicKey(public))(t)
	k, err := NewKey(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), scopes...)
	return must(t, k, err)
}

// signerFor is a new P-256 key that may sign mc.limits for the platform, as a signer and as a trusted key.
func signerFor(t testing.TB) (signature.Signer, *ecdsa.PrivateKey, Key) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, private, err)
	signer, err := signature.LoadECDSASigner(private, crypto.SHA256)
	return must[signature.Signer](t, signer, err), private, publicOf(t, private.Public(), "*/mc.limits")
}

func builtLimits(t testing.TB, revision uint64) *Source {
	t.Helper()
	s, err := ReadSource(BuiltIn()["mc.limits"])
	must(t, s, err)
	built, _, err := Build(s, revision)
	return must(t, built, err)
}

func statement() Statement {
	return Statement{Tenant: "*", Issuer: "release", IssuedAt: testNow.Add(-time.Hour), Expires: testNow.Add(90 * 24 * time.Hour)}
}

func demand(s *Signed, keys ...Key) Demand {
	return Demand{Tenant: "*", Pack: "mc.limits", Keys: keys, Now: testNow, Text: s.Text, Bundle: s.Bundle}
}

// TestSignedPack: what is signed is verified, is the same bytes each time but for the signatures, and keeps its identity.
func TestSignedPack(t *testing.T) {
	signer, _, key := signerFor(t)
	source := builtLimits(t, 7)
	s, err := Sign(source, statement(), signer)
	must(t, s, err)
	v, err := Verify(s.Archive, demand(s, key))
	must(t, v, err)
	if want := (PackRef{"mc.limits", 7, source.Digest()}); v.Pack.Ref() != want || v.KeyID != key.ID || v.BlobKeyID != key.ID || v.Issuer != "release" {
		t.Errorf("%+v", v)
	}
	_, first, err := Build(must(t, source, err), 7)
	must(t, first, err)
	_, second, err := Build(source, 7)
	if must(t, second, err); !bytes.Equal(first, second) {
		t.Error("two builds differ")
	}
	again := demand(s, key)
	again.Highest, again.HighestDigest = 7, source.Digest()
	if _, err := Verify(s.Archive, again); err != nil {
		t.Errorf("the revision that is active is refused: %v", err)
	}
}

// forged is a pack that whoever has the key makes with other tools.
type forged struct {
	header  map[string]any
	claims  map[string]any
	files   []File
	tokens  int
	extra   map[string]any // of .signatures.json
	name    string         // of .signatures.json
	private any
}

func forge(t testing.TB, outer signature.Signer, private any, change func(*forged)) *Signed {
	t.Helper()
	files := builtLimits(t, 7).Files
	f := &forged{
		header: map[string]any{"alg": "ES256", "kid": ""}, files: slices.Clone(files), tokens: 1, name: signaturesFile, private: private,
		claims: map[string]any{"scope": "*/mc.limits", "iss": "release", "iat": testNow.Unix() - 60, "exp": testNow.Unix() + 3600, "revision": "7"},
	}
	var listed []any
	for _, file := range files {
		h, err := hashFile(file)
		must(t, h, err)
		listed = append(listed, map[string]any{"name": h.Name, "hash": h.Hash, "algorithm": h.Algorithm})
	}
	f.claims["files"] = listed
	if p, ok := private.(*ecdsa.PrivateKey); ok {
		f.header["kid"] = publicOf(t, p.Public()).ID
	}
	change(f)
	text := base64.RawURLEncoding.EncodeToString(get(json.Marshal(f.header))(t)) + "." + base64.RawURLEncoding.EncodeToString(get(json.Marshal(f.claims))(t))
	digest := sha256.Sum256([]byte(text))
	var value []byte
	switch p := f.private.(type) {
	case *ecdsa.PrivateKey:
		der, err := ecdsa.SignASN1(rand.Reader, p, digest[:])
		must(t, der, err)
		s, err := blobsign.Parse(der, [32]byte{})
		value = must(t, s, err).Raw()
	case ed25519.PrivateKey:
		value = ed25519.Sign(p, []byte(text))
	case *rsa.PrivateKey:
		value = get(rsa.SignPKCS1v15(rand.Reader, p, crypto.SHA256, digest[:]))(t)
	case []byte:
		mac := hmac.New(sha256.New, p)
		mac.Write([]byte(text))
		value = mac.Sum(nil)
	}
	token := text + "." + base64.RawURLEncoding.EncodeToString(value)
	file := map[string]any{"signatures": slices.Repeat([]string{token}, f.tokens)}
	for k, v := range f.extra {
		file[k] = v
	}
	data := get(json.Marshal(file))(t)
	all := f.files
	if f.name != "" {
		all = append(slices.Clone(f.files), File{f.name, data})
	}
	archive, err := writeArchive(all)
	return beside(t, outer, must(t, archive, err))
}

// beside signs an archive for cosign with a key that is trusted for that.
func beside(t testing.TB, signer signature.Signer, archive []byte) *Signed {
	t.Helper()
	s, err := SignArchive(archive, signer)
	return must(t, s, err)
}

// TestAttacks: each way to have a pack believed that must not be is refused with its reason.
func TestAttacks(t *testing.T) {
	outer, _, outerKey := signerFor(t)
	_, private, key := signerFor(t)
	_, stranger, _ := signerFor(t)
	edPublic, edPrivate, err := ed25519.GenerateKey(rand.Reader)
	must(t, edPrivate, err)
	edKey := publicOf(t, edPublic, "*/mc.limits")
	rsaPrivate, err := rsa.GenerateKey(rand.Reader, 2048)
	must(t, rsaPrivate, err)
	rsaKey := publicOf(t, rsaPrivate.Public(), "*/*")
	pemOfKey := []byte(get(publicPEM(key.Public))(t))
	claim := func(name string, value any) func(*forged) { return func(f *forged) { f.claims[name] = value } }
	without := func(name string) func(*forged) { return func(f *forged) { delete(f.claims, name) } }
	listed := func(i int, field string, value any) func(*forged) {
		return func(f *forged) { f.claims["files"].([]any)[i].(map[string]any)[field] = value }
	}
	hour := time.Hour
	for _, c := range []struct {
		name   string
		forge  func(*forged)
		demand func(*Demand)
		want   Code
	}{
		{"as it should be", func(*forged) {}, nil, ""},
		{"EdDSA", func(f *forged) { f.private, f.header = edPrivate, map[string]any{"alg": "EdDSA", "kid": edKey.ID} }, nil, ""},
		{"RS256", func(f *forged) { f.private, f.header = rsaPrivate, map[string]any{"alg": "RS256", "kid": rsaKey.ID} }, nil, ""},
		{"keyid instead of kid", func(f *forged) { f.claims["keyid"] = f.header["kid"]; delete(f.header, "kid") }, nil, ""},

		{"OPA's own verifier by name, as opa build writes it", func(f *forged) { f.extra = map[string]any{"plugin": "_default"} }, nil, ""},

		{"stripped signature", func(f *forged) { f.name = "" }, nil, CodeUnsigned},
		{"signature under another name", func(f *forged) { f.name = "x.signatures.json" }, nil, CodeFile},
		{"signature in a folder", func(f *forged) { f.name = "a/.signatures.json" }, nil, CodeFile},
		{"unsigned delta", func(f *forged) {
			f.name, f.files = "", []File{{".manifest", f.files[0].Data}, {"patch.json", []byte(`{"data": []}`)}}
		}, nil, CodeDelta},
		{"signed delta", func(f *forged) { f.files = append(f.files, File{"patch.json", []byte(`{"data": []}`)}) }, nil, CodeDelta},
		{"no token", func(f *forged) { f.tokens = 0 }, nil, CodeTokens},
		{"two tokens", func(f *forged) { f.tokens = 2 }, nil, CodeTokens},
		{"plugin field", func(f *forged) { f.extra = map[string]any{"plugin": "custom"} }, nil, CodePlugin},
		{"plugin field in another case", func(f *forged) { f.extra = map[string]any{"Plugin": "custom"} }, nil, CodePlugin},
		{"plugin that is no name", func(f *forged) { f.extra = map[string]any{"plugin": []string{"_default"}} }, nil, CodePlugin},
		{"unknown field beside the token", func(f *forged) { f.extra = map[string]any{"note": "x"} }, nil, CodeSignatureFile},

		{"algorithm none", func(f *forged) { f.header["alg"], f.private = "none", nil }, nil, CodeAlgorithm},
		{"algorithm None", func(f *forged) { f.header["alg"], f.private = "None", nil }, nil, CodeAlgorithm},
		{"public key as a secret", func(f *forged) { f.header["alg"], f.private = "HS256", pemOfKey }, nil, CodeAlgorithm},
		{"public key as a secret under the key's algorithm", func(f *forged) { f.private = pemOfKey }, nil, CodeSignature},
		{"algorithm of another key", func(f *forged) { f.header["alg"] = "EdDSA" }, nil, CodeAlgorithm},
		{"ES384", func(f *forged) { f.header["alg"] = "ES384" }, nil, CodeAlgorithm},
		{"critical header", func(f *forged) { f.header["crit"] = []string{"b64"} }, nil, CodeSignatureFile},
		{"key in the header", func(f *forged) { f.header["jwk"] = map[string]any{"kty": "EC"} }, nil, CodeSignatureFile},
		{"two key ids", func(f *forged) { f.claims["keyid"] = edKey.ID }, nil, CodeClaims},
		{"no key id", func(f *forged) { delete(f.header, "kid") }, nil, CodeKeyUnknown},
		{"stranger's key", func(f *forged) { f.private, f.header["kid"] = stranger, publicOf(t, stranger.Public()).ID }, nil, CodeKeyUnknown},
		{"stranger under a trusted id", func(f *forged) { f.private = stranger }, nil, CodeSignature},
		{"empty signature", func(f *forged) { f.private = nil }, nil, CodeSignature},

		{"wrong scope", claim("scope", "*/mc.authz"), nil, CodeScope},
		{"scope of a tenant", claim("scope", "acme/mc.limits"), nil, CodeScope},
		{"empty scope", claim("scope", ""), nil, CodeClaims},
		{"key of another scope", func(*forged) {}, func(d *Demand) { d.Keys[0].Scopes = []string{"acme/*", "*/mc.authz"} }, CodeKeyScope},
		{"no issuer", without("iss"), nil, CodeClaims},
		{"no exp", without("exp"), nil, CodeClaims},
		{"no iat", without("iat"), nil, CodeClaims},
		{"no revision", without("revision"), nil, CodeClaims},
		{"unknown claim", claim("nbf", testNow.Unix()), nil, CodeClaims},
		{"claim in another case", func(f *forged) { f.claims["EXP"] = f.claims["exp"]; delete(f.claims, "exp") }, nil, CodeClaims},
		{"expired", claim("exp", testNow.Unix()), nil, CodeExpired},
		{"issued in the future", claim("iat", testNow.Add(hour).Unix()), nil, CodeNotYet},
		{"valid for ever", claim("exp", testNow.Add(10*365*24*hour).Unix()), nil, CodeLifetime},

		{"older revision", func(*forged) {}, func(d *Demand) { d.Highest = 8 }, CodeRollback},
		{"same revision, another content", func(*forged) {}, func(d *Demand) { d.Highest, d.HighestDigest = 7, "sha256:00" }, CodeRevisionReused},
		{"revision of the token is another", claim("revision", "9"), nil, CodeRevision},
		{"another pack than asked for", claim("scope", "*/mc.authz"), func(d *Demand) { d.Pack, d.Keys[0].Scopes = "mc.authz", []string{"*/*"} }, CodeRevision},

		{"MD5 file hash", listed(0, "algorithm", "MD5"), nil, CodeHash},
		{"SHA-1 file hash", listed(1, "algorithm", "SHA-1"), nil, CodeHash},
		{"no algorithm of a file", listed(1, "algorithm", ""), nil, CodeHash},
		{"wrong hash", listed(1, "hash", strings.Repeat("00", 32)), nil, CodeFileMismatch},
		{"file changed after signing", func(f *forged) { f.files[1].Data = append(slices.Clone(f.files[1].Data), '\n') }, nil, CodeFileMismatch},
		{"revision changed after signing", func(f *forged) { f.files[0].Data = bytes.Replace(f.files[0].Data, []byte(`"7"`), []byte(`"9"`), 1) }, nil, CodeFileMismatch},
		{"file added after signing", func(f *forged) { f.files = append(f.files, File{"more.rego", []byte("package mc.limits\n")}) }, nil, CodeFileUnlisted},
		{"file removed after signing", func(f *forged) { f.files = f.files[:1] }, nil, CodeFileMissing},
		{"file listed twice", func(f *forged) { l := f.claims["files"].([]any); f.claims["files"] = append(l, l[0]) }, nil, CodeDuplicate},

		{"key not yet valid", func(*forged) {}, func(d *Demand) { d.Keys[0].NotBefore = testNow.Add(hour) }, CodeKeyNotYet},
		{"key expired", func(*forged) {}, func(d *Demand) { d.Keys[0].NotAfter = testNow }, CodeKeyExpired},
		{"key expired, recorded before", func(*forged) {}, func(d *Demand) { d.Keys[0].NotAfter, d.Recorded = testNow, testNow.Add(-hour) }, ""},
		{"key expired, signed before by its own word", claim("iat", testNow.Add(-48*hour).Unix()), func(d *Demand) { d.Keys[0].NotAfter = testNow.Add(-24 * hour) }, CodeKeyExpired},
		{"key replaced", func(*forged) {}, func(d *Demand) { d.Keys[0].Revoked, d.Keys[0].RevokedAt = Superseded, testNow }, CodeKeySuperseded},
		{"key replaced, recorded before", func(*forged) {}, func(d *Demand) {
			d.Keys[0].Revoked, d.Keys[0].RevokedAt, d.Recorded = Superseded, testNow, testNow.Add(-hour)
		}, ""},
		{"key compromised, recorded before", func(*forged) {}, func(d *Demand) {
			d.Keys[0].Revoked, d.Keys[0].RevokedAt, d.Recorded = Compromised, testNow, testNow.Add(-hour)
		}, CodeKeyCompromised},

		{"no signature beside", func(*forged) {}, func(d *Demand) { d.Text, d.Bundle = nil, nil }, CodeBlobMissing},
		{"bundle only, as cosign writes it", func(*forged) {}, func(d *Demand) { d.Text = nil }, ""},
		{"no bundle", func(*forged) {}, func(d *Demand) { d.Bundle = nil }, CodeBlobMissing},
		{"signature beside is of another archive", func(*forged) {}, func(d *Demand) { o := beside(t, outer, []byte("other")); d.Text, d.Bundle = o.Text, o.Bundle }, CodeBlobSignature},
		{"signature and bundle differ", func(*forged) {}, func(d *Demand) { d.Text = beside(t, outer, []byte("other")).Text }, CodeBlobSignature},
		{"bundle is no bundle", func(*forged) {}, func(d *Demand) { d.Bundle = []byte(`{"dsseEnvelope": {}}`) }, CodeBlobSignature},
		{"signer beside is not trusted", func(*forged) {}, func(d *Demand) { d.Keys = d.Keys[:1] }, CodeKeyUnknown},
		{"signer beside is compromised", func(*forged) {}, func(d *Demand) { d.Keys[1].Revoked = Compromised }, CodeKeyCompromised},
		{"signer beside is of another scope", func(*forged) {}, func(d *Demand) { d.Keys[1].Scopes = []string{"acme/*"} }, CodeKeyScope},
	} {
		s := forge(t, outer, private, c.forge)
		d := demand(s, key, outerKey, edKey, rsaKey)
		if c.demand != nil {
			c.demand(&d)
		}
		if _, err := Verify(s.Archive, d); CodeOf(err) != c.want || err != nil && c.want == "" {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

// archiveOf is a tar that others could write; Uname is what an entry holds.
func archiveOf(t testing.TB, format tar.Format, headers ...tar.Header) []byte {
	t.Helper()
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	w := tar.NewWriter(z)
	for _, h := range headers {
		body := []byte(h.Uname)
		h.Uname = ""
		if h.Typeflag == 0 {
			h.Typeflag = tar.TypeReg
		}
		if h.Format == 0 {
			h.Format = format
		}
		if h.Typeflag == tar.TypeReg {
			h.Size = int64(len(body))
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeReg {
			get(w.Write(body))(t)
		}
	}
	must(t, 0, w.Close())
	must(t, 0, z.Close())
	return out.Bytes()
}

// TestArchivesThatAreRefused: an archive is refused before anybody asks who signed it.
func TestArchivesThatAreRefused(t *testing.T) {
	manifest := tar.Header{Name: "/.manifest", Uname: `{"revision": "1", "roots": ["mc/limits"], "rego_version": 1}`}
	named := func(name string) []byte {
		return archiveOf(t, tar.FormatUSTAR, manifest, tar.Header{Name: name, Uname: "x"})
	}
	with := func(h tar.Header) []byte { return archiveOf(t, 0, manifest, h) }
	good := archiveOf(t, tar.FormatUSTAR, manifest)
	if _, err := ReadArchive(good); err != nil {
		t.Fatal(err)
	}
	zipped := func(content []byte) []byte {
		var out bytes.Buffer
		z := gzip.NewWriter(&out)
		get(z.Write(content))(t)
		must(t, 0, z.Close())
		return out.Bytes()
	}
	content := get(decompress(good))(t)
	var many []tar.Header
	for i := range MaxFiles + 1 {
		many = append(many, tar.Header{Name: fmt.Sprintf("f%d.rego", i)})
	}
	random := make([]byte, MaxArchive+1)
	get(rand.Read(random))(t)
	commented := func() []byte {
		var out bytes.Buffer
		z := gzip.NewWriter(&out)
		z.Name = "pack"
		get(z.Write(content))(t)
		must(t, 0, z.Close())
		return out.Bytes()
	}
	for name, c := range map[string]struct {
		data []byte
		want Code
	}{
		"empty":                      {nil, CodeGzip},
		"zip":                        {[]byte("PK\x03\x04 and so on, long enough"), CodeGzip},
		"oversized archive":          {random, CodeTooLarge},
		"bomb":                       {zipped(make([]byte, 64<<20)), CodeTooLarge},
		"oversized content":          {archiveOf(t, tar.FormatUSTAR, manifest, tar.Header{Name: "data.json", Uname: strings.Repeat(" ", MaxContent)}), CodeTooLarge},
		"too many files":             {archiveOf(t, tar.FormatUSTAR, many...), CodeTooManyFiles},
		"name in the gzip header":    {commented(), CodeGzip},
		"second gzip member":         {append(slices.Clone(good), good...), CodeGzip},
		"trailing bytes":             {append(slices.Clone(good), 0), CodeGzip},
		"truncated":                  {good[:len(good)-9], CodeGzip},
		"data after the end":         {zipped(append(slices.Clone(content), bytes.Repeat([]byte("x"), 512)...)), CodeTar},
		"no end":                     {zipped(content[:1024]), CodeTar},
		"bad checksum":               {zipped(append([]byte("x"), content[1:]...)), CodeTar},
		"symbolic link":              {with(tar.Header{Name: "a.rego", Typeflag: tar.TypeSymlink, Linkname: "/etc/passwd"}), CodeEntryType},
		"hard link":                  {with(tar.Header{Name: "a.rego", Typeflag: tar.TypeLink, Linkname: ".manifest"}), CodeEntryType},
		"folder":                     {with(tar.Header{Name: "a/", Typeflag: tar.TypeDir}), CodeEntryType},
		"device":                     {with(tar.Header{Name: "a.rego", Typeflag: tar.TypeChar}), CodeEntryType},
		"extended header":            {with(tar.Header{Name: "a.rego", Uname: "x", Format: tar.FormatPAX, PAXRecords: map[string]string{"MAESTRO.x": "y"}}), CodeEntryType},
		"long name by an extension":  {with(tar.Header{Name: strings.Repeat("a", 120) + ".rego", Uname: "x", Format: tar.FormatGNU}), CodeEntryType},
		"prefix of the name":         {with(tar.Header{Name: strings.Repeat("a", 90) + "/" + strings.Repeat("b", 90), Uname: "x", Format: tar.FormatUSTAR}), CodeEntryType},
		"out of the pack":            {named("../a.rego"), CodePath},
		"out of the pack inside":     {named("a/../../b.rego"), CodePath},
		"two slashes before":         {named("//a.rego"), CodePath},
		"odd way":                    {named("./a.rego"), CodePath},
		"backslash":                  {named(`a\b.rego`), CodePath},
		"capital letters":            {named("A.rego"), CodePath},
		"space":                      {named("a b.rego"), CodePath},
		"the same file twice":        {archiveOf(t, tar.FormatUSTAR, manifest, manifest), CodeDuplicate},
		"the same file two ways":     {archiveOf(t, tar.FormatUSTAR, manifest, tar.Header{Name: ".manifest", Uname: manifest.Uname}), CodeDuplicate},
		"wasm":                       {named("policy.wasm"), CodeFile},
		"YAML data":                  {named("data.yaml"), CodeFile},
		"manifest as protobuf":       {named(".manifest.pb"), CodeFile},
		"plan":                       {named("plan.json"), CodeFile},
		"tests":                      {named("a_test.rego"), CodeFile},
		"no manifest":                {archiveOf(t, tar.FormatUSTAR, tar.Header{Name: "a.rego", Uname: "x"}), CodeManifest},
		"two values in the manifest": {archiveOf(t, tar.FormatUSTAR, tar.Header{Name: ".manifest", Uname: manifest.Uname + "{}"}), CodeManifest},
		"a key twice":                {archiveOf(t, tar.FormatUSTAR, tar.Header{Name: ".manifest", Uname: `{"revision": "2", ` + manifest.Uname[1:]}), CodeManifest},
		"a key in another case":      {archiveOf(t, tar.FormatUSTAR, tar.Header{Name: ".manifest", Uname: `{"Revision": "2", "roots": ["mc/limits"], "rego_version": 1}`}), CodeManifest},
		"every root":                 {archiveOf(t, tar.FormatUSTAR, tar.Header{Name: ".manifest", Uname: `{"revision": "1", "roots": [""], "rego_version": 1}`}), CodeManifest},
		"two roots":                  {archiveOf(t, tar.FormatUSTAR, tar.Header{Name: ".manifest", Uname: `{"revision": "1", "roots": ["mc/limits", "mc/authz"], "rego_version": 1}`}), CodeManifest},
		"old Rego":                   {archiveOf(t, tar.FormatUSTAR, tar.Header{Name: ".manifest", Uname: `{"revision": "1", "roots": ["mc/limits"], "rego_version": 0}`}), CodeManifest},
		"data twice":                 {archiveOf(t, tar.FormatUSTAR, manifest, tar.Header{Name: "data.json", Uname: `{"mc": {}, "mc": {}}`}), CodeData},
	} {
		if _, err := ReadArchive(c.data); CodeOf(err) != c.want {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
	}
}

// TestWhatDoesNotCompile: a signed pack that reaches out of its root is refused too.
func TestWhatDoesNotCompile(t *testing.T) {
	for name, c := range map[string]struct {
		files []File
		want  Code
	}{
		"rules outside of the root": {[]File{{"a.rego", []byte("package mc.authz\n\nallow := true\n")}}, CodeModule},
		"rules in a longer name":    {[]File{{"a.rego", []byte("package mc.limitsx\n\nallow := true\n")}}, CodeModule},
		"data outside of the root":  {[]File{{"data.json", []byte(`{"mc": {"authz": {}}}`)}, builtLimits(t, 1).Files[1]}, CodeData},
		"a number without bounds":   {[]File{{"data.json", []byte(`{"mc": {"limits": {"n": [1e50000000]}}}`)}, builtLimits(t, 1).Files[1]}, CodeData},
		"data over a rule":          {[]File{{"data.json", []byte(`{"mc": {"limits": {"violation": []}}}`)}, builtLimits(t, 1).Files[1]}, CodeModule},
		"no rules":                  {nil, CodeModule},
	} {
		files := append([]File{{".manifest", []byte(`{"revision": "1", "roots": ["mc/limits"], "rego_version": 1}`)}}, c.files...)
		s, err := newSource(files)
		must(t, s, err)
		if _, err := Compile(s); CodeOf(err) != c.want {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
	}
}

// TestKeysThatAreRefused: keys that are too weak, of another kind, or no keys.
func TestKeysThatAreRefused(t *testing.T) {
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Skip("this Go makes no RSA keys of 1024 bits")
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	must(t, p384, err)
	for name, public := range map[string]any{"RSA of 1024 bits": small.Public(), "P-384": p384.Public()} {
		der := get(x509.MarshalPKIXPublicKey(public))(t)
		if _, err := NewKey(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})); CodeOf(err) != CodeKey {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := NewKey([]byte("a shared secret")); CodeOf(err) != CodeKey {
		t.Errorf("a secret: %v", err)
	}
}

// TestKeyFile: a key file names keys with scope, window and revocation, and every problem of one is said.
func TestKeyFile(t *testing.T) {
	_, _, key := signerFor(t)
	text := "    publicKey: |\n      " + strings.ReplaceAll(strings.TrimSpace(get(publicPEM(key.Public))(t)), "\n", "\n      ") + "\n"
	keys, err := ParseKeys([]byte("version: 1\nkeys:\n  - scopes: ['*/mc.limits']\n    notAfter: 2027-01-01T00:00:00Z\n" + text +
		"  - id: release\n    scopes: ['acme/*']\n    revoked: {kind: superseded, at: 2026-01-01T00:00:00Z}\n" + text))
	must(t, keys, err)
	if keys[0].ID != key.ID || keys[1].ID != "release" || keys[1].Revoked != Superseded || keys[0].NotAfter.Year() != 2027 || !keys[1].maySign("acme/x.y") {
		t.Errorf("%+v", keys)
	}
	for _, c := range []struct{ file, want string }{
		{"version: 2\n", "version"},
		{"version: 1\nkeys: []\n", "there are 0"},
		{"version: 1\nkeys:\n  - scopes: [acme]\n" + text, "TENANT/PACK"},
		{"version: 1\nkeys:\n  - notAfter: 2020-01-01T00:00:00Z\n" + text, "scopes is missing"},
		{"version: 1\nkeys:\n  - scopes: ['*/*']\n    notAfter: tomorrow\n" + text, "no time"},
		{"version: 1\nkeys:\n  - scopes: ['*/*']\n    revoked: {kind: lost, at: 2020-01-01T00:00:00Z}\n" + text, "superseded or compromised"},
		{"version: 1\nkeys:\n  - scopes: ['*/*']\n" + text + "  - scopes: ['*/*']\n" + text, "twice"},
		{"version: 1\nkeys:\n  - scopes: ['*/*']\n    algorithm: HS256\n" + text, "algorithm"},
	} {
		if _, err := ParseKeys([]byte(c.file)); CodeOf(err) != CodeKey || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v", c.want, err)
		}
	}
}
