package api

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"unicode/utf8"

	provenancev1 "github.com/maestro-conductor/maestro/api/gen/mc/provenance/v1"
	"github.com/maestro-conductor/maestro/index/ingest"
)

// Content types of POST /api/provenance/ingest beside application/json, which is an IngestRequest.
const (
	typeCloudEvent  = "application/cloudevents+json"
	typeCloudEvents = "application/cloudevents-batch+json"
	typeLines       = "application/x-ndjson"
)

// eventHeaderPrefix begins the headers of a CloudEvent whose body is its data (binary mode of the
// HTTP protocol binding for CloudEvents 1.0).
const eventHeaderPrefix = "Ce-"

// ingestREST is POST /api/provenance/ingest: Provenance/Ingest with JSON, a CloudEvent or a batch of
// them, or JSON lines of any format that is recognised. The parameters tenant and requestId are the
// fields of these names. A single event that is refused is an error, since its sender looks at the
// status alone; else refusals are in the answer.
func (s *server) ingestREST(w http.ResponseWriter, r *http.Request) {
	c := callFrom(r.Context())
	req, single, f := readIngest(r, c)
	if f != nil {
		c.fault = f
		writeProblem(w, f)
		return
	}
	res, err := guarded(r.Context(), c, req, func(ctx context.Context, c *call, req *provenancev1.IngestRequest) (*provenancev1.IngestResponse, error) {
		res, err := s.ingest(ctx, c, req)
		if err == nil && single && len(res.GetRefusals()) > 0 {
			first := res.GetRefusals()[0]
			return nil, refuse(reasonDocumentRefused, "%s: %s", first.GetReason(), first.GetMessage())
		}
		return res, err
	})
	if err != nil {
		writeProblem(w, c.note(s, err))
		return
	}
	s.writeJSON(w, c, http.StatusOK, res)
}

// readIngest reads the request in whatever form it comes; single tells that it is one event.
func readIngest(r *http.Request, c *call) (req *provenancev1.IngestRequest, single bool, f *fault) {
	req = &provenancev1.IngestRequest{}
	contentType, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil {
		contentType = ""
	}
	binary := r.Header.Get(eventHeaderPrefix+"Specversion") != ""
	record := &provenancev1.Record{Format: ingest.FormatCloudEvents}
	switch {
	case binary || contentType == typeCloudEvent:
		single = true
	case contentType == typeCloudEvents:
	case contentType == typeLines:
		record.Format = ingest.FormatAuto
	default:
		if f = readJSON(r, c, req); f == nil {
			f = ingestParameters(r.URL.RawQuery, req)
		}
		return req, false, f
	}
	if f = ingestParameters(r.URL.RawQuery, req); f != nil {
		return nil, false, f
	}
	if encoding := r.Header.Get("Content-Encoding"); encoding != "" && encoding != "identity" {
		return nil, false, refuse(reasonCompressionUnknown, "Content-Encoding: %q is not taken here; send the body as it is", encoding)
	}
	if record.Content, err = io.ReadAll(newPlainBody(r.Body, classLimits[c.route.class].body, c.meter)); err != nil {
		return nil, false, faultOf(err, false)
	}
	if binary {
		if record.Content, f = binaryEvent(r.Header, record.Content); f != nil {
			return nil, false, f
		}
	}
	req.Records = []*provenancev1.Record{record}
	return req, single, nil
}

func ingestParameters(raw string, req *provenancev1.IngestRequest) *fault {
	return parseParameters(raw, func(name, value string) (f *fault) {
		switch name {
		case "tenant":
			req.Tenant, f = parameterText(name, value)
		case "requestId":
			req.RequestId, f = parameterText(name, value)
		default:
			return refuse(reasonParameterMalformed, "%q is not a parameter; use tenant and requestId", name)
		}
		return f
	})
}

// binaryEvent writes an event of headers and body in the JSON format.
func binaryEvent(h http.Header, body []byte) ([]byte, *fault) {
	event := map[string]any{}
	for name, values := range h {
		attribute, ok := strings.CutPrefix(name, eventHeaderPrefix)
		if !ok {
			continue
		}
		// Characters beyond printable ASCII are percent-encoded.
		text, err := url.PathUnescape(values[0])
		if err != nil || len(values) > 1 || !utf8.ValidString(text) {
			return nil, refuse(reasonHeaderMalformed, "%s: an attribute of a CloudEvent is one header, percent-encoded UTF-8", name)
		}
		event[strings.ToLower(attribute)] = text
	}
	delete(event, "data")
	delete(event, "data_base64")
	contentType := h.Get("Content-Type")
	if contentType != "" {
		event["datacontenttype"] = contentType
	}
	if len(body) > 0 {
		if base, _, err := mime.ParseMediaType(contentType); err == nil && (base == "application/json" || strings.HasSuffix(base, "+json")) && json.Valid(body) {
			event["data"] = json.RawMessage(body)
		} else {
			event["data_base64"] = base64.StdEncoding.EncodeToString(body)
		}
	}
	out, err := json.Marshal(event)
	if err != nil { // texts and valid JSON always marshal
		return nil, refuse(reasonMessageMalformed, "%v", err)
	}
	return out, nil
}
