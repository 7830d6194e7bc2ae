package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"
)

// Outcomes of an operation, as far as its client knows.
const (
	outcomeOK      = "ok"      // answered: it took effect between invocation and completion
	outcomeFailed  = "failed"  // certainly took no effect
	outcomeUnknown = "unknown" // may have taken effect, or may still do so
)

// Phases of a run.
const (
	phaseFaults = "faults" // traffic while the nemesis is at work
	phaseHealed = "healed" // traffic after every node is up again
	phaseFinal  = "final"  // the last reads, after all traffic has ended
)

// Header is the first line of a history: all that a checker must know beside what happened.
type Header struct {
	Seed       uint64        `json:"seed"`
	DurationNs time.Duration `json:"duration_ns"`
	Kills      int           `json:"kills,omitempty"` // that were asked for beside the mix
	Binary     string        `json:"binary"`
	Upgrade    bool          `json:"upgrade,omitempty"` // the nodes started as another build
	Limits     []LimitModel  `json:"limits"`
}

// Op is one operation as its client saw it. Times are nanoseconds of one monotonic clock
// since the start of the run. Exactly one of the pointers is set.
type Op struct {
	Worker    string `json:"worker"`
	Phase     string `json:"phase"`
	Invoked   int64  `json:"invoked_ns"`
	Completed int64  `json:"completed_ns"`
	Outcome   string `json:"outcome"`
	Error     string `json:"error,omitempty"`

	Check  *CheckOp  `json:"check,omitempty"`
	Ingest *IngestOp `json:"ingest,omitempty"`
	Search *SearchOp `json:"search,omitempty"`
	Write  *WriteOp  `json:"write,omitempty"`
	Read   *ReadOp   `json:"read,omitempty"`
}

// CheckOp is Limiter/Check.
type CheckOp struct {
	Tenant  string `json:"tenant"`
	Token   string `json:"token,omitempty"`
	Key     string `json:"key,omitempty"`
	Cost    uint32 `json:"cost"`
	Allowed bool   `json:"allowed"`
}

// Modes of an IngestOp.
const (
	ingestNew      = "new"      // documents that were never sent before
	ingestRepeat   = "repeat"   // documents that are acknowledged already
	ingestConflict = "conflict" // acknowledged ids with other content
)

// IngestOp is Provenance/Ingest of documents of one execution.
type IngestOp struct {
	Mode      string   `json:"mode"`
	Execution string   `json:"execution"`
	IDs       []string `json:"ids"`
	Indexed   int      `json:"indexed"`
	Existing  int      `json:"existing"`
	Refused   int      `json:"refused"`
}

// SearchOp is Provenance/Search for one id or for all documents of one execution.
type SearchOp struct {
	ID        string  `json:"id,omitempty"`
	Execution string  `json:"execution,omitempty"`
	Complete  bool    `json:"complete"`
	Total     int     `json:"total"`
	Found     []Found `json:"found"`
}

// Found is a document in an answer.
type Found struct {
	ID      string `json:"id"`
	Content string `json:"content"`
}

// WriteOp is SetLimits of one register: a limit that nothing is checked against, whose burst
// is the value. A register has one writer, which never writes a value twice.
type WriteOp struct {
	Register string `json:"register"`
	Value    uint32 `json:"value"`
}

// ReadOp is ListLimits of one register; Value is 0 when it is not there.
type ReadOp struct {
	Register string `json:"register"`
	Value    uint32 `json:"value"`
}

// Fault is one thing the nemesis did, or one storm. It lasts until the region was whole again.
type Fault struct {
	Kind      string `json:"kind"`
	Node      string `json:"node"`
	Group     string `json:"group,omitempty"` // whose leader it was, when it was chosen for that
	Kills     int    `json:"kills,omitempty"` // of a storm
	Started   int64  `json:"started_ns"`
	Ended     int64  `json:"ended_ns"`
	Recovered bool   `json:"recovered"`
	Error     string `json:"error,omitempty"`
}

// Probe is a demand on the healed region that was met or not.
type Probe struct {
	Name   string `json:"name"`
	TookNs int64  `json:"took_ns"`
	Error  string `json:"error,omitempty"`
}

// line is one line of the file; exactly one field is set.
type line struct {
	Header *Header `json:"header,omitempty"`
	Op     *Op     `json:"op,omitempty"`
	Fault  *Fault  `json:"fault,omitempty"`
	Probe  *Probe  `json:"probe,omitempty"`
}

// History is everything the checkers judge.
type History struct {
	Header Header
	Ops    []Op
	Faults []Fault
	Probes []Probe
}

func (h *History) add(l line) {
	switch {
	case l.Header != nil:
		h.Header = *l.Header
	case l.Op != nil:
		h.Ops = append(h.Ops, *l.Op)
	case l.Fault != nil:
		h.Faults = append(h.Faults, *l.Fault)
	case l.Probe != nil:
		h.Probes = append(h.Probes, *l.Probe)
	}
}

// Recorder keeps the history of a running test, in memory and in a file of JSON lines.
type Recorder struct {
	start time.Time

	mu      sync.Mutex
	history History
	file    *os.File
	out     *bufio.Writer
	failed  error
	phase   string
}

func newRecorder(path string, h Header) (*Recorder, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("history: %w", err)
	}
	r := &Recorder{start: time.Now(), file: f, out: bufio.NewWriter(f), phase: phaseFaults}
	r.write(line{Header: &h})
	return r, nil
}

// now is the time of the run.
func (r *Recorder) now() int64 { return int64(time.Since(r.start)) }

func (r *Recorder) setPhase(phase string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.phase = phase
}

// begin notes the invocation of an operation.
func (r *Recorder) begin(worker string) Op {
	r.mu.Lock()
	defer r.mu.Unlock()
	return Op{Worker: worker, Phase: r.phase, Invoked: r.now()}
}

// end notes the completion of op with what err says about its outcome.
func (r *Recorder) end(op Op, err error) {
	op.Completed = r.now()
	op.Outcome = outcomeOf(err)
	if err != nil {
		op.Error = err.Error()
	}
	r.write(line{Op: &op})
}

func (r *Recorder) fault(f Fault) { r.write(line{Fault: &f}) }

func (r *Recorder) probe(p Probe) { r.write(line{Probe: &p}) }

func (r *Recorder) write(l line) {
	data, err := json.Marshal(l)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.history.add(l)
	if err == nil {
		_, err = r.out.Write(append(data, '\n'))
	}
	if r.failed == nil {
		r.failed = err
	}
}

// close ends the file and returns the history. A history that is not all on disk is an error:
// nobody could look at it again.
func (r *Recorder) close() (*History, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	err := errors.Join(r.failed, r.out.Flush(), r.file.Close())
	if err != nil {
		return nil, fmt.Errorf("history: %w", err)
	}
	return &r.history, nil
}

// readHistory reads a file that a Recorder wrote.
func readHistory(path string) (*History, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("history: %w", err)
	}
	defer f.Close()
	var h History
	dec := json.NewDecoder(bufio.NewReader(f))
	dec.DisallowUnknownFields()
	for n := 1; ; n++ {
		var l line
		switch err := dec.Decode(&l); {
		case errors.Is(err, io.EOF):
			return &h, nil
		case err != nil:
			return nil, fmt.Errorf("history: %s, record %d: %w", path, n, err)
		}
		h.add(l)
	}
}
