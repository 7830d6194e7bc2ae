package ingest

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/maestro-conductor/maestro/index"
)

// Envelopes of statements, recognised by the fields they alone have:
//
//	statement  {"_type", "subject", "predicateType", "predicate"}   in-toto v0.1 and v1
//	DSSE       {"payload", "payloadType", "signatures"}             secure-systems-lab/dsse
//	bundle     {"mediaType", "dsseEnvelope", ...}                   sigstore bundle v0.1 to v0.3
//	list       {"attestations": [{"bundle": {...}}]}                the npm and GitHub APIs
//
// They nest: a list holds bundles, a bundle a DSSE envelope, an envelope a statement.

// looksInToto reports whether v is one of them.
func looksInToto(v *value) bool {
	return v.get("_type") != nil || v.get("payload") != nil || isBundle(v) || v.get("attestations") != nil
}

func isBundle(v *value) bool {
	return v.get("dsseEnvelope") != nil || strings.HasPrefix(textOf(v.get("mediaType")), "application/vnd.dev.sigstore.bundle")
}

// convertInToto unwraps v down to its statements.
func convertInToto(out *output, entry string, v *value) {
	switch {
	case v.get("_type") != nil:
		convertStatement(out, entry, v)
	case v.get("payload") != nil:
		convertEnvelope(out, entry, v)
	case isBundle(v):
		convertBundle(out, entry, v)
	case v.get("attestations") != nil:
		convertAttestations(out, entry, v.get("attestations"))
	default:
		out.refuse(entry, "", refusal(ReasonStatementMalformed, "",
			"this is neither an in-toto statement (_type), a DSSE envelope (payload), a sigstore bundle (dsseEnvelope) nor a list of attestations"))
	}
}

func convertAttestations(out *output, entry string, list *value) {
	if list.kind != kindArray {
		out.refuse(entry, "", refusal(ReasonEnvelopeMalformed, "attestations", "expected an array, this is %s", list.kind))
		return
	}
	for i := range list.list {
		at := fmt.Sprintf("attestations[%d]", i)
		if entry != "" {
			at = entry + "." + at
		}
		bundle := list.list[i].get("bundle")
		if bundle == nil {
			out.refuse(at, "", refusal(ReasonEnvelopeMalformed, "bundle", "the attestation has no bundle"))
			continue
		}
		convertBundle(out, at, bundle)
	}
}

func convertBundle(out *output, entry string, v *value) {
	envelope := v.get("dsseEnvelope")
	if envelope == nil {
		out.refuse(entry, "", refusal(ReasonEnvelopeMalformed, "dsseEnvelope",
			"the sigstore bundle has no DSSE envelope, so it holds no statement; a bundle of a plain signature says nothing to index"))
		return
	}
	convertEnvelope(out, entry, envelope)
}

// convertEnvelope reads the payload whatever its payloadType: producers name it differently,
// and the statement inside says what it is.
func convertEnvelope(out *output, entry string, v *value) {
	payload := v.get("payload")
	if payload == nil || payload.kind != kindString {
		out.refuse(entry, "", refusal(ReasonEnvelopeMalformed, "payload", "the DSSE envelope has no base64 payload"))
		return
	}
	raw, ok := decodeBase64(payload.text)
	if !ok {
		out.refuse(entry, "", refusal(ReasonEnvelopeMalformed, "payload", "the payload is not base64"))
		return
	}
	statement, fault := parseJSON(raw)
	if fault != nil {
		out.refuse(entry, "", refusal(ReasonEnvelopeMalformed, "payload", "the payload of type %q: %v", shorten(textOf(v.get("payloadType"))), fault))
		return
	}
	if statement.get("_type") == nil {
		out.refuse(entry, "", refusal(ReasonEnvelopeMalformed, "payload", "the payload of type %q is not an in-toto statement: it has no _type", shorten(textOf(v.get("payloadType")))))
		return
	}
	convertStatement(out, entry, statement)
}

// decodeBase64 reads the standard and the URL alphabet, padded or not: DSSE allows both.
func decodeBase64(s string) ([]byte, bool) {
	encoding := base64.RawStdEncoding
	if strings.ContainsAny(s, "-_") {
		encoding = base64.RawURLEncoding
	}
	raw, err := encoding.DecodeString(strings.TrimRight(s, "="))
	return raw, err == nil
}

// convertStatement makes a receipt of a statement. The receipt's id is the SHA-256 of the
// statement in canonical JSON, so that a statement is one document in whatever envelope,
// formatting or order of fields it comes, and two statements are two documents even where
// they differ only in what a receipt does not hold.
func convertStatement(out *output, entry string, v *value) {
	id := sha256.Sum256(appendCanonical(nil, v))
	s := statement{root: v, d: index.Document{ID: hex.EncodeToString(id[:]), Kind: index.KindReceipt, TimeStamped: true}}
	if fault := s.read(); fault != nil {
		out.refuse(entry, s.d.ID, fault)
		return
	}
	out.document(entry, s.d)
}

// textOf returns a string's content, empty for anything else.
func textOf(v *value) string {
	if v == nil || v.kind != kindString {
		return ""
	}
	return v.text
}
