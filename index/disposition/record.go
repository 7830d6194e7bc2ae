// Package disposition is the signed record of documents that retention has disposed of: whose they were, of
// which kind, by which rule, how many, of which times, and a digest of their ids. A record can be verified with the
// region's public key alone.
package disposition

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"strconv"
	"time"
)

// Type is what a record says it is, and PayloadType what its signature covers besides.
const (
	Type        = "maestro.disposition.v1"
	PayloadType = "application/vnd.maestro.disposition.v1+json"
)

// Errors of Verify; test with errors.Is.
var (
	// ErrMalformed: it is no record.
	ErrMalformed = errors.New("disposition: malformed record")
	// ErrKey: it was signed with another key.
	ErrKey = errors.New("disposition: signed with another key")
	// ErrSignature: the record is not what was signed.
	ErrSignature = errors.New("disposition: the signature does not fit the record")
)

// Record is what was disposed of one tenant in one step.
type Record struct {
	Type   string `json:"type"`
	Region string `json:"region"`
	// Shard is the group that held the documents, First and End bound the numbers that they had in it.
	Shard  string `json:"shard"`
	First  uint64 `json:"first"`
	End    uint64 `json:"end"`
	Tenant string `json:"tenant"`
	// PolicyVersion names the rules that were in force.
	PolicyVersion uint64 `json:"policyVersion"`
	// DisposedAt is the wall time at the leader.
	DisposedAt string `json:"disposedAt"`
	// Lines are by kind.
	Lines []Line `json:"lines"`
}

// Line is the documents of one kind.
type Line struct {
	Kind string `json:"kind"`
	// Rule is TENANT/KIND, * for any, and Age what it lets documents reach.
	Rule string `json:"rule"`
	Age  string `json:"age"`
	// ArrivedBefore is a time at which all of them were stored.
	ArrivedBefore string `json:"arrivedBefore"`
	Count         uint64 `json:"count"`
	// Oldest and Newest bound the documents' own times.
	Oldest string `json:"oldest"`
	Newest string `json:"newest"`
	// IDs is sha256: and the SHA-256 of their ids, newest first as a search finds them, each followed by
	// a line feed.
	IDs string `json:"ids"`
}

// Time spells nanoseconds since 1970 UTC.
func Time(ns int64) string { return time.Unix(0, ns).UTC().Format(time.RFC3339Nano) }

// IDs computes Line.IDs.
type IDs struct{ h hash.Hash }

// NewIDs begins without an id.
func NewIDs() IDs { return IDs{sha256.New()} }

// Add takes the next id.
func (i IDs) Add(id []byte) {
	i.h.Write(id)
	i.h.Write([]byte{'\n'})
}

// String is the digest.
func (i IDs) String() string { return "sha256:" + hex.EncodeToString(i.h.Sum(nil)) }

// Encode is the payload that is signed: the same bytes for the same record.
func (r *Record) Encode() ([]byte, error) { return json.Marshal(r) }

// signed is what a signature covers: the pre-authentication encoding of DSSE v1
// (https://github.com/secure-systems-lab/dsse/blob/v1.0.0/protocol.md).
func signed(payload []byte) []byte {
	b := []byte("DSSEv1 " + strconv.Itoa(len(PayloadType)) + " " + PayloadType + " " + strconv.Itoa(len(payload)) + " ")
	return append(b, payload...)
}

// Sign signs a payload.
func Sign(key ed25519.PrivateKey, payload []byte) []byte { return ed25519.Sign(key, signed(payload)) }

// Fits tells whether a signature is the key's over a payload.
func Fits(key ed25519.PublicKey, payload, signature []byte) bool {
	return len(key) == ed25519.PublicKeySize && ed25519.Verify(key, signed(payload), signature)
}

// KeyID names a public key.
func KeyID(key ed25519.PublicKey) string {
	sum := sha256.Sum256(key)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// Verify reads a record and checks its signature by the one of the keys that it names.
func Verify(keys []ed25519.PublicKey, keyID string, payload, signature []byte) (*Record, error) {
	var r Record
	d := json.NewDecoder(bytes.NewReader(payload))
	d.DisallowUnknownFields()
	if err := d.Decode(&r); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if r.Type != Type {
		return nil, fmt.Errorf("%w: it is of type %q, this build knows %s", ErrMalformed, r.Type, Type)
	}
	for _, key := range keys {
		if KeyID(key) != keyID {
			continue
		}
		if !Fits(key, payload, signature) {
			return nil, ErrSignature
		}
		return &r, nil
	}
	return nil, fmt.Errorf("%w: it names %s", ErrKey, keyID)
}
