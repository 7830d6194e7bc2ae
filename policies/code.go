package policies

import (
	"errors"
	"fmt"
	"strconv"
)

// Code says in one stable word why a pack, a signature or an evaluation was refused. Codes are listed in
// docs/policies.md and never change their meaning.
type Code string

// Codes of archives and their files.
const (
	CodeTooLarge     Code = "pack_too_large"     // archive, content or a file above its limit
	CodeTooManyFiles Code = "too_many_files"     // more than MaxFiles
	CodeGzip         Code = "gzip_invalid"       // not one gzip member and nothing else
	CodeTar          Code = "tar_invalid"        // truncated, wrong checksum, no end, data after the end
	CodeEntryType    Code = "entry_type_refused" // anything but a regular file in a plain header
	CodePath         Code = "path_refused"       // a path that leaves the pack or that is written in an odd way
	CodeDuplicate    Code = "duplicate_file"     // two entries, or two keys of a JSON file, of one name
	CodeFile         Code = "file_refused"       // a file that packs do not have
	CodeDelta        Code = "delta_refused"      // a delta bundle, which cannot be signed
	CodeManifest     Code = "manifest_invalid"   // not one JSON object of the known fields, or not one root
	CodeModule       Code = "module_invalid"     // Rego that does not parse or compile, or outside of the root
	CodeCapability   Code = "capability_refused" // a built-in function that packs may not use
	CodeData         Code = "data_invalid"       // data that are not one JSON value without repeated keys
	CodeLint         Code = "lint_failed"        // a deny rule without what every one has
)

// Codes of signatures and keys.
const (
	CodeUnsigned       Code = "signature_missing"      // no .signatures.json
	CodeSignatureFile  Code = "signature_malformed"    // a .signatures.json, token or signature that cannot be read
	CodePlugin         Code = "plugin_refused"         // a .signatures.json that chooses how it is verified
	CodeTokens         Code = "token_count"            // not exactly one token
	CodeAlgorithm      Code = "algorithm_refused"      // not ES256, EdDSA or RS256, or not the one of the key
	CodeKeyUnknown     Code = "key_unknown"            // no trusted key of that id
	CodeKeyScope       Code = "key_out_of_scope"       // the key may not sign packs of this scope
	CodeKeyNotYet      Code = "key_not_yet_valid"      // before the key's window
	CodeKeyExpired     Code = "key_expired"            // after the key's window
	CodeKeySuperseded  Code = "key_superseded"         // recorded after the key was replaced
	CodeKeyCompromised Code = "key_compromised"        // the key is in wrong hands
	CodeKey            Code = "key_refused"            // a key that cannot be read or of another kind
	CodeSignature      Code = "signature_invalid"      // the key did not sign this
	CodeClaims         Code = "claims_invalid"         // a claim is missing, unknown or of another kind
	CodeScope          Code = "scope_mismatch"         // signed for another scope
	CodeExpired        Code = "pack_expired"           // after exp
	CodeNotYet         Code = "pack_not_yet_valid"     // iat is in the future
	CodeLifetime       Code = "lifetime_too_long"      // exp is more than MaxLifetime after iat
	CodeRevision       Code = "revision_mismatch"      // claim and manifest, or pack and what was asked for, differ
	CodeRollback       Code = "revision_rolled_back"   // below the highest revision seen
	CodeRevisionReused Code = "revision_reused"        // the highest revision seen, with another content
	CodeHash           Code = "hash_refused"           // a file's hash is not SHA-256
	CodeFileUnlisted   Code = "file_unlisted"          // the token does not list the file
	CodeFileMissing    Code = "file_missing"           // the token lists a file that is not there
	CodeFileMismatch   Code = "file_mismatch"          // a file is not the one that was signed
	CodeBlobMissing    Code = "blob_signature_missing" // no cosign signature beside the archive
	CodeBlobSignature  Code = "blob_signature_invalid" // the cosign signature beside the archive does not hold
)

// Codes of evaluations.
const (
	CodeInput   Code = "input_refused"     // an input that is too large or not one
	CodeSteps   Code = "steps_exceeded"    // the pack took more than MaxSteps
	CodeTime    Code = "time_exceeded"     // the caller's time was over
	CodeEval    Code = "evaluation_failed" // a rule failed, as two values for one name do
	CodeResult  Code = "result_invalid"    // a violation that is not written as one
	CodeWitness Code = "witness_disagrees" // the reasons are not those of the rules that held
)

// Error is a refusal.
type Error struct {
	Code Code
	// Subject is what was refused: a file, a key id, a pack. It may be empty.
	Subject string
	// Detail says what is wrong, and Hint, where there is one, what to do.
	Detail string
	Hint   string
}

func (e *Error) Error() string {
	text := e.Detail
	if e.Subject != "" {
		text = e.Subject + ": " + text
	}
	return fmt.Sprintf("policies: %s (%s)", text, e.Code)
}

// Is makes errors.Is(err, &Error{Code: c}) true for every refusal with that code.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Code == e.Code && t.Subject == "" && t.Detail == ""
}

// CodeOf is the code of a refusal, or "".
func CodeOf(err error) Code {
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

func refuse(code Code, subject, format string, args ...any) *Error {
	return &Error{Code: code, Subject: subject, Detail: fmt.Sprintf(format, args...)}
}

func (e *Error) hint(text string) *Error {
	e.Hint = text
	return e
}

// maxQuoted bounds what is shown of hostile text, in bytes.
const maxQuoted = 80

// quoted shows text that may be anything.
func quoted(text string) string {
	if len(text) > maxQuoted {
		return strconv.QuoteToASCII(text[:maxQuoted]) + "..."
	}
	return strconv.QuoteToASCII(text)
}
