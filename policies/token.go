package policies

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"strings"
	"time"

	"github.com/open-policy-agent/opa/v1/bundle"
)

// sha256Name is how tokens name SHA-256.
const sha256Name = "SHA-256"

// MaxLifetime bounds how long a signed pack may be valid: one that nobody signs again goes out of use.
const MaxLifetime = 400 * 24 * time.Hour

// maxSkew is how far the clock of who signed may be ahead.
const maxSkew = 5 * time.Minute

// claims are what a token says. OPA reads files and scope; the others are ours.
type claims struct {
	Files    []claimedFile `json:"files"`
	Scope    string        `json:"scope"`
	Issuer   string        `json:"iss"`
	IssuedAt int64         `json:"iat"`
	Expires  int64         `json:"exp"`
	Revision string        `json:"revision"`
	// KeyID is how opa sign names a key, which has no way to write it into the header.
	KeyID string `json:"keyid,omitempty"`
}

type claimedFile struct {
	Name      string `json:"name"`
	Hash      string `json:"hash"`
	Algorithm string `json:"algorithm"`
}

type tokenHeader struct {
	Algorithm Algorithm `json:"alg"`
	KeyID     string    `json:"kid,omitempty"`
	Type      string    `json:"typ,omitempty"`
}

// token is the one JSON web signature (RFC 7515) of a .signatures.json.
type token struct {
	header    tokenHeader
	payload   []byte
	signed    []byte
	signature []byte
}

type signatures struct {
	Signatures []string `json:"signatures"`
	Plugin     string   `json:"plugin,omitempty"`
}

func malformed(format string, args ...any) error {
	return refuse(CodeSignatureFile, signaturesFile, format, args...)
}

// parseToken reads a .signatures.json. Nothing of it is believed yet.
func parseToken(data []byte) (*token, error) {
	if data == nil {
		return nil, refuse(CodeUnsigned, signaturesFile, "the pack is not signed").hint("maestro policy sign signs it")
	}
	if err := checkJSON(data); err != nil {
		return nil, malformed("%v", err)
	}
	var file map[string]json.RawMessage
	if err := json.Unmarshal(data, &file); err != nil {
		return nil, malformed("%v", err)
	}
	// A plugin is said by whoever wrote the file, and would choose what believes it. opa build writes the name of its own
	// verifier, which no other can have.
	for _, key := range sortedKeys(file) {
		if strings.EqualFold(key, "plugin") && (key != "plugin" || string(file[key]) != `"_default"`) {
			return nil, refuse(CodePlugin, signaturesFile, "the file chooses how it is verified").hint("leave out the field plugin")
		}
	}
	var s signatures
	if err := strictUnmarshal(data, &s); err != nil {
		return nil, malformed("%v", err)
	}
	if len(s.Signatures) != 1 {
		return nil, refuse(CodeTokens, signaturesFile, "there are %d tokens; exactly one is read", len(s.Signatures))
	}
	parts := strings.Split(s.Signatures[0], ".")
	if len(parts) != 3 {
		return nil, malformed("the token is not three parts with dots between them")
	}
	var decoded [3][]byte
	for i, part := range parts {
		var err error
		if decoded[i], err = base64.RawURLEncoding.Strict().DecodeString(part); err != nil {
			return nil, malformed("a part of the token is not base64url without padding")
		}
	}
	t := &token{payload: decoded[1], signed: []byte(parts[0] + "." + parts[1]), signature: decoded[2]}
	if err := checkJSON(decoded[0]); err != nil {
		return nil, malformed("the token's header: %v", err)
	}
	if err := strictUnmarshal(decoded[0], &t.header); err != nil {
		return nil, malformed("the token's header: %v; alg, kid and typ are read", err)
	}
	return t, nil
}

// claims reads what the token says, which is not believed before its signature was verified.
func (t *token) claims() (*claims, error) {
	if err := checkJSON(t.payload); err != nil {
		return nil, refuse(CodeClaims, signaturesFile, "the claims: %v", err)
	}
	c := new(claims)
	if err := strictUnmarshal(t.payload, c); err != nil {
		return nil, refuse(CodeClaims, signaturesFile, "the claims: %v; files, scope, iss, iat, exp, revision and keyid are read", err)
	}
	return c, nil
}

// check refuses claims that do not hold at a moment, whoever made them.
func (c *claims) check(now time.Time, scope string) error {
	issued, expires := time.Unix(c.IssuedAt, 0), time.Unix(c.Expires, 0)
	switch {
	case c.Issuer == "" || c.IssuedAt <= 0 || c.Expires <= 0 || c.Revision == "" || c.Scope == "":
		return refuse(CodeClaims, signaturesFile, "one of scope, iss, iat, exp and revision is missing").hint("give opa sign and opa build --claims-file with all of them")
	case c.Scope != scope:
		return refuse(CodeScope, signaturesFile, "the pack is signed for %s; it was asked for as %s", quoted(c.Scope), quoted(scope))
	case issued.After(now.Add(maxSkew)):
		return refuse(CodeNotYet, signaturesFile, "the pack is signed at %s, which is in the future", stamp(issued))
	case expires.Sub(issued) > MaxLifetime:
		return refuse(CodeLifetime, signaturesFile, "the pack would be valid for more than %d days", MaxLifetime/(24*time.Hour))
	case !now.Before(expires):
		return refuse(CodeExpired, signaturesFile, "the pack was valid until %s", stamp(expires)).hint("sign it again, as a higher revision")
	}
	return nil
}

// checkFiles refuses files that are not exactly those that were signed.
func (c *claims) checkFiles(files []File) error {
	listed := map[string]bundle.FileInfo{}
	for _, f := range c.Files {
		if _, twice := listed[f.Name]; twice {
			return refuse(CodeDuplicate, quoted(f.Name), "the token lists the file twice")
		}
		if f.Algorithm != sha256Name {
			return refuse(CodeHash, quoted(f.Name), "the file's hash is by %s; %s is read", quoted(f.Algorithm), sha256Name)
		}
		listed[f.Name] = bundle.NewFile(f.Name, f.Hash, f.Algorithm)
	}
	for _, f := range files {
		if _, ok := listed[f.Path]; !ok {
			return refuse(CodeFileUnlisted, quoted(f.Path), "the token does not list the file")
		}
		if err := bundle.VerifyBundleFile(f.Path, *bytes.NewBuffer(bytes.Clone(f.Data)), listed); err != nil {
			return refuse(CodeFileMismatch, quoted(f.Path), "the file is not the one that was signed")
		}
	}
	for _, name := range sortedKeys(listed) {
		return refuse(CodeFileMissing, quoted(name), "the token lists the file, which is not there")
	}
	return nil
}

// hashFile is the hash of a file as OPA makes it: of JSON, the hash of its value.
func hashFile(f File) (claimedFile, error) {
	hasher, err := bundle.NewSignatureHasher(sha256Name)
	if err != nil {
		return claimedFile{}, err
	}
	var value any = f.Data
	if bundle.IsStructuredDoc(f.Path) {
		dec := json.NewDecoder(bytes.NewReader(f.Data))
		dec.UseNumber()
		if err := dec.Decode(&value); err != nil {
			return claimedFile{}, err
		}
	}
	sum, err := hasher.HashFile(value)
	return claimedFile{Name: f.Path, Hash: hex.EncodeToString(sum), Algorithm: sha256Name}, err
}
