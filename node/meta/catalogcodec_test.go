package meta

import (
	"bytes"
	"encoding/hex"
	"errors"
	"testing"

	"github.com/maestro-conductor/maestro/internal/pkgtest"
	"github.com/maestro-conductor/maestro/internal/wire"
	"github.com/maestro-conductor/maestro/pkgstore"
	"github.com/maestro-conductor/maestro/raftfsm"
	"github.com/maestro-conductor/maestro/raftfsm/fsmtest"
)

var (
	goldenPackage = pkgstore.Package{
		Namespace: "acme", Name: "acme/flow", Version: "0.1.0", Digest: pkgstore.Digest{1}, Archive: pkgstore.Digest{2}, Size: 300,
		Title: "t", Description: "d", Capabilities: []string{"network:h:1"}, Publisher: "tok", Published: 5,
		Signatures: []pkgstore.Signature{{Namespace: "*", Key: pkgstore.Digest{3}, Bytes: []byte("s"), At: 6}},
		Yank:       pkgstore.Yank{Kind: pkgstore.Yanked, Reason: "r", At: 7},
	}
	goldenInstall = pkgstore.Install{
		Tenant: "acme", Name: "acme/flow", Ref: pkgstore.Ref{Version: "0.2.0", Namespace: "*", Digest: pkgstore.Digest{4}}, By: "tok", At: 8,
		History: []pkgstore.Ref{{Version: "0.1.0", Namespace: "acme", Digest: pkgstore.Digest{1}}},
	}
	goldenKey = pkgstore.Key{
		Namespace: "acme", ID: pkgstore.Digest{3}, SPKI: []byte("spki"), Publisher: "acme", NotBefore: 1, NotAfter: 2, Comment: "c", Added: 3,
		Revoked: pkgstore.Compromised, RevokedAt: 4, Reason: "lost",
	}
	goldenExpect = pkgstore.Digest{9}
)

// commands are one of each kind.
func catalogCommands() map[string][]byte {
	return map[string][]byte{
		"begin":     encodeBegin(beginCommand{"acme", pkgstore.Digest{2}, 300, 1 << 20}),
		"chunk":     encodeChunk(opChunk, chunkCommand{"acme", pkgstore.Digest{2}, 7, 1, []byte("data")}),
		"mend":      encodeChunk(opMend, chunkCommand{"acme", pkgstore.Digest{2}, 7, 1, []byte("data")}),
		"drop":      encodeDrop(dropCommand{"acme", pkgstore.Digest{2}, 7}),
		"sweep":     catalogHeader(opSweep),
		"publish":   encodePublish(publishCommand{"eu", 7, goldenPackage}),
		"yank":      encodeYank(yankCommand{"eu", "acme", "flow", "0.1.0", pkgstore.Yank{Kind: pkgstore.Blocked, Reason: "r"}}),
		"install":   encodeInstall(installCommand{"eu", "acme", "flow", "tok", goldenInstall.Ref, &goldenExpect, true, false, false}),
		"rollback":  encodeInstall(installCommand{origin: "eu", tenant: "acme", name: "flow", by: "tok", rollback: true}),
		"uninstall": encodeUninstall(uninstallCommand{"eu", "acme", "flow"}),
		"addkey":    encodeAddKey(keyCommand{"eu", goldenKey}),
		"revoke":    encodeRevokeKey(revokeCommand{"eu", "acme", pkgstore.Digest{3}, pkgstore.Superseded, "r"}),
	}
}

func catalogQueries() map[string][]byte {
	return map[string][]byte{
		"packages": encodePackagesQuery(packagesQuery{[]string{"acme", "*"}, "acme a", 50, pkgstore.Filter{Text: "t", Capability: "network", Name: "n", Signer: &goldenExpect}}),
		"resolve":  encodeResolveQuery(resolveQuery{[]string{"acme"}, &goldenExpect, "flow", "0.1.0"}),
		"content":  encodeChunkQuery("acme", pkgstore.Digest{2}, 1),
		"installs": encodeInstallsQuery(installsQuery{"acme", "flow", "acme a", 50, &goldenInstall.Ref}),
		"keys":     encodeKeysQuery([]string{"acme"}),
	}
}

// zeros shortens the 31 zero bytes behind the first of each digest of the goldens.
func zeros(b []byte) string {
	return string(bytes.ReplaceAll(b, make([]byte, 31), []byte("~")))
}

// What the catalog has written stays readable.
func TestCatalogBytesStayTheSame(t *testing.T) {
	got := catalogCommands()
	for name, b := range catalogQueries() {
		got["ask "+name] = b
	}
	got["value package"] = goldenPackage.AppendValue(nil)
	got["value install"] = goldenInstall.AppendValue(nil)
	got["value key"] = goldenKey.AppendValue(nil)
	got["result"] = encodeCatalogResult(catalogResult{outcome: catalogKey, number: 300, next: 2, code: "key_unknown", message: "m", key: "k", row: []byte("row")})
	got["row blob"] = encodeBlob(blob{"acme", pkgstore.Digest{2}, 300, 7, 1, 1, 9})
	got["key chunk"] = chunkKey(blobID{1}, 2)
	got["key digest"] = digestKey(pkgstore.Digest{1}, "acme")
	got["key owned"] = ownedKey(tableKeys, "acme")
	got["row owned"] = encodeCount(300)
	got["key folded"] = foldedKey("acme", "a-b0")
	for name, b := range got {
		if want, ok := catalogGoldens[name]; !ok || zeros(b) != want {
			t.Errorf("%s is now %q, was %q", name, zeros(b), want)
		}
	}
	if id := blobIDOf("acme", pkgstore.Digest{2}); hex.EncodeToString(id[:]) != catalogGoldens["blob id"] {
		t.Errorf("the id of a blob is %x", id)
	}
}

func TestValuesOfTheCatalogSurvive(t *testing.T) {
	var p pkgstore.Package
	var i pkgstore.Install
	var k pkgstore.Key
	for name, v := range map[string]struct {
		value  []byte
		decode func([]byte) error
		again  func() []byte
	}{
		"package": {goldenPackage.AppendValue(nil), p.DecodeValue, func() []byte { return p.AppendValue(nil) }},
		"install": {goldenInstall.AppendValue(nil), i.DecodeValue, func() []byte { return i.AppendValue(nil) }},
		"key":     {goldenKey.AppendValue(nil), k.DecodeValue, func() []byte { return k.AppendValue(nil) }},
	} {
		if err := v.decode(v.value); err != nil || !bytes.Equal(v.again(), v.value) {
			t.Errorf("%s does not survive: %v", name, err)
		}
		if err := v.decode(v.value[:len(v.value)-1]); err == nil {
			t.Errorf("%s is read although its end is missing", name)
		}
		if err := v.decode(append(v.value, 0)); err == nil {
			t.Errorf("%s is read although something is behind it", name)
		}
	}
}

// No bytes at all make the machine fail, now or when it is loaded again, and what it writes it can read.
func FuzzCatalog(f *testing.F) {
	for _, b := range catalogCommands() {
		f.Add(b)
	}
	for _, b := range catalogQueries() {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if _, err := catalogCommand(append([]byte{codecCatalog}, data...)); errors.Is(err, errNewer) || len(data) == 0 {
			return // the machine stops there
		}
		data = append([]byte{codecCatalog}, data...)
		d := fsmtest.New(t, func() raftfsm.Machine { return NewMachine() })
		for name, b := range catalogCommands() {
			if name != "sweep" {
				d.Apply(b)
			}
		}
		if _, err := decodeCatalogResult(d.Apply(data)[0]); err != nil {
			t.Fatalf("result: %v", err)
		}
		d.Restart()
		for _, q := range append([][]byte{data}, catalogQueries()["packages"], catalogQueries()["installs"], catalogQueries()["keys"]) {
			if _, err := d.Machine().Query(t.Context(), q); err != nil && !errors.Is(err, errCodec) {
				t.Fatalf("query %x: %v", q, err)
			}
		}
	})
}

// A newer command stops the machine; a malformed one is refused.
func TestUnknownCommandsOfTheCatalog(t *testing.T) {
	if _, err := catalogCommand([]byte{codecCatalog, opLast + 1}); !errors.Is(err, errNewer) {
		t.Errorf("an unknown command: %v", err)
	}
	if _, err := catalogCommand([]byte{codecCatalog, opYank, 200}); !errors.Is(err, errCodec) || errors.Is(err, errNewer) {
		t.Errorf("a malformed command: %v", err)
	}
	bad := goldenPackage
	bad.Name = "a b"
	if _, err := catalogCommand(encodePublish(publishCommand{"eu", 1, bad})); !errors.Is(err, errCodec) {
		t.Errorf("a name that would break keys: %v", err)
	}
	if r := wire.NewReader([]byte("\x04a\x20bc")); readName(r) != "" && !r.Failed() {
		t.Error("a namespace with a space is read")
	}
}

// Before every member knows it, there is no catalog.
func TestCatalogWaitsForItsLevel(t *testing.T) {
	s := newShop(t)
	s.region.level = raftfsm.LevelCatalog - 1
	_, _, err := s.publish("acme", pkgtest.Options{}, s.acme)
	if err == nil {
		t.Error("a package is published in a region of an older level")
	}
	if _, _, err := s.List(t.Context(), nil, pkgstore.Filter{}, "", 10); err == nil {
		t.Error("packages are listed in a region of an older level")
	}
}

// catalogGoldens are those bytes, in which ~ stands for 31 zeros.
var catalogGoldens = map[string]string{
	"addkey":        "\x06\t\x02eu\x04acme\x03~\x17\x01\x04spki\x04acme\x01\x02\x03\x01c\x02\x04\x04lost",
	"ask content":   "\x06\x03\x04acme\x02~\x01",
	"ask installs":  "\x06\x04\x04acme\x04flow\x06acme a2\x01\x050.2.0\x01*\x04~",
	"ask keys":      "\x06\x05\x01\x04acme",
	"ask packages":  "\x06\x01\x02\x04acme\x01*\x06acme a2\x01t\anetwork\x01n\x01\t~",
	"ask resolve":   "\x06\x02\x01\x04acme\x01\t~\x04flow\x050.1.0",
	"begin":         "\x06\x01\x04acme\x02~\xac\x02\x80\x80@",
	"blob id":       "8ae6695a532a24469bf5fab123c1c596",
	"chunk":         "\x06\x02\x04acme\x02~\a\x01data",
	"drop":          "\x06\x03\x04acme\x02~\a",
	"install":       "\x06\a\x02eu\x04acme\x04flow\x03tok\t\t~\x050.2.0\x01*\x04~",
	"key chunk":     "b\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02",
	"key digest":    "k\x01~acme",
	"key folded":    "facme\x00abo",
	"key owned":     "o\bacme",
	"row owned":     "\x01\xac\x02",
	"mend":          "\x06\v\x04acme\x02~\a\x01data",
	"publish":       "\x06\x05\x02eu\a\x04acme\tacme/flow\x050.1.0\x83\x01\x01\x01~\x02~\xac\x02\x01t\x01d\x01\vnetwork:h:1\x03tok\x05\x01\x01*\x03~\x01s\x06\x02\x01r\a",
	"result":        "\x01\x06\xac\x02\x02\vkey_unknown\x01m\x01krow",
	"revoke":        "\x06\n\x02eu\x04acme\x03~\x01\x01r",
	"rollback":      "\x06\a\x02eu\x04acme\x04flow\x03tok\x04~\x00\x00\x00",
	"row blob":      "\x01\x04acme\x02~\xac\x02\a\x01\x01\t",
	"sweep":         "\x06\x04",
	"uninstall":     "\x06\b\x02eu\x04acme\x04flow",
	"value install": "\x01\x050.2.0\x01*\x04~\x03tok\b\x01\x050.1.0\x04acme\x01~",
	"value key":     "\x01\x04spki\x04acme\x01\x02\x03\x01c\x02\x04\x04lost",
	"value package": "\x01\x01~\x02~\xac\x02\x01t\x01d\x01\vnetwork:h:1\x03tok\x05\x01\x01*\x03~\x01s\x06\x02\x01r\a",
	"yank":          "\x06\x06\x02eu\x04acme\x04flow\x050.1.0\x03\x01r",
}
