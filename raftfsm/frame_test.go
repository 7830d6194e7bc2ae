package raftfsm

import (
	"bufio"
	"bytes"
	"errors"
	"testing"
	"time"
)

func TestFramesRoundTrip(t *testing.T) {
	req := request{id: 7, kind: kindPropose, group: 3, left: 1500 * time.Millisecond, payload: []byte("command")}
	b, err := readFrame(bufio.NewReader(bytes.NewReader(req.append(nil))))
	if err != nil {
		t.Fatal(err)
	}
	got, err := decodeRequest(b)
	if err != nil || got.id != req.id || got.kind != req.kind || got.group != req.group || got.left != req.left || !bytes.Equal(got.payload, req.payload) {
		t.Fatalf("request %+v came back as %+v, %v", req, got, err)
	}
	resp := response{id: 7, status: statusRepeated, index: 99, payload: []byte("result")}
	b, err = readFrame(bufio.NewReader(bytes.NewReader(resp.append(nil))))
	if err != nil {
		t.Fatal(err)
	}
	back, err := decodeResponse(b)
	if err != nil || back.id != resp.id || back.status != resp.status || back.index != resp.index || !bytes.Equal(back.payload, resp.payload) {
		t.Fatalf("response %+v came back as %+v, %v", resp, back, err)
	}
}

// What a caller can test for, and whether the write may have happened, survive the link.
func TestErrorsTravelOverLinks(t *testing.T) {
	for _, sentinel := range linkErrors {
		if sentinel == nil {
			continue
		}
		for _, o := range []Outcome{OutcomeDefinite, OutcomeUnknown} {
			err := decodeError(errorPayload(&Error{Op: "propose", Group: "a", Outcome: o, Err: sentinel}), "propose", "a", "node-2")
			if !errors.Is(err, sentinel) || OutcomeOf(err) != o {
				t.Errorf("%v with outcome %v came back as %v with %v", sentinel, o, err, OutcomeOf(err))
			}
		}
	}
	other := decodeError(errorPayload(errors.New("something else")), "query", "a", "node-2")
	if other.Error() != "query on group a: node node-2: something else (outcome definite)" {
		t.Errorf("an unknown error came back as %q", other)
	}
}

// A frame longer than the limit is refused before memory is taken for it.
func TestOversizedFrameIsRefused(t *testing.T) {
	if _, err := readFrame(bufio.NewReader(bytes.NewReader([]byte{0xff, 0xff, 0xff, 0xff}))); err == nil {
		t.Fatal("a frame of 4 GiB was accepted")
	}
}

func FuzzFrames(f *testing.F) {
	f.Add(request{id: 1, kind: kindQuery, payload: []byte("q")}.append(nil))
	f.Add(response{id: 1, payload: []byte("a")}.append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		frame, err := readFrame(bufio.NewReader(bytes.NewReader(b)))
		if err != nil || len(frame) > len(b) {
			return
		}
		if r, err := decodeRequest(frame); err == nil && r.id == 0 && len(r.payload) > len(frame) {
			t.Fatal("payload longer than its frame")
		}
		if r, err := decodeResponse(frame); err == nil && r.status == statusError {
			_ = decodeError(r.payload, "op", "group", "peer").Error()
		}
	})
}

func FuzzEntry(f *testing.F) {
	f.Add(EncodeEntry(1, 2, 3, []Command{{Data: []byte("a")}, {Data: []byte("b"), RequestID: RequestID{1}}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		wall, cmds, err := decodeEntry(b)
		if err != nil {
			return
		}
		stamp, _ := entryStamp(b, 1)
		// Lengths may be written in more bytes than needed, so only the meaning is compared.
		again, back, err := decodeEntry(EncodeEntry(1, stamp, wall, cmds))
		if err != nil || again != wall || len(back) != len(cmds) {
			t.Fatalf("decoded, but does not survive encoding: %v", err)
		}
	})
}

func FuzzSnapshotHeader(f *testing.F) {
	f.Add(copyHeader{Index: 9, Term: 2, ConfigIndex: 1, Config: []byte("members"), Files: 3}.encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := readCopyHeader(bytes.NewReader(b))
		if err != nil {
			return
		}
		if !bytes.HasPrefix(b, h.encode()) {
			t.Fatal("a header with the right checksum does not survive encoding")
		}
	})
}

// The bytes of log entries, positions and snapshot headers are on disks: they never change.
func TestGoldenBytes(t *testing.T) {
	entry := EncodeEntry(3, 1_000_000, 1_700_000_000_000_000_000, []Command{{Data: []byte("x")}, {Data: []byte("yz"), RequestID: RequestID{0xaa}}})
	const wantEntry = "\x01\x00\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x00\x00\x0f\x42\x40\x17\x97\x9c\xfe\x36\x2a\x00\x00" +
		"\x02\x00\x01x\x01\xaa\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02yz"
	if string(entry) != wantEntry {
		t.Errorf("entry: %x, want %x", entry, wantEntry)
	}
	pos := encodePosition(Position{Index: 5, Term: 2, Time: 7, ConfigIndex: 1, Config: []byte("c")})
	const wantPos = "\x01\x00\x00\x00\x00\x00\x00\x00\x05\x00\x00\x00\x00\x00\x00\x00\x02\x00\x00\x00\x00\x00\x00\x00\x07\x00\x00\x00\x00\x00\x00\x00\x01c"
	if string(pos) != wantPos {
		t.Errorf("position: %x, want %x", pos, wantPos)
	}
	head := copyHeader{Version: copyVersion, Index: 5, Term: 2, ConfigIndex: 1, Config: []byte("c"), Files: 1}.encode()
	const wantHead = "mcsn\x01\x00\x00\x00\x00\x00\x00\x00\x05\x00\x00\x00\x00\x00\x00\x00\x02\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x01\x00\x00\x00\x01c"
	if string(head[:len(head)-4]) != wantHead {
		t.Errorf("snapshot header: %x, want %x and a checksum", head, wantHead)
	}
}
