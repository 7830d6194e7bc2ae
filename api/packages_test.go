package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/maestro-conductor/maestro/pkgstore"
	"github.com/maestro-conductor/maestro/pkgstore/mwpkg"
)

// The routes of packages share paths and have an id in them; each takes its own methods.
func TestRoutesOfPackages(t *testing.T) {
	e := newEnv(t, nil)
	secret := secretOf("acme", RoleAdmin)
	for _, c := range []struct {
		method, path string
		body         string
		status       int
	}{
		{"POST", "/api/packages", "new archive", http.StatusCreated},
		{"POST", "/api/packages", "archive", http.StatusOK},
		{"POST", "/api/packages", "", http.StatusBadRequest},
		{"POST", "/api/packages?x=1", "archive", http.StatusBadRequest},
		{"GET", "/api/packages?q=flow&capability=network&limit=10", "", http.StatusOK},
		{"GET", "/api/packages?limit=201", "", http.StatusBadRequest},
		{"GET", "/api/packages?cursor=%25", "", http.StatusBadRequest},
		{"DELETE", "/api/packages", "", http.StatusMethodNotAllowed},
		{"GET", "/api/packages/acme%2Fflow@0.1.0", "", http.StatusOK},
		{"GET", "/api/packages/acme%2Fflow@0.1.0/content", "", http.StatusOK},
		{"POST", "/api/packages/acme%2Fflow@0.1.0/install", "", http.StatusOK},
		{"POST", "/api/packages/" + someDigest + "/install", `{"dryRun":true}`, http.StatusOK},
		{"GET", "/api/packages/acme%2Fflow/install", "", http.StatusMethodNotAllowed},
		{"GET", "/api/packages/acme/flow", "", http.StatusNotFound},
		{"GET", "/api/packages/", "", http.StatusNotFound},
		{"GET", "/api/packages/a/b/c", "", http.StatusNotFound},
	} {
		contentType := "application/gzip"
		if strings.HasPrefix(c.body, "{") {
			contentType = "application/json"
		}
		res, body := e.send(t, secret, c.method, c.path, contentType, []byte(c.body))
		if res.StatusCode != c.status {
			t.Errorf("%s %s: status %d, want %d: %s", c.method, c.path, res.StatusCode, c.status, body)
		}
		if c.path == "/api/packages" && c.status == http.StatusMethodNotAllowed && len(res.Header.Get("Allow")) != len("GET, POST") {
			t.Errorf("Allow: %q", res.Header.Get("Allow"))
		}
	}
	if n := len(e.catalog.installs); n != 2 || e.catalog.installs[0].ID.Name != "acme/flow" || e.catalog.installs[0].ID.Version != "0.1.0" ||
		e.catalog.installs[1].ID.Digest == nil || !e.catalog.installs[1].DryRun {
		t.Errorf("installs %+v", e.catalog.installs)
	}
	_, body := e.send(t, secret, "GET", "/api/packages", "", nil)
	var page map[string]json.RawMessage
	if err := json.Unmarshal(body, &page); err != nil || page["packages"] == nil || page["next"] == nil || len(page) != 2 {
		t.Errorf("a page is %s", body)
	}
}

// A download goes on where it was, by ranges; its tag says whether the file is the same.
func TestContentOfPackages(t *testing.T) {
	e := newEnv(t, nil)
	e.catalog.content = bytes.Repeat([]byte("0123456789"), 60_000)
	get := func(header, value string) (*http.Response, []byte) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, e.url+"/api/packages/acme%2Fflow/content", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+secretOf("acme", RoleReader))
		if header != "" {
			req.Header.Set(header, value)
		}
		res, err := e.client("").Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		var b bytes.Buffer
		if _, err := b.ReadFrom(res.Body); err != nil {
			t.Fatal(err)
		}
		return res, b.Bytes()
	}
	whole, body := get("", "")
	if whole.StatusCode != http.StatusOK || !bytes.Equal(body, e.catalog.content) {
		t.Fatalf("status %d, %d bytes", whole.StatusCode, len(body))
	}
	part, body := get("Range", "bytes=300001-")
	if part.StatusCode != http.StatusPartialContent || !bytes.Equal(body, e.catalog.content[300_001:]) {
		t.Errorf("from the middle: status %d, %d bytes", part.StatusCode, len(body))
	}
	if same, _ := get("If-None-Match", whole.Header.Get("ETag")); same.StatusCode != http.StatusNotModified {
		t.Errorf("the same file: status %d", same.StatusCode)
	}
	if name := whole.Header.Get("Content-Disposition"); !strings.Contains(name, "acme-flow-0.1.0.mwpkg.tgz") {
		t.Errorf("file name %q", name)
	}
}

// What the catalog and the format refuse has its own reason and status; a body beyond the bound is refused
// before it is read to its end.
func TestRefusedPackages(t *testing.T) {
	e := newEnv(t, nil)
	secret := secretOf("acme", RolePublisher)
	for _, c := range []struct {
		err    error
		status int
		reason string
	}{
		{pkgstore.Refuse(pkgstore.ErrConflict, "other content"), http.StatusConflict, "version_conflict"},
		{&mwpkg.Error{Code: mwpkg.CodeSignatureMissing}, http.StatusUnprocessableEntity, "signature_missing"},
		{&mwpkg.Error{Code: mwpkg.CodeTooLarge}, http.StatusRequestEntityTooLarge, "package_too_large"},
		{&mwpkg.Error{Code: mwpkg.CodeNotCanonical, Detail: "x"}, http.StatusBadRequest, "not_canonical"},
		{pkgstore.Refuse(pkgstore.ErrFull, "full"), http.StatusInsufficientStorage, "catalog_full"},
	} {
		e.catalog.err = c.err
		res, body := e.send(t, secret, "POST", "/api/packages", "application/gzip", []byte("archive"))
		if p := problemOf(t, res, body); res.StatusCode != c.status || p.Reason != c.reason || p.Outcome != "definite" {
			t.Errorf("%v: status %d, reason %s, outcome %s", c.err, res.StatusCode, p.Reason, p.Outcome)
		}
	}
	e.catalog.err = nil
	res, body := e.send(t, secret, "POST", "/api/packages", "application/gzip", make([]byte, pkgstore.ArchiveBytesMax+1))
	if p := problemOf(t, res, body); p.Reason != "body_too_large" {
		t.Errorf("a body beyond the bound: %s", p.Reason)
	}
	if len(e.catalog.published) != 5 {
		t.Errorf("%d archives reached the catalog", len(e.catalog.published))
	}
}

// An id that no package can have is the caller's fault, and is not looked for.
func TestMalformedIDsOfPackages(t *testing.T) {
	for id, want := range map[string]*reason{
		"":                             reasonFieldMalformed,
		strings.Repeat("a", 129):       reasonFieldTooLong,
		"a@" + strings.Repeat("1", 65): reasonFieldTooLong,
		strings.Repeat("a", 300):       reasonFieldMalformed,
		"a b":                          reasonFieldMalformed,
		"@1.0.0":                       reasonFieldMalformed,
		"a@":                           reasonFieldMalformed,
		"a@1.0.0@2":                    reasonFieldMalformed,
		"a\x00@1.0.0":                  reasonFieldMalformed,
	} {
		if _, f := packageID(id); f == nil || f.reason != want {
			t.Errorf("%q: %+v, want %v", id, f, want)
		}
	}
	for _, id := range []string{"flow", "acme/flow@0.1.0-rc.1", strings.Repeat("ab", 32)} {
		if _, f := packageID(id); f != nil {
			t.Errorf("%q: %v", id, f)
		}
	}
}

// TestEveryCodeOfPackagesHasAReason fails when the format gets a code and nobody has decided what callers see.
func TestEveryCodeOfPackagesHasAReason(t *testing.T) {
	have := map[mwpkg.Code]bool{}
	for _, c := range packageCodes {
		have[c.code] = true
		if r := reasonFor(errors.Join(errors.New("around"), &mwpkg.Error{Code: c.code, Subject: "s", Detail: "d"})); r.name != string(c.code) {
			t.Errorf("%s becomes %s", c.code, r.name)
		}
	}
	files, err := filepath.Glob("../pkgstore/mwpkg/*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range files {
		source, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, source, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			spec, ok := n.(*ast.ValueSpec)
			if !ok {
				return true
			}
			if typ, ok := spec.Type.(*ast.Ident); !ok || typ.Name != "Code" || len(spec.Values) != 1 {
				return true
			}
			value, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
			if err != nil || !have[mwpkg.Code(value)] {
				t.Errorf("the code %s has no row in packageCodes", value)
			}
			return true
		})
	}
}

// A cursor is good for the list that gave it, and for no other list, view or filter.
func TestCursorsOfPackages(t *testing.T) {
	e := newEnv(t, nil)
	acme := secretOf("acme", RoleAdmin)
	status, body := 0, ""
	get := func(secret, path string) (int, string) {
		t.Helper()
		res, b := e.send(t, secret, "GET", path, "", nil)
		return res.StatusCode, string(b)
	}
	if status, body = get(acme, "/api/packages?q=flow"); status != http.StatusOK {
		t.Fatalf("status %d: %s", status, body)
	}
	_, next, _ := strings.Cut(body, `"next":"`)
	next, _, _ = strings.Cut(next, `"`)
	altered := next[:len(next)-4] + "AAAA"
	for _, c := range []struct {
		secret, path string
		want         int
	}{
		{acme, "/api/packages?q=flow&cursor=" + next, http.StatusOK},
		{acme, "/api/packages?q=flow&limit=3&cursor=" + next, http.StatusOK},
		{acme, "/api/packages?q=flow&cursor=" + altered, http.StatusBadRequest},
		{acme, "/api/packages?cursor=" + next, http.StatusBadRequest},
		{acme, "/api/packages?q=flow&name=flow&cursor=" + next, http.StatusBadRequest},
		{acme, "/api/package-installs?cursor=" + next, http.StatusBadRequest},
		{secretOf("globex", RoleAdmin), "/api/packages?q=flow&cursor=" + next, http.StatusBadRequest},
	} {
		if status, body := get(c.secret, c.path); status != c.want || status != http.StatusOK && !strings.Contains(body, "cursor_malformed") {
			t.Errorf("%s: status %d, want %d: %s", c.path, status, c.want, body)
		}
	}
}
