package raftfsm

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"
)

// Links carry requests and answers as frames; docs/FORMAT.md has the bytes.

// FrameBytesMax bounds one frame, and with it the answer of one query.
const FrameBytesMax = 64 << 20

// Kinds of requests on a link.
const (
	kindPropose byte = 1
	kindQuery   byte = 2
	kindTerms   byte = 3
	kindPulse   byte = 4
	// Those of level 2.
	kindReplicaTerms byte = 5
	kindDescribe     byte = 6
	kindTransfer     byte = 7
	kindBounded      byte = 8
	// Those of level 3.
	kindRestore byte = 9
	kindBackup  byte = 10
	// Those of level 4.
	kindTell byte = 11
	// Those of level 7.
	kindStandings byte = 12
)

// Statuses of an answer. The errors travel as codes, so that the caller can test for them.
const (
	statusOK       byte = 0
	statusRepeated byte = 1
	statusError    byte = 2
)

var linkErrors = []error{
	1: ErrNoLeader,
	2: ErrOverloaded,
	3: ErrTooLarge,
	4: ErrRequestReused,
	5: ErrUnknownGroup,
	6: ErrLost,
	7: ErrShutdown,
	8: context.DeadlineExceeded,
	9: context.Canceled,
	// Builds of level 1 show this one as its text.
	10: ErrDiskFull,
	11: ErrNotVoter,
	12: ErrRestoring,
	13: ErrBackupGone,
}

const requestHeader = 8 + 1 + 4 + 4 // id, kind, group, time left

// request is one frame from a link's client.
type request struct {
	id    uint64
	kind  byte
	group GroupID
	// left is how long the caller waits, in whole milliseconds on the wire.
	left    time.Duration
	payload []byte
}

// response is one frame from a link's server.
type response struct {
	id      uint64
	status  byte
	index   uint64
	payload []byte
}

const responseHeader = 8 + 1 + 8

func (r request) append(b []byte) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(requestHeader+len(r.payload)))
	b = binary.BigEndian.AppendUint64(b, r.id)
	b = append(b, r.kind)
	b = binary.BigEndian.AppendUint32(b, uint32(r.group))
	b = binary.BigEndian.AppendUint32(b, uint32(min(max(0, r.left.Milliseconds()), 1<<31)))
	return append(b, r.payload...)
}

func (r response) append(b []byte) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(responseHeader+len(r.payload)))
	b = binary.BigEndian.AppendUint64(b, r.id)
	b = append(b, r.status)
	b = binary.BigEndian.AppendUint64(b, r.index)
	return append(b, r.payload...)
}

func decodeRequest(b []byte) (request, error) {
	if len(b) < requestHeader {
		return request{}, errors.New("raftfsm: short request frame")
	}
	return request{
		id:      binary.BigEndian.Uint64(b),
		kind:    b[8],
		group:   GroupID(binary.BigEndian.Uint32(b[9:])),
		left:    time.Duration(binary.BigEndian.Uint32(b[13:])) * time.Millisecond,
		payload: b[requestHeader:],
	}, nil
}

func decodeResponse(b []byte) (response, error) {
	if len(b) < responseHeader {
		return response{}, errors.New("raftfsm: short response frame")
	}
	return response{
		id:      binary.BigEndian.Uint64(b),
		status:  b[8],
		index:   binary.BigEndian.Uint64(b[9:]),
		payload: b[responseHeader:],
	}, nil
}

// errorPayload is the answer to a request that failed: code, outcome and text.
func errorPayload(err error) []byte {
	code := byte(0)
	for c, sentinel := range linkErrors {
		if sentinel != nil && errors.Is(err, sentinel) {
			code = byte(c)
		}
	}
	return append([]byte{code, byte(OutcomeOf(err))}, err.Error()...)
}

func decodeError(payload []byte, op, group, peer string) error {
	if len(payload) < 2 {
		return &Error{Op: op, Group: group, Outcome: OutcomeUnknown, Err: ErrLost}
	}
	e := &Error{Op: op, Group: group, Outcome: Outcome(payload[1])}
	if c := int(payload[0]); c > 0 && c < len(linkErrors) {
		e.Err = linkErrors[c]
	} else {
		e.Err = fmt.Errorf("node %s: %s", peer, payload[2:])
	}
	return e
}

// readFrame reads one length-prefixed frame.
func readFrame(r *bufio.Reader) ([]byte, error) {
	var n [4]byte
	if _, err := io.ReadFull(r, n[:]); err != nil {
		return nil, err
	}
	size := binary.BigEndian.Uint32(n[:])
	if size > FrameBytesMax {
		return nil, fmt.Errorf("raftfsm: frame of %d bytes, at most %d", size, FrameBytesMax)
	}
	b := make([]byte, size)
	_, err := io.ReadFull(r, b)
	return b, err
}
