package meta

import (
	"bytes"
	"context"
	"errors"
	"testing"

	"github.com/maestro-conductor/maestro/raftfsm"
	"github.com/maestro-conductor/maestro/raftfsm/fsmtest"
)

// A command that decodes is exactly what the encoder writes, and no bytes at all make the
// machine fail, now or when it is loaded again.
func FuzzCommand(f *testing.F) {
	f.Add(encodeChange(change{table: tableLimits, actor: "*", origin: "us-west", steps: []step{
		{kind: kindPut, key: "a", owner: "acme", value: encodeLimit(limit("a", "acme", 3))},
		{kind: kindDelete, key: "b"},
	}}))
	f.Add(encodeChange(change{table: tableTokens, actor: "*", steps: []step{
		{kind: kindCreate, key: "0123456789abcdef", owner: "acme", value: encodeToken(token{role: "admin", created: 1, description: "d"})},
	}}))
	f.Add(encodeChange(change{table: tableSettings, actor: "*", steps: []step{
		{kind: kindKeep, key: settingCluster, owner: "*", value: encodeCluster(Settings{"c1", "us-west"})},
		{kind: kindKeep, key: settingCursorKey, owner: "*", value: make([]byte, cursorKeyBytes)},
	}}))
	f.Add(encodeChange(change{table: tableNodes, actor: "*", expect: 4, steps: []step{
		{kind: kindPut, key: "a.1", owner: "*", value: encodeNode(member("a.1"))},
	}}))
	f.Add(encodeChange(change{table: tablePlacement, actor: "*", steps: []step{
		{kind: kindPut, key: "meta", owner: "*", value: encodePlacement(Placement{Voters: []string{"a.1", "b.1.2"}, Generation: 2})},
	}}))
	f.Add(encodeFeedQuery(tableNodes, position{version: 1, key: "a.1"}))
	f.Add(encodeFeedQuery(tableLimits, position{version: 300, key: "a"}))
	f.Add(encodeChange(change{table: tableLimits, actor: "*", steps: []step{
		{kind: kindPut, key: assignmentKey("acme"), owner: "*", value: encodeAssignment("gold")},
		{kind: kindDelete, key: assignmentKey("globex")},
	}}))
	f.Add(encodeRangeQuery(tableLimits, "a", "b"))
	f.Add(encodeRecordQuery(tableTokens, "0123456789abcdef"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := decodeChange(data)
		if err == nil && !bytes.Equal(encodeChange(c), data) {
			t.Fatalf("%x decodes to %+v, which encodes to %x", data, c, encodeChange(c))
		}
		if errors.Is(err, errNewer) {
			return // the machine stops there
		}
		d := fsmtest.New(t, func() raftfsm.Machine { return NewMachine() })
		if _, err := decodeResult(d.Apply(data)[0]); err != nil {
			t.Fatalf("result: %v", err)
		}
		d.Restart()
		if a, err := d.Machine().Query(context.Background(), data); err == nil {
			if data[1] == opRecord {
				_, _, err = decodeRecordAnswer("k", a)
			} else {
				_, err = decodePage(a)
			}
			if err != nil {
				t.Fatalf("answer: %v", err)
			}
		} else if !errors.Is(err, errCodec) {
			t.Fatalf("query: %v", err)
		}
	})
}

func FuzzRows(f *testing.F) {
	f.Add(appendRecord(nil, record{value: []byte("v"), owner: "acme", origin: "us-west", version: 3, tableVersion: 400, stamp: timestamp{5, 6}, sealed: true}))
	f.Add(encodePage(page{last: true, counters: counters{1, 2, 3, 4, 0}, records: []record{{key: "a", version: 1}}}))
	f.Fuzz(func(t *testing.T, data []byte) {
		if r, err := decodeRecord("k", data); err == nil && !bytes.Equal(appendRecord(nil, r), data) {
			t.Fatalf("record %x does not survive", data)
		}
		if p, err := decodePage(data); err == nil && !bytes.Equal(encodePage(p), data) {
			t.Fatalf("page %x does not survive", data)
		}
		decodeClock(data)
		if c, err := decodeCounters(data); err == nil && !bytes.Equal(encodeCounters(c), data) {
			t.Fatalf("counters %x do not survive", data)
		}
		decodeCluster(data)
		decodeToken(record{value: data})
		decodeLimit("a", data)
		decodeAssignment("~plan/a", data)
		if n, err := decodeNode(record{key: "a.1", value: data}); err == nil && !bytes.Equal(encodeNode(n), data) {
			t.Fatalf("node %x does not survive", data)
		}
		if p, err := decodePlacement("g", data); err == nil && !bytes.Equal(encodePlacement(p), data) {
			t.Fatalf("placement %x does not survive", data)
		}
	})
}

// What was written stays readable: these bytes are on people's disks and in their logs.
func TestBytesStayTheSame(t *testing.T) {
	for name, pair := range map[string][2]string{
		"change":         {string(encodeChange(change{table: tableTokens, actor: "*", origin: "eu", steps: []step{{kind: kindSeal, key: "a"}, {kind: kindPut, key: "b", owner: "acme", value: []byte("v")}}})), "\x01\x01\x02\x01*\x02eu\x02\x05\x01a\x00\x00\x01\x01b\x04acme\x01v"},
		"record":         {string(appendRecord(nil, record{value: []byte("v"), owner: "acme", origin: "eu", version: 3, tableVersion: 300, stamp: timestamp{5, 6}, sealed: true})), "\x01\x02\x03\xac\x02\x05\x06\x04acme\x02eu\x01v"},
		"counters":       {string(encodeCounters(counters{1, 2, 3, 4, 0})), "\x01\x01\x02\x03\x04"},
		"counters apart": {string(encodeCounters(counters{1, 9, 3, 4, 8})), "\x02\x01\x09\x03\x04\x08"},
		"assignment":     {string(encodeChange(change{table: tableLimits, actor: "*", origin: "eu", steps: []step{{kind: kindPut, key: assignmentKey("acme"), owner: "*", value: encodeAssignment("gold")}, {kind: kindDelete, key: assignmentKey("b")}}})), "\x04\x01\x01\x01*\x02eu\x02\x01\x0a~plan/acme\x01*\x06\x01\x04gold\x04\x07~plan/b\x00\x00"},
		"range":          {string(encodeRangeQuery(tableLimits, "a", "~plan/")), "\x04\x04\x01\x01a\x06~plan/"},
		"clock":          {string(encodeClock(timestamp{128, 1})), "\x01\x80\x01\x01"},
		"limit":          {string(encodeLimit(limit("a", "acme/x", 3))), "\x01\x03key\x06acme/x\x0410/s\x03"},
		"token":          {string(encodeToken(token{role: "admin", created: 1, expires: 2, description: "d"})), "\x01\x05admin\x01\x02" + string(make([]byte, 32)) + "\x01d"},
		"cluster":        {string(encodeCluster(Settings{"c1", "eu"})), "\x01\x02c1\x02eu"},
		"members": {
			string(encodeChange(change{table: tableNodes, actor: "*", origin: "eu", expect: 4, steps: []step{{kind: kindSeal, key: "a.1"}}})),
			"\x02\x01\x04\x01*\x02eu\x04\x01\x05\x03a.1\x00\x00",
		},
		"node": {
			string(encodeNode(Node{ID: "a.1", Name: "a", Cluster: "h:1", API: "h:2", State: NodeLeaving, Successor: "b.1"})),
			"\x01\x01a\x03h:1\x03h:2\x02\x03b.1",
		},
		"placement": {string(encodePlacement(Placement{Voters: []string{"a.1", "b.1.2"}, Generation: 2})), "\x01\x02\x02\x03a.1\x05b.1.2"},
		"index":     {string(changeKey(spaceChange, tableLimits, 2, "a")), "c\x01\x00\x00\x00\x02a"},
	} {
		if pair[0] != pair[1] {
			t.Errorf("%s is now %q, was %q", name, pair[0], pair[1])
		}
	}
}
