// Package corpus makes the documents, the queries and the right answers of `make bench-index`.
//
// A document is a pure function of its number, so that millions need not be kept: the answers
// are found by looking at every document once, newest first, with code that shares nothing with
// the index. The first n documents of a corpus are those of every larger one.
package corpus

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math"
	"sort"
	"strconv"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	provenancev1 "github.com/maestro-conductor/maestro/api/gen/mc/provenance/v1"
)

// Shape of the corpus. Four documents make an execution: a receipt and a decision about it, and a
// second receipt and an event about it; each pair is a task.
const (
	PerExecution = 4
	Tenants      = 1000
	zipf         = 1.1
	rules        = 40
	packs        = 2000
	runners      = 4096
	zones        = 4
	denied       = 100 // of a thousand decisions
	second       = 600 // of a thousand second receipts have an output
	hubEvery     = 64  // of so many executions, one makes what many others take
	hubShare     = 250 // of a thousand executions take it
	reach        = 4096
	// Step lies between two documents: ten million are of 90 days.
	Step = 777_600 * time.Microsecond
	// Documents are up to jitter early or late; late of a thousand are up to lateMost late.
	jitter   = 30 * time.Second
	late     = 20
	lateMost = 7 * 24 * time.Hour
	// Most documents a corpus can have.
	Most = 1 << 26
)

var begin = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).UnixMilli()

// Kinds of documents.
const (
	Receipt = iota
	Event
	Decision
)

var kinds = [...]string{"receipt", "event", "decision"}

// None stands for a field that a document does not have.
const None = -1

// Doc is a document in numbers.
type Doc struct {
	N         int
	Time      int64 // milliseconds since 1970
	Kind      int
	Tenant    int
	Execution int
	Task      int
	Pack      int
	Rule      int
	Deny      bool // of a decision
	Runner    int
	Zone      int
	// Input, Output and Subject are numbers of artifacts.
	Input, Output, Subject int
	CostMicros             int64 // 0 for none
	DurationMs             uint32
}

// Corpus is safe for concurrent use.
type Corpus struct{ share []float64 }

// New makes a corpus.
func New() *Corpus {
	c := &Corpus{}
	sum := 0.0
	for k := range Tenants {
		sum += 1 / math.Pow(float64(k+1), zipf)
		c.share = append(c.share, sum)
	}
	for i := range c.share {
		c.share[i] /= sum
	}
	return c
}

// mix is the finaliser of SplitMix64 (Steele, Lea, Flood 2014). For one what, no two numbers give
// the same.
func mix(n int, what uint64) uint64 {
	x := uint64(n)*0x9E3779B97F4A7C15 + what*0xD1B54A32D192ED03 + 1
	x = (x ^ x>>30) * 0xBF58476D1CE4E5B9
	x = (x ^ x>>27) * 0x94D049BB133111EB
	return x ^ x>>31
}

func draw(n int, what uint64, of int) int { return int(mix(n, what) % uint64(of)) }

// Things that are drawn.
const (
	ofID = iota
	ofTenant
	ofExecution
	ofTask
	ofPack
	ofRule
	ofDecision
	ofRunner
	ofZone
	ofCost
	ofDuration
	ofJitter
	ofLate
	ofLateness
	ofSecond
	ofHub
	ofParent
	ofParentOutput
	ofDigest // and the three after it
)

// Doc is document n.
func (c *Corpus) Doc(n int) Doc {
	e, place := n/PerExecution, n%PerExecution
	d := Doc{
		N: n, Time: c.time(n), Tenant: c.tenant(e), Execution: e, Task: 2*e + place/2,
		Pack: None, Rule: None, Runner: None, Zone: None, Input: None, Output: None, Subject: None,
	}
	switch place {
	case 0:
		d.Kind, d.Pack, d.Runner = Receipt, draw(n, ofPack, packs), draw(n, ofRunner, runners)
		d.Input, d.Output = c.parent(e), 2*e
		d.CostMicros, d.DurationMs = int64(1+draw(n, ofCost, 50_000)), uint32(draw(n, ofDuration, 100_000))
	case 1:
		d.Kind, d.Rule, d.Zone, d.Subject = Decision, draw(n, ofRule, rules), draw(n, ofZone, zones), 2*e
		d.Deny = draw(n, ofDecision, 1000) < denied
	case 2:
		d.Kind, d.Pack, d.Runner, d.Input = Receipt, draw(n, ofPack, packs), draw(n, ofRunner, runners), 2*e
		if c.hasSecond(e) {
			d.Output = 2*e + 1
		}
		d.DurationMs = uint32(draw(n, ofDuration, 100_000))
	default:
		d.Kind, d.Zone = Event, draw(n, ofZone, zones)
	}
	return d
}

func (c *Corpus) time(n int) int64 {
	t := begin + int64(time.Duration(n)*Step/time.Millisecond) + int64(draw(n, ofJitter, int(2*jitter/time.Millisecond))) - int64(jitter/time.Millisecond)
	if draw(n, ofLate, 1000) < late {
		t -= int64(draw(n, ofLateness, int(lateMost/time.Millisecond)))
	}
	return t
}

func (c *Corpus) tenant(execution int) int {
	return sort.SearchFloat64s(c.share, float64(mix(execution, ofTenant)>>11)/(1<<53))
}

func (c *Corpus) hasSecond(execution int) bool { return draw(execution, ofSecond, 1000) < second }

// parent is the artifact of an earlier execution that an execution takes.
func (c *Corpus) parent(e int) int {
	if e == 0 {
		return None
	}
	if draw(e, ofHub, 1000) < hubShare && e >= hubEvery {
		return 2 * (e - e%hubEvery - hubEvery)
	}
	from := e - 1 - draw(e, ofParent, min(reach, e))
	if c.hasSecond(from) && draw(e, ofParentOutput, 2) == 0 {
		return 2*from + 1
	}
	return 2 * from
}

// ID is the id of document n; ids sort as their numbers do.
func ID(n int) uint64 { return mix(n, ofID) }

// Hex is how a number of 64 bits is written in ids, executions and tasks.
func Hex(x uint64) string {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], x)
	return hex.EncodeToString(b[:])
}

// Digest is the digest of an artifact.
func Digest(artifact int) string {
	var b [32]byte
	for k := range 4 {
		binary.BigEndian.PutUint64(b[8*k:], mix(artifact, ofDigest+uint64(k)))
	}
	return "sha256:" + hex.EncodeToString(b[:])
}

// prefixOf is the first 8 hex characters of a digest, as a number.
func prefixOf(artifact int) int { return int(mix(artifact, ofDigest) >> 32) }

// The names of numbered things.
func tenantName(n int) string { return fmt.Sprintf("t-%04d", n) }
func packName(n int) string   { return fmt.Sprintf("pack-%04d@1.%d", n, n%7) }
func ruleName(n int) string   { return fmt.Sprintf("rule-%02d", n) }
func runnerName(n int) string { return fmt.Sprintf("runner-%04d", n) }
func zoneName(n int) string   { return "zone-" + strconv.Itoa(n) }
func decisionName(deny bool) string {
	if deny {
		return "deny"
	}
	return "allow"
}

// Proto is a document as clients send it.
func (d *Doc) Proto() *provenancev1.Document {
	p := &provenancev1.Document{
		Id: Hex(ID(d.N)), Kind: kinds[d.Kind], Tenant: tenantName(d.Tenant), Time: timestamppb.New(time.UnixMilli(d.Time)),
		Execution: Hex(mix(d.Execution, ofExecution)), Task: Hex(mix(d.Task, ofTask)), DurationMs: d.DurationMs,
	}
	if d.Pack != None {
		p.Pack = packName(d.Pack)
	}
	if d.Runner != None {
		p.Runner = runnerName(d.Runner)
	}
	if d.Rule != None {
		p.Rule, p.Decision = ruleName(d.Rule), decisionName(d.Deny)
		if d.Deny {
			p.Reason = "over the budget of " + p.Rule
		}
	}
	if d.Zone != None {
		p.Attributes = map[string]string{"zone": zoneName(d.Zone)}
	}
	if d.CostMicros != 0 {
		p.Cost = &provenancev1.Cost{MicroUnits: d.CostMicros, Currency: "EUR"}
	}
	for _, g := range []struct {
		artifact  int
		direction string
	}{{d.Input, "input"}, {d.Output, "output"}, {d.Subject, "subject"}} {
		if g.artifact != None {
			p.Digests = append(p.Digests, &provenancev1.Digest{Digest: Digest(g.artifact), Direction: g.direction})
		}
	}
	return p
}

// Entropy is what no index can do without, in bytes a document: random digests, and random ids of
// documents, executions and tasks, each once.
func (c *Corpus) Entropy(n int) (digests, ids float64) {
	fresh := 0
	executions := (n + PerExecution - 1) / PerExecution
	for e := range executions {
		if fresh++; c.hasSecond(e) {
			fresh++
		}
	}
	return 32 * float64(fresh) / float64(n), 8 + 8*float64(executions)/float64(n) + 8*2*float64(executions)/float64(n)
}
