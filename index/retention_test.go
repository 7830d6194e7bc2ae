package index

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/maestro-conductor/maestro/raftfsm/fsmtest"
)

// Whatever the rules, and whatever happens to replicas meanwhile: nothing goes before its age, all goes soon
// after it, the records tell all of it, and the replicas stay equal.
func TestRetentionKeepsAndDisposes(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		k := newKept(t, rt, 2, 4)
		third := fsmtest.New(t, testMachine(4))
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(rt, "seed"), 1))
		disturb := func() {
			switch rng.IntN(12) {
			case 0:
				k.replicas[1].Restart()
			case 1:
				k.replicas[1].LosePower(rng)
			case 2:
				k.replicas[1].Sync()
			case 3:
				third.Install(k.replicas[0])
			}
		}
		k.between = disturb
		k.lead() // to the layout that knows arrivals
		for n := range rapid.IntRange(1, 40).Draw(rt, "steps") {
			switch rapid.IntRange(0, 9).Draw(rt, "what") {
			case 0:
				k.policy.Version++
				k.policy.Rules = nil
				seen := map[string]bool{}
				for range rapid.IntRange(0, 4).Draw(rt, "rules") {
					if r := genRule(rt); !seen[r.Name()] {
						seen[r.Name()], k.policy.Rules = true, append(k.policy.Rules, r)
					}
				}
				if rapid.IntRange(0, 4).Draw(rt, "hold") == 0 {
					k.policy.Rules = append(k.policy.Rules, RetentionRule{Tenant: "acme", Hold: true})
				}
			case 1, 2:
				k.pass(rapid.SampledFrom([]time.Duration{time.Second, 40 * time.Second, 5 * time.Minute, time.Hour}).Draw(rt, "pass"))
			case 3, 4:
				k.lead()
				k.retain()
				k.lead()
				k.check()
				k.sameState()
			case 5:
				k.replicas[0].Restart()
			default:
				var docs []Document
				for i := range rapid.IntRange(1, 6).Draw(rt, "documents") {
					docs = append(docs, normal(t, Document{
						ID: fmt.Sprint(n, "-", i), Tenant: rapid.SampledFrom([]string{"acme", "beta", "gamma"}).Draw(rt, "of"),
						Kind: rapid.SampledFrom(RetentionKinds).Draw(rt, "kind"), Time: rapid.Int64Range(0, 50).Draw(rt, "time"), Task: "build",
						Digests: []Digest{sha(byte(n), DirectionOutput)},
					}))
				}
				for len(docs) > 0 {
					n := rapid.IntRange(1, len(docs)).Draw(rt, "of a command")
					k.store(docs[:n]...)
					docs = docs[n:]
				}
			}
			disturb()
		}
		k.lead()
		k.retain()
		k.check()
		third.Install(k.replicas[0])
		k.replicas = append(k.replicas, third)
		k.sameState()
		k.check()
		for _, d := range k.replicas {
			d.Restart()
		}
		k.check()
		if n := k.leader().differing.Load(); n > 0 {
			rt.Fatalf("%d segments are not the leader's", n)
		}
	})
}

// filled is a shard with documents of two tenants in merged and single segments and in the head.
func filled(t *testing.T, replicas int) *kept {
	k := newKept(t, t, replicas, 8)
	k.lead()
	for n := range 77 {
		k.store(normal(t, Document{ID: fmt.Sprint(n), Tenant: []string{"acme", "beta", "beta"}[n%3], Time: int64(n % 20), Task: "build"}))
		k.pass(time.Second)
		k.lead()
	}
	return k
}

// A segment of which nothing is left goes whole; ids are free again, numbers are not, and all other
// documents stay as they are, whatever is done with the shard afterwards.
func TestRetentionDropsWholeSegments(t *testing.T) {
	k := filled(t, 2)
	k.policy = RetentionPolicy{Version: 1, Rules: []RetentionRule{{Age: time.Minute}}}
	k.pass(time.Hour)
	k.lead()
	k.retain()
	k.check()
	if n := len(k.query("NOT kind:disposition")); n != 0 {
		t.Fatalf("%d documents are left", n)
	}
	d := k.replicas[0]
	if pieces := rowsOf(t, d, tablePiece); pieces != 0 {
		t.Errorf("%d pieces of segments are left", pieces)
	}
	same, other := normal(t, Document{ID: "1", Tenant: "beta", Time: 1, Task: "build"}), normal(t, Document{ID: "2", Tenant: "beta"})
	if got := outcomes(t, k.apply(command(same, other)), 2); !slices.Equal(got, []outcome{outcomeIndexed, outcomeIndexed}) {
		t.Errorf("sent again: %v", got)
	}
	for n := range 40 { // over the ends of heads and of merged segments
		k.apply(command(normal(t, Document{ID: fmt.Sprint("later", n), Tenant: "acme", Time: int64(n)})))
		k.lead()
	}
	for range 2 {
		if n := len(k.query("NOT kind:disposition")); n != 42 {
			t.Errorf("%d documents are found, want 42", n)
		}
		k.sameState()
		for _, d := range k.replicas {
			d.Restart()
		}
	}
}

// Of a segment with documents that are kept the others go, and of later ones more.
func TestRetentionRewritesSegments(t *testing.T) {
	k := filled(t, 2)
	k.policy = RetentionPolicy{Version: 1, Rules: []RetentionRule{{Tenant: "acme", Age: time.Minute}, {Tenant: "beta", Age: 2 * time.Hour}}}
	k.pass(time.Hour)
	k.retain()
	k.lead()
	k.check()
	if n, m := len(k.query("tenant:acme NOT kind:disposition")), len(k.query("tenant:beta NOT kind:disposition")); n != 0 || m != 51 {
		t.Errorf("acme has %d documents, beta %d; want 0 and 51", n, m)
	}
	if got := outcomes(t, k.apply(command(normal(t, Document{ID: "1", Tenant: "beta", Time: 1, Task: "build"}))), 1); got[0] != outcomeExisting {
		t.Errorf("a document that is kept: %v", got)
	}
	k.pass(2 * time.Hour)
	k.retain()
	k.check()
	k.sameState()
	if n := len(k.query("NOT kind:disposition")); n != 0 {
		t.Errorf("%d documents are left", n)
	}
}

// Wall clocks decide nothing: a leader whose clock is years ahead disposes of nothing early.
func TestRetentionGoesByTheLogsTime(t *testing.T) {
	k := filled(t, 1)
	k.policy = RetentionPolicy{Version: 1, Rules: []RetentionRule{{Age: time.Hour}}}
	for _, years := range []int{50, -80} {
		k.replicas[0].Wall = k.replicas[0].Wall.AddDate(years, 0, 0)
		k.pass(10 * time.Minute)
		k.retain()
		k.check()
	}
	if n := len(k.query("")); n != 77 {
		t.Errorf("%d documents are left, want all 77", n)
	}
	early := boundPolicy{version: 1, rules: []boundRule{{RetentionRule: RetentionRule{Age: time.Hour}, cutoff: k.leader().now.Load() - 59*60e6}}}
	if got := k.apply(encodeBegin(&pendingDisposal{first: 0, policy: early})); !bytes.Equal(got, resultRefused) {
		t.Errorf("a leader that is too early: %v", got)
	}
	if got := k.apply(encodeHead(&disposal{first: k.leader().active.base}, &early, &proof{by: recordedBy{at: 1, key: retentionKey.Public().(ed25519.PublicKey)}})); !bytes.Equal(got, resultRefused) {
		t.Errorf("a leader that is too early with the head: %v", got)
	}
}

// A change of the rules, or a switch to reading, ends what has been begun.
func TestRetentionIsCancelled(t *testing.T) {
	for what, change := range map[string]func(*kept){
		"hold": func(k *kept) {
			k.policy = RetentionPolicy{Version: 2, Rules: append(k.policy.Rules, RetentionRule{Tenant: "acme", Hold: true})}
		},
		"read-only": func(k *kept) { k.stopped = true },
		"no key":    func(k *kept) { k.retainer.Key = nil },
	} {
		t.Run(what, func(t *testing.T) {
			k := filled(t, 2)
			k.policy = RetentionPolicy{Version: 1, Rules: []RetentionRule{{Tenant: "acme", Age: time.Minute}}}
			k.pass(time.Hour)
			k.apply(retentionHeader(retentionMark))
			bound := k.policy.bind(k.leader().now.Load())
			if got := k.apply(encodeBegin(&pendingDisposal{first: 0, policy: bound})); !bytes.Equal(got, resultDone) {
				t.Fatalf("begin: %v", got)
			}
			change(k)
			k.replicas[1].Restart()
			k.retain()
			k.sameState()
			if n := rowsOf(t, k.replicas[0], tablePending); n != 0 {
				t.Error("it is pending still")
			}
			if n := len(k.query("tenant:acme kind:receipt")); n != 26 {
				t.Errorf("%d documents of acme are left, want 26", n)
			}
		})
	}
}

// The records must be what the leader has signed.
func TestRetentionRefusesForgedProofs(t *testing.T) {
	k := filled(t, 1)
	k.policy = RetentionPolicy{Version: 1, Rules: []RetentionRule{{Age: time.Minute}}}
	k.pass(time.Hour)
	k.apply(retentionHeader(retentionMark))
	bound := k.policy.bind(k.leader().now.Load())
	d, err := k.leader().lookAtHead(&bound)
	if err != nil || len(d.lines) == 0 {
		t.Fatalf("%+v, %v", d, err)
	}
	p, err := k.retainer.prove(d, bound.version, func() time.Time { return k.replicas[0].Wall })
	if err != nil {
		t.Fatal(err)
	}
	before := len(k.query(""))
	p.signatures[0][5] ^= 1
	if got := k.apply(encodeHead(d, &bound, p)); !bytes.Equal(got, resultRefused) || len(k.query("")) != before {
		t.Errorf("a forged signature: %v", got)
	}
	p.signatures[0][5] ^= 1
	if got := k.apply(encodeHead(d, &bound, p)); !bytes.Equal(got, resultDone) || len(k.query("")) == before {
		t.Errorf("a right one: %v", got)
	}
	rec := k.query("kind:disposition")[0]
	for i := range rec.Attributes {
		if rec.Attributes[i].Name == AttributeRecord {
			rec.Attributes[i].Value = string(bytes.Replace([]byte(rec.Attributes[i].Value), []byte(`"count":`), []byte(`"count":1`), 1))
		}
	}
	if _, err := verifyRecord(rec); err == nil {
		t.Error("a changed record is verified")
	}
}

// What a leader has signed of another state is refused, and no replica takes its own for damaged: a command may come
// late, behind those of the next leader.
func TestRetentionRefusesLateProofs(t *testing.T) {
	k := filled(t, 2)
	rules := []RetentionRule{{Tenant: "acme", Age: time.Minute}, {Tenant: "beta", Age: time.Minute}}
	k.policy = RetentionPolicy{Version: 1, Rules: rules}
	k.pass(time.Hour)
	k.apply(retentionHeader(retentionMark))
	wall := func() time.Time { return k.replicas[0].Wall }
	both, acme := k.policy.bind(k.leader().now.Load()), (&RetentionPolicy{Version: 2, Rules: rules[:1]}).bind(k.leader().now.Load())
	head := func(bound *boundPolicy) []byte {
		d, err := k.leader().lookAtHead(bound)
		if err != nil || len(d.lines) == 0 {
			t.Fatalf("%+v, %v", d, err)
		}
		p, err := k.retainer.prove(d, bound.version, wall)
		if err != nil {
			t.Fatal(err)
		}
		return encodeHead(d, bound, p)
	}
	late := head(&both)
	if got := k.apply(head(&acme)); !bytes.Equal(got, resultDone) {
		t.Fatalf("of the head: %v", got)
	}
	before := stateBut(t, k.replicas[0], tableMark)
	if got := k.apply(late); !bytes.Equal(got, resultRefused) || stateBut(t, k.replicas[0], tableMark) != before {
		t.Errorf("a late one of the head: %v", got)
	}
	finish := func(bound boundPolicy) []byte {
		pending := &pendingDisposal{first: 0, policy: bound}
		if got := k.apply(encodeBegin(pending)); !bytes.Equal(got, resultDone) {
			t.Fatalf("begin: %v", got)
		}
		d, err := k.leader().awaitComputed(context.Background(), k.leader().pending)
		if err != nil || d == nil || len(d.lines) == 0 {
			t.Fatalf("%+v, %v", d, err)
		}
		p, err := k.retainer.prove(d, bound.version, wall)
		if err != nil {
			t.Fatal(err)
		}
		var last []byte
		if d.file != nil {
			parts, err := k.leader().movesOfRewritten(d)
			if err != nil || len(parts) != 1 {
				t.Fatalf("%d parts, %v", len(parts), err)
			}
			last = parts[0]
		}
		return encodeFinish(pending, p, last)
	}
	late = finish(acme)
	if got := k.apply(encodeCancel(0)); !bytes.Equal(got, resultDone) {
		t.Fatalf("cancel: %v", got)
	}
	right := finish((&RetentionPolicy{Version: 3, Rules: rules[1:]}).bind(k.leader().now.Load()))
	before = stateBut(t, k.replicas[0], tableMark)
	if got := k.apply(late); !bytes.Equal(got, resultRefused) || stateBut(t, k.replicas[0], tableMark) != before {
		t.Errorf("a late one of a segment: %v", got)
	}
	if got := k.apply(right); !bytes.Equal(got, resultDone) {
		t.Errorf("the right one: %v", got)
	}
	k.sameState()
	if n, m := len(k.query("tenant:acme kind:receipt")), len(k.query("tenant:beta kind:receipt")); n == 0 || m == 0 || n+m >= 77 {
		t.Errorf("%d and %d documents are left", n, m)
	}
}

// A backup has what is left and the ages; a restore forgets neither, and what lay between does not count.
func TestRetentionOverBackupAndRestore(t *testing.T) {
	k := filled(t, 1)
	k.policy = RetentionPolicy{Version: 1, Rules: []RetentionRule{{Tenant: "acme", Age: time.Minute}, {Tenant: "beta", Age: 2 * time.Hour}}}
	k.pass(time.Hour)
	k.retain()
	k.lead()
	k.check()
	k.pass(time.Minute)
	k.apply(retentionHeader(retentionMark)) // the age of all is known up to here
	to := newKept(t, t, 1, 8)
	to.policy, to.docs = k.policy, k.docs
	to.replicas[0].Time = 5 * time.Second // a young region
	if err := to.replicas[0].Restore(k.replicas[0].Backup(3)...); err != nil {
		t.Fatal(err)
	}
	for i := range to.docs { // ages go on
		to.docs[i].arrived += to.replicas[0].Time - k.replicas[0].Time
	}
	to.gone = k.gone
	to.check()
	to.pass(30 * time.Minute)
	to.lead()
	to.retain()
	to.check()
	if n := len(to.query("tenant:beta NOT kind:disposition")); n != 51 {
		t.Errorf("%d documents are left after 90 minutes, want 51", n)
	}
	to.replicas[0].Restart()
	to.pass(time.Hour)
	to.retain()
	to.check()
	if n := len(to.query("NOT kind:disposition")); n != 0 {
		t.Errorf("%d documents are left after two hours and more", n)
	}
}

// Documents of the head that were disposed of leave their places, in a backup too.
func TestRetentionOfTheHead(t *testing.T) {
	k := newKept(t, t, 2, 40)
	k.apply(encodeLayout(layoutSegments))
	var docs []Document
	for n := range 30 {
		docs = append(docs, normal(t, Document{ID: fmt.Sprint(n), Tenant: []string{"acme", "beta"}[n%2], Time: int64(n % 7)}))
	}
	k.store(docs[:6]...) // with rows of their own
	k.lead()
	k.store(docs[6:19]...)
	k.store(docs[19:20]...)
	k.store(docs[20:]...)
	k.policy = RetentionPolicy{Version: 1, Rules: []RetentionRule{{Tenant: "acme", Age: time.Minute}}}
	k.pass(time.Hour)
	k.retain()
	k.check()
	left := commandHeader()
	for i := range docs[6:19] {
		var enc []byte
		if i%2 == 1 {
			enc = AppendDocument(nil, &docs[6+i])
		}
		left = appendCommandDocument(left, enc)
	}
	if rows := batchesOf(t, k.replicas[0]); len(rows) != 4 || !bytes.Equal(rows[6], left) || !bytes.Equal(rows[19], command(docs[19])) {
		t.Errorf("what is left of the batches: %x", rows)
	}
	cut := uint64(9) // half of a search that began before: what it bounds are numbers
	if a := ask(t, k.replicas[0], shardQuery{limit: 100, bound: &cut}); len(a.rows) != 4 {
		t.Errorf("%d documents with numbers below 9, want 4", len(a.rows))
	}
	if a := ask(t, k.replicas[0], shardQuery{limit: 100, since: 29}); len(a.rows) != 2 {
		t.Errorf("%d documents from number 29 on, want one and its record", len(a.rows))
	}
	to := newKept(t, t, 1, 40)
	if err := to.replicas[0].Restore(k.replicas[0].Backup(4)...); err != nil {
		t.Fatal(err)
	}
	to.docs, to.gone, to.policy = k.docs, k.gone, k.policy
	to.check()
	for n := range 20 { // the head is sealed with its gaps
		d := command(normal(t, Document{ID: fmt.Sprint("later", n)}))
		k.apply(d)
		to.apply(d)
		k.lead()
		to.lead()
	}
	k.sameState()
	if a, b := len(k.query("NOT kind:disposition")), len(to.query("NOT kind:disposition")); a != 35 || b != 35 {
		t.Errorf("%d and %d documents, want 35", a, b)
	}
	if single, batches := rowsOf(t, k.replicas[0], tableDocument), rowsOf(t, k.replicas[0], tableBatch); single != 0 || batches != 11 {
		t.Errorf("%d and %d rows of documents, want none and 11", single, batches)
	}
}

// What is left of a large segment moves in parts; a leader that ends in between, a restart, and a file that is
// damaged meanwhile change nothing.
func TestRetentionMovesInParts(t *testing.T) {
	k := newKept(t, t, 2, 600)
	k.lead()
	rng := rand.New(rand.NewPCG(1, 2))
	for n := range 600 {
		d := Document{ID: fmt.Sprint(n), Tenant: "beta"}
		if n%6 == 0 {
			d.Tenant = "acme"
		}
		for i := range 3 {
			noise := make([]byte, 6<<10)
			for j := 0; j < len(noise); j += 8 {
				binary.LittleEndian.PutUint64(noise[j:], rng.Uint64())
			}
			d.Attributes = append(d.Attributes, Attribute{fmt.Sprint("noise", i), base64.StdEncoding.EncodeToString(noise)})
		}
		k.store(normal(t, d))
	}
	k.lead()
	k.policy = RetentionPolicy{Version: 1, Rules: []RetentionRule{{Tenant: "acme", Age: time.Minute}}}
	k.pass(time.Hour)
	commands, failed := 0, false
	k.between = func() {
		switch commands++; commands {
		case 4: // behind the mark, the beginning and the first part
			failed = true
			k.replicas[1].Restart()
			k.replicas[0].Restart()
		}
	}
	k.retain()
	k.lead()
	if k.check(); !failed {
		t.Errorf("%d commands", commands)
	}
	k.sameState()
	if n := len(k.query("NOT kind:disposition")); n != 500 {
		t.Errorf("%d documents are left, want 500", n)
	}
}
