package index

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
)

// A command is a batch of encoded documents; its result says what became of each. Both begin
// with a version and end up in the Raft log or beside it: see DESIGN.md, "Formats".
const (
	commandVersion = 1
	commandIngest  = 1
	commandLayout  = 2
	commandMove    = 3
	resultVersion  = 1
	// commandRetention is followed by an operation of dispose.go; from layoutRetention on.
	commandRetention = 4
	// commandCold is followed by an operation of freeze.go; from raftfsm.LevelCold on.
	commandCold = 5
)

// outcome is what became of a document.
type outcome byte

const (
	outcomeIndexed outcome = iota
	outcomeExisting
	outcomeConflict
	outcomeMalformed
	outcomeCount
)

var (
	errCommand        = errors.New("index: malformed command")
	errCommandVersion = errors.New("index: a newer build made this command")
)

// commandHeader begins an ingest command; documents follow until its end.
func commandHeader() []byte { return []byte{commandVersion, commandIngest} }

// appendCommandDocument adds an encoded document.
func appendCommandDocument(b, doc []byte) []byte {
	return append(binary.AppendUvarint(b, uint64(len(doc))), doc...)
}

// decodeCommand returns the encoded documents, which alias b. The error is errCommand or
// errCommandVersion.
func decodeCommand(b []byte) ([][]byte, error) {
	if len(b) < 2 {
		return nil, errCommand
	}
	if b[0] != commandVersion || b[1] != commandIngest {
		return nil, fmt.Errorf("%w: version %d, operation %d", errCommandVersion, b[0], b[1])
	}
	var docs [][]byte
	for b = b[2:]; len(b) > 0; {
		n, w := binary.Uvarint(b)
		if w <= 0 || n > uint64(len(b)-w) {
			return nil, errCommand
		}
		docs = append(docs, b[w:w+int(n)])
		b = b[w+int(n):]
	}
	return docs, nil
}

// resultRefused answers a command that cannot be read.
var resultRefused = []byte{0}

// encodeResult writes runs of equal outcomes: a whole batch is most often one.
func encodeResult(outcomes []outcome) []byte {
	b := []byte{resultVersion}
	for i := 0; i < len(outcomes); {
		n := i + 1
		for n < len(outcomes) && outcomes[n] == outcomes[i] {
			n++
		}
		b = binary.AppendUvarint(append(b, byte(outcomes[i])), uint64(n-i))
		i = n
	}
	return b
}

// decodeResult reads the outcomes of a batch of count documents.
func decodeResult(b []byte, count int) ([]outcome, error) {
	if bytes.Equal(b, resultRefused) {
		return nil, errCommand
	}
	if len(b) == 0 || b[0] != resultVersion {
		return nil, fmt.Errorf("%w: unknown version of a result", errWire)
	}
	outcomes := make([]outcome, 0, count)
	for b = b[1:]; len(b) > 0; {
		n, w := binary.Uvarint(b[1:])
		if w <= 0 || b[0] >= byte(outcomeCount) || n == 0 || n > uint64(count-len(outcomes)) {
			return nil, errWire
		}
		for range n {
			outcomes = append(outcomes, outcome(b[0]))
		}
		b = b[1+w:]
	}
	if len(outcomes) != count {
		return nil, errWire
	}
	return outcomes, nil
}
