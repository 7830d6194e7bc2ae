package api

import (
	"mime"
	"net/http"
	"strings"
)

// bodyKind is how a content type lays out the body, and which headers speak of it.
type bodyKind struct {
	// unary and stream tell which procedures take it.
	unary, stream bool
	// enveloped bodies put each message behind a prefix.
	enveloped   bool
	compression string
	timeout     string
}

var (
	connectUnary  = bodyKind{unary: true, compression: "Content-Encoding", timeout: "Connect-Timeout-Ms"}
	connectStream = bodyKind{stream: true, enveloped: true, compression: "Connect-Content-Encoding", timeout: "Connect-Timeout-Ms"}
	grpcBody      = bodyKind{unary: true, stream: true, enveloped: true, compression: "Grpc-Encoding", timeout: "Grpc-Timeout"}
)

var bodyKinds = map[string]bodyKind{
	"application/json":           connectUnary,
	"application/proto":          connectUnary,
	"application/connect+json":   connectStream,
	"application/connect+proto":  connectStream,
	"application/grpc":           grpcBody,
	"application/grpc+proto":     grpcBody,
	"application/grpc+json":      grpcBody,
	"application/grpc-web":       grpcBody,
	"application/grpc-web+proto": grpcBody,
	"application/grpc-web+json":  grpcBody,
}

// bodyKindOf looks up a content type. JSON may say that it is UTF-8, which it always is.
func bodyKindOf(contentType string) (bodyKind, bool) {
	if k, ok := bodyKinds[contentType]; ok {
		return k, true
	}
	base, params, err := mime.ParseMediaType(contentType)
	if err != nil {
		return bodyKind{}, false
	}
	for name, value := range params {
		if name != "charset" || !strings.EqualFold(value, "utf-8") || !strings.HasSuffix(base, "json") {
			return bodyKind{}, false
		}
	}
	k, ok := bodyKinds[base]
	return k, ok
}

// prepareRPC checks what Connect would refuse without a reason, and bounds the body.
func prepareRPC(rt *route, r *http.Request, m *meter) (clientDeadline bool, f *fault) {
	contentType := r.Header.Get("Content-Type")
	kind, ok := bodyKindOf(contentType)
	if !ok || (rt.stream && !kind.stream) || (!rt.stream && !kind.unary) {
		return false, refuse(reasonContentTypeUnknown, "%s does not take the content type %q", rt.name, contentType)
	}
	if rt.stream && r.ProtoMajor < 2 {
		return false, refuse(reasonHTTP2Required, "")
	}
	encoding := r.Header.Get(kind.compression)
	if encoding != "" && encoding != "identity" && encoding != "gzip" {
		return false, refuse(reasonCompressionUnknown, "%s: %q is not known", kind.compression, encoding)
	}
	if version := r.Header.Get("Connect-Protocol-Version"); version != "" && version != "1" && kind.timeout == connectUnary.timeout {
		return false, refuse(reasonHeaderMalformed, "Connect-Protocol-Version: %q is not a known version; use 1", version)
	}
	timeout := r.Header.Get(kind.timeout)
	if timeout != "" && !validTimeout(kind, timeout) {
		return false, refuse(reasonHeaderMalformed, "%s: %q is not a timeout", kind.timeout, timeout)
	}
	most := classLimits[rt.class].body
	if r.ContentLength > int64(most+envelopePrefixBytes) && !rt.stream {
		return false, refuse(reasonBodyTooLarge, "the body has %d bytes, more than the %d allowed", r.ContentLength, most)
	}
	if kind.enveloped {
		r.Body = &envelopeBody{ReadCloser: r.Body, single: !rt.stream, compressible: encoding == "gzip", most: most, meter: m}
	} else {
		r.Body = newPlainBody(r.Body, most, m)
	}
	return timeout != "", nil
}

// validTimeout: Connect sends up to ten digits of milliseconds, gRPC up to eight and a unit.
func validTimeout(kind bodyKind, timeout string) bool {
	digits, most := timeout, 10
	if kind.timeout == grpcBody.timeout {
		unit := timeout[len(timeout)-1]
		if strings.IndexByte("HMSmun", unit) < 0 {
			return false
		}
		digits, most = timeout[:len(timeout)-1], 8
	}
	if digits == "" || len(digits) > most {
		return false
	}
	for i := range len(digits) {
		if digits[i] < '0' || digits[i] > '9' {
			return false
		}
	}
	return true
}
