package index

import (
	"encoding/hex"
	"reflect"
	"testing"

	"github.com/maestro-conductor/maestro/index/internal/segment"
)

// What is written down of cold segments, and sent between replicas, never changes: docs/FORMAT.md.
func TestFormatOfColdSegments(t *testing.T) {
	row := segmentRow{
		docs: 1 << 20, size: 5*pieceBytes + 9, digest: 0x0102030405060708, generation: 2, object: "r/s/0.segment",
		kept: encodeRuns([]pieceRun{{0, 1}, {3, 6}}),
	}
	for what, c := range map[string]struct {
		got  []byte
		want string
	}{
		"row":     {row.encode(), "030010000000000000000280090102030405060708020d722f732f302e7365676d656e740400010203"},
		"freeze":  {encodeFreeze(300, row), "010501ac0229030010000000000000000280090102030405060708020d722f732f302e7365676d656e740400010203"},
		"forget":  {encodeForget("o"), "010502016f"},
		"abandon": {encodeAbandon("o"), "010503016f"},
		"partial": {(&shardAnswer{missing: "m", bound: 9}).encode(), "0106016d01000900000000"},
	} {
		if got := hex.EncodeToString(c.got); got != c.want {
			t.Errorf("%s: %s, want %s", what, got, c.want)
		}
	}
	if got, err := decodeSegmentRow(row.encode()); err != nil || got != row {
		t.Errorf("%+v, %v", got, err)
	}
	if runs, err := row.runs(); err != nil || !reflect.DeepEqual(runs, []pieceRun{{0, 1}, {3, 6}}) {
		t.Errorf("%v, %v", runs, err)
	}
	for what, bad := range map[string]func(r *segmentRow){
		"more pieces than there are": func(r *segmentRow) { r.kept = encodeRuns([]pieceRun{{0, 7}}) },
		"a run of nothing":           func(r *segmentRow) { r.kept = "\x00\x00" },
		"half a run":                 func(r *segmentRow) { r.kept = "\x00" },
		"no bytes":                   func(r *segmentRow) { r.size = 0 },
		"no documents":               func(r *segmentRow) { r.docs = 0 },
	} {
		r := row
		if bad(&r); decodes(r) {
			t.Errorf("%s is taken", what)
		}
	}
	answer := &shardAnswer{missing: "m", bound: 9, total: 7, rows: [][]byte{[]byte("one")}}
	if got, err := decodeShardAnswer(answer.encode()); err != nil || !reflect.DeepEqual(got, answer) {
		t.Errorf("%+v, %v", got, err)
	}
	spans := []segment.Span{{From: 0, To: 8}, {From: pieceBytes - 1, To: pieceBytes + 1}, {From: 4 * pieceBytes, To: 4 * pieceBytes}, {From: 5 * pieceBytes, To: 5*pieceBytes + 1}}
	if got := runsOf(spans); !reflect.DeepEqual(got, []pieceRun{{0, 2}, {5, 6}}) {
		t.Errorf("runs %v", got)
	}
}

func decodes(r segmentRow) bool {
	_, err := decodeSegmentRow(r.encode())
	return err == nil
}
