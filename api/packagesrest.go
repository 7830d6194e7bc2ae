package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	packagesv1 "github.com/maestro-conductor/maestro/api/gen/mc/packages/v1"
	"github.com/maestro-conductor/maestro/pkgstore"
	"github.com/maestro-conductor/maestro/pkgstore/mwpkg"
)

// packagesPath begins the paths with an id in them.
const packagesPath = "/api/packages/"

// templateOf is the row of the table for a path with a package's id, and the id: one segment, in which a slash
// is %2F.
func templateOf(escaped string) (template, id string) {
	rest, ok := strings.CutPrefix(escaped, packagesPath)
	if !ok {
		return "", ""
	}
	segment, action, found := strings.Cut(rest, "/")
	id, err := url.PathUnescape(segment)
	if err != nil || id == "" {
		return "", ""
	}
	if found {
		return packagesPath + "{id}/" + action, id
	}
	return packagesPath + "{id}", id
}

// publishREST is POST /api/packages: the body is the archive, whole. The parameter tenant is that of
// PublishRequest. The status says whether the package is new.
func (s *server) publishREST(w http.ResponseWriter, r *http.Request) {
	c := callFrom(r.Context())
	tenant, f := tenantParameter(r.URL.RawQuery)
	var owner string
	if f == nil {
		owner, f = packageOwner(c.principal, tenant)
	}
	var archive []byte
	if f == nil {
		archive, f = readArchive(r, c)
	}
	if f != nil {
		c.fault = f
		writeProblem(w, f)
		return
	}
	status := http.StatusOK
	res, err := guarded(r.Context(), c, &archive, func(ctx context.Context, c *call, archive *[]byte) (*packagesv1.PublishResponse, error) {
		catalog, err := s.packages()
		if err != nil {
			return nil, err
		}
		p, what, err := catalog.Publish(ctx, owner, c.principal.ID, *archive)
		if err != nil {
			return nil, err
		}
		if what == pkgstore.PublishedNew {
			status = http.StatusCreated
		}
		s.audit("a package was published", c, "package", p.ID(), "namespace", p.Namespace, "digest", p.Digest, "result", what)
		return &packagesv1.PublishResponse{Package: packageMessage(&p), Result: what.String()}, nil
	})
	if err != nil {
		writeProblem(w, c.note(s, err))
		return
	}
	s.writeJSON(w, c, status, res)
}

// readArchive reads a body within the bound of an archive. A length that is announced is what the buffer gets.
func readArchive(r *http.Request, c *call) ([]byte, *fault) {
	if encoding := r.Header.Get("Content-Encoding"); encoding != "" && encoding != "identity" {
		return nil, refuse(reasonCompressionUnknown, "Content-Encoding: %q is not taken here; send the file as it is", encoding)
	}
	most := classLimits[c.route.class].body
	if r.ContentLength > int64(most) {
		return nil, faultOf(bodyTooLarge(most), false)
	}
	archive, err := io.ReadAll(newPlainBody(r.Body, most, c.meter))
	switch {
	case err != nil:
		return nil, faultOf(err, false)
	case len(archive) == 0:
		return nil, refuse(reasonMessageMalformed, "the body is empty; send the file NAME-VERSION.mwpkg.tgz")
	}
	return archive, nil
}

func tenantParameter(raw string) (tenant string, f *fault) {
	f = parseParameters(raw, func(name, value string) *fault {
		if name != "tenant" {
			return refuse(reasonParameterMalformed, "%q is not a parameter; use tenant", name)
		}
		var f *fault
		tenant, f = parameterText(name, value)
		return f
	})
	return tenant, f
}

// parsePackages reads the parameters of GET /api/packages.
func parsePackages(raw string) (*packagesv1.ListPackagesRequest, *fault) {
	req := &packagesv1.ListPackagesRequest{}
	fields := map[string]*string{"q": &req.Q, "query": &req.Q, "capability": &req.Capability, "signer": &req.Signer, "name": &req.Name, "tenant": &req.Tenant, "cursor": &req.Cursor}
	f := parseParameters(raw, func(name, value string) (f *fault) {
		if field := fields[name]; field != nil {
			*field, f = parameterText(name, value)
			return f
		}
		if name != "limit" {
			return refuse(reasonParameterMalformed, "%q is not a parameter; use q, capability, signer, name, tenant, limit and cursor", name)
		}
		req.Limit, f = limitParameter(value)
		return f
	})
	if f != nil {
		return nil, f
	}
	return req, nil
}

func limitParameter(value string) (uint32, *fault) {
	n, err := strconv.ParseUint(value, 10, 32)
	if err != nil {
		return 0, refuse(reasonParameterMalformed, "limit: %q is not a number from 0 to %d", value, pkgstore.PageMax)
	}
	return uint32(n), nil
}

// parseInstalls reads the parameters of GET /api/package-installs.
func parseInstalls(raw string) (*packagesv1.ListInstallsRequest, *fault) {
	req := &packagesv1.ListInstallsRequest{}
	fields := map[string]*string{"name": &req.Name, "tenant": &req.Tenant, "cursor": &req.Cursor}
	f := parseParameters(raw, func(name, value string) (f *fault) {
		if field := fields[name]; field != nil {
			*field, f = parameterText(name, value)
			return f
		}
		if name != "limit" {
			return refuse(reasonParameterMalformed, "%q is not a parameter; use name, tenant, limit and cursor", name)
		}
		req.Limit, f = limitParameter(value)
		return f
	})
	if f != nil {
		return nil, f
	}
	return req, nil
}

// restPackageOf serves an RPC about one package at a path with its id: with JSON, which may be absent, and
// the parameter tenant. fill gets the id and the tenant, where they are not empty.
func restPackageOf[Req, Res any, PReq messageOf[Req], PRes messageOf[Res]](
	s *server, fill func(req *Req, id, tenant string), fn func(context.Context, *call, *Req) (*Res, error),
) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, req := callFrom(r.Context()), new(Req)
		tenant, f := tenantParameter(r.URL.RawQuery)
		if f == nil && r.Method == http.MethodPost && r.ContentLength != 0 {
			f = readJSON(r, c, PReq(req))
		}
		if f != nil {
			c.fault = f
			writeProblem(w, f)
			return
		}
		fill(req, c.id, tenant)
		res, err := guarded(r.Context(), c, req, fn)
		if err != nil {
			writeProblem(w, c.note(s, err))
			return
		}
		s.writeJSON(w, c, http.StatusOK, proto.Message(PRes(res)))
	})
}

// set gives a field the value of the path or the parameter, if there is one.
func set(field *string, value string) {
	if value != "" {
		*field = value
	}
}

// contentREST is GET /api/packages/{id}/content: the archive, with ranges, so that a download goes on where
// it was. Its tag is the archive's SHA-256.
func (s *server) contentREST(w http.ResponseWriter, r *http.Request) {
	c := callFrom(r.Context())
	tenant, f := tenantParameter(r.URL.RawQuery)
	if f != nil {
		c.fault = f
		writeProblem(w, f)
		return
	}
	catalog, p, _, err := s.find(r.Context(), c, c.id, tenant)
	if err == nil && p.Yank.Kind == pkgstore.Blocked {
		err = pkgstore.Refuse(pkgstore.ErrBlocked, "%s is blocked for its security: %s", p.ID(), p.Yank.Reason)
	}
	if err != nil {
		writeProblem(w, c.note(s, err))
		return
	}
	h := w.Header()
	h.Set("Content-Type", "application/gzip")
	h.Set("Content-Disposition", fmt.Sprintf("attachment; filename=%q", mwpkg.Ref{Name: p.Name, Version: p.Version}.Filename()))
	h.Set("ETag", `"`+p.Archive.String()+`"`)
	h.Set("Maestro-Digest", p.Digest.String())
	h.Set("Cache-Control", "private, no-cache")
	if strings.Contains(r.Header.Get("Range"), ",") {
		r.Header.Del("Range") // each of many small ranges would read a chunk; the whole is a right answer too
	}
	http.ServeContent(w, r, "", time.Time{}, &contentReader{ctx: r.Context(), catalog: catalog, p: &p})
}

// contentReader reads an archive as http.ServeContent wants it.
type contentReader struct {
	ctx     context.Context
	catalog Packages
	p       *pkgstore.Package
	at      int64
	// ahead are the bytes at at, of one chunk.
	ahead []byte
}

func (r *contentReader) Read(b []byte) (int, error) {
	if r.at >= int64(r.p.Size) {
		return 0, io.EOF
	}
	if len(r.ahead) == 0 {
		var err error
		if r.ahead, err = r.catalog.Content(r.ctx, r.p, uint64(r.at), pkgstore.ChunkBytes-int(r.at%pkgstore.ChunkBytes)); err != nil {
			return 0, err
		}
	}
	n := copy(b, r.ahead)
	r.at, r.ahead = r.at+int64(n), r.ahead[n:]
	return n, nil
}

func (r *contentReader) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += r.at
	case io.SeekEnd:
		offset += int64(r.p.Size)
	}
	if offset < 0 {
		return 0, errors.New("api: seek before the beginning")
	}
	r.at, r.ahead = offset, nil
	return offset, nil
}
