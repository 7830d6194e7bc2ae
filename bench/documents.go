package main

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math"
	"sort"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/timestamppb"

	provenancev1 "github.com/maestro-conductor/maestro/api/gen/mc/provenance/v1"
)

// The generated world. A document is a pure function of its number, so that searches know
// what they must find.
const (
	worldTenants   = 1000
	worldZipf      = 1.1 // exponent of the tenants' sizes
	worldPacks     = 200
	worldRunners   = 5000
	worldRules     = 50
	worldSpan      = 7 * 24 * time.Hour // the documents' times, evenly
	docsPerRun     = 5                  // documents of one execution, of one tenant
	decisionEvery  = 4                  // one document in four is a decision
	deniedPerMille = 100
)

// worldBegin is the time of the first document.
var worldBegin = time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)

// world generates n documents.
type world struct {
	n     int
	zipf  []float64 // cumulated shares of the tenants
	total time.Duration
}

func newWorld(n int) *world {
	w := &world{n: n, total: worldSpan}
	sum := 0.0
	for i := range worldTenants {
		sum += 1 / math.Pow(float64(i+1), worldZipf)
		w.zipf = append(w.zipf, sum)
	}
	for i := range w.zipf {
		w.zipf[i] /= sum
	}
	return w
}

// mix is the finaliser of SplitMix64 (Steele, Lea, Flood 2014): documents draw from it by
// their number and by what is drawn.
func mix(i, what uint64) uint64 {
	x := i*0x9E3779B97F4A7C15 + what*0xD1B54A32D192ED03 + 1
	x = (x ^ x>>30) * 0xBF58476D1CE4E5B9
	x = (x ^ x>>27) * 0x94D049BB133111EB
	return x ^ x>>31
}

func draw(i, what uint64, n int) int { return int(mix(i, what) % uint64(n)) }

// Things that are drawn.
const (
	ofTenant = iota
	ofPack
	ofRunner
	ofRule
	ofDecision
	ofCost
	ofDuration
	ofDigest // and the words after it
)

// tenant is the tenant of document i: all documents of an execution have the same.
func (w *world) tenant(i int) string {
	u := float64(mix(uint64(i/docsPerRun), ofTenant)>>11) / (1 << 53)
	return fmt.Sprintf("t-%03d", sort.SearchFloat64s(w.zipf, u))
}

func (w *world) time(i int) time.Time {
	return worldBegin.Add(time.Duration(float64(w.total) / float64(w.n) * float64(i)))
}

func (w *world) execution(i int) string {
	return fmt.Sprintf("run-%012x", mix(uint64(i/docsPerRun), 99)>>16)
}

func (w *world) runner(i int) string {
	return fmt.Sprintf("runner-%04d", draw(uint64(i), ofRunner, worldRunners))
}

func (w *world) rule(i int) string {
	return fmt.Sprintf("rule-%02d", draw(uint64(i), ofRule, worldRules))
}

func isDecision(i int) bool { return i%decisionEvery == decisionEvery-1 }

func isDenied(i int) bool {
	return isDecision(i) && draw(uint64(i), ofDecision, 1000) < deniedPerMille
}

// output is the digest of what document i made; nothing else has it but the next document of
// the execution, as its input.
func (w *world) output(i int) string {
	var b [32]byte
	for k := range 4 {
		binary.BigEndian.PutUint64(b[8*k:], mix(uint64(i), ofDigest+uint64(k)))
	}
	return "sha256:" + hex.EncodeToString(b[:])
}

// missing is a digest that no document has.
func (w *world) missing(i int) string { return w.output(w.n + 1 + i) }

// os alternates over executions' documents, so that each half is dense and they never meet.
func (w *world) os(i int) string { return []string{"linux", "windows"}[i%2] }

func (w *world) document(i int) *provenancev1.Document {
	d := &provenancev1.Document{
		Kind: "receipt", Tenant: w.tenant(i), Time: timestamppb.New(w.time(i)),
		Execution: w.execution(i), Task: fmt.Sprintf("task-%010x", mix(uint64(i), 98)>>24),
		Attributes: map[string]string{"os": w.os(i)},
	}
	if isDecision(i) {
		d.Kind, d.Rule, d.Decision = "decision", w.rule(i), "allow"
		if isDenied(i) {
			d.Decision = "deny"
		}
		d.Digests = []*provenancev1.Digest{{Digest: w.output(i), Direction: "subject"}}
		return d
	}
	d.Runner = w.runner(i)
	d.Pack = fmt.Sprintf("pack-%03d@1.0", draw(uint64(i), ofPack, worldPacks))
	d.DurationMs = uint32(draw(uint64(i), ofDuration, 100_000))
	d.Digests = []*provenancev1.Digest{{Digest: w.output(i), Direction: "output"}}
	return d
}

// jsonBytes is the mean size of a document in JSON.
func (w *world) jsonBytes() (int, error) {
	const sample = 1000
	total := 0
	for k := range sample {
		data, err := protojson.Marshal(w.document(k * max(1, w.n/sample)))
		if err != nil {
			return 0, err
		}
		total += len(data)
	}
	return total / sample, nil
}
