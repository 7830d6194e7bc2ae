package api

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	provenancev1 "github.com/maestro-conductor/maestro/api/gen/mc/provenance/v1"
	"github.com/maestro-conductor/maestro/index"
)

// protoMessage is a pointer to a type whose pointers are messages.
type protoMessage[T any] interface {
	*T
	proto.Message
}

// restGET is an RPC whose request is parsed from the parameters of an address.
func restGET[Req, Res any, M protoMessage[Res]](s *server, parse func(query string) (*Req, *fault), fn func(context.Context, *call, *Req) (*Res, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		c := callFrom(r.Context())
		req, f := parse(r.URL.RawQuery)
		if f != nil {
			c.fault = f
			writeProblem(w, f)
			return
		}
		res, err := guarded(r.Context(), c, req, fn)
		if err != nil {
			writeProblem(w, c.note(s, err))
			return
		}
		s.writeJSON(w, c, http.StatusOK, M(res))
	}
}

// writeJSON answers with a message.
func (s *server) writeJSON(w http.ResponseWriter, c *call, status int, m proto.Message) {
	body, err := jsonMarshal.Marshal(m)
	if err != nil {
		writeProblem(w, c.note(s, err))
		return
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	_, _ = w.Write(body) // the client may have gone
}

// parseSearch reads the parameters q, tenant, pack, digest, from, to, limit, cursor, exact,
// follow, explain, order, facets, facetValues, histogram and require.
// Each may be there once; an unknown one is refused, since a misspelt condition that is
// ignored finds too much.
func parseSearch(raw string) (*provenancev1.SearchRequest, *fault) {
	req := &provenancev1.SearchRequest{}
	f := parseParameters(raw, func(name, value string) *fault { return setParameter(req, name, value) })
	if f != nil {
		return nil, f
	}
	return req, nil
}

// parseParameters sets each parameter of a query string.
func parseParameters(raw string, set func(name, value string) *fault) *fault {
	values, err := url.ParseQuery(raw)
	if err != nil {
		return refuse(reasonParameterMalformed, "the query string cannot be read: %v", err)
	}
	for name, all := range values {
		if len(all) != 1 {
			return refuse(reasonParameterMalformed, "%q is there %d times; give it once", name, len(all))
		}
		if f := set(name, all[0]); f != nil {
			return f
		}
	}
	return nil
}

func setParameter(req *provenancev1.SearchRequest, name, value string) (f *fault) {
	switch name {
	case "q":
		req.Query, f = parameterText(name, value)
	case "tenant":
		req.Tenant, f = parameterText(name, value)
	case "pack":
		req.Pack, f = parameterText(name, value)
	case "digest":
		req.Digest, f = parameterText(name, value)
	case "cursor":
		req.Cursor, f = parameterText(name, value)
	case "from":
		req.From, f = parameterTime(name, value)
	case "to":
		req.To, f = parameterTime(name, value)
	case "limit":
		req.Limit, f = parameterNumber(name, value, MaxPage)
	case "exact":
		if value != "true" && value != "false" {
			return refuse(reasonParameterMalformed, "exact: %q is neither true nor false", value)
		}
		req.Exact = value == "true"
	case "explain":
		if value != "true" && value != "false" {
			return refuse(reasonParameterMalformed, "explain: %q is neither true nor false", value)
		}
		req.Explain = value == "true"
	case "follow":
		if value != "true" && value != "false" {
			return refuse(reasonParameterMalformed, "follow: %q is neither true nor false", value)
		}
		req.Follow = value == "true"
	case "order":
		req.Order, f = parameterText(name, value)
	case "facets":
		if value, f = parameterText(name, value); f == nil {
			req.Facets = strings.Split(value, ",")
		}
	case "facetValues":
		req.FacetValues, f = parameterNumber(name, value, index.FacetValuesMax)
	case "histogram":
		req.Histogram, f = parameterText(name, value)
	case "require":
		if value != "complete" {
			return refuse(reasonParameterMalformed, "require: %q is not complete", value)
		}
		req.RequireComplete = true
	default:
		return refuse(reasonParameterMalformed,
			"%q is not a parameter; use q, tenant, pack, digest, from, to, limit, cursor, exact, follow, explain, order, facets, facetValues, histogram and require", name)
	}
	return f
}

func parameterText(name, value string) (string, *fault) {
	if !utf8.ValidString(value) {
		return "", refuse(reasonParameterMalformed, "%s: the text is not valid UTF-8", name)
	}
	return value, nil
}

// parameterTime reads RFC 3339, or a date alone for its first moment in UTC.
func parameterTime(name, value string) (*timestamppb.Timestamp, *fault) {
	t, err := time.Parse(time.RFC3339Nano, value)
	if err != nil {
		t, err = time.Parse(time.DateOnly, value)
	}
	if err != nil {
		return nil, refuse(reasonParameterMalformed, "%s: %q is not a time such as 2026-01-31T12:00:00Z, or a date such as 2026-01-31", name, value)
	}
	return timestamppb.New(t), nil
}
