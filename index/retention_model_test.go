package index

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"fmt"
	"log/slog"
	"strconv"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/maestro-conductor/maestro/index/disposition"
	"github.com/maestro-conductor/maestro/raftfsm"
	"github.com/maestro-conductor/maestro/raftfsm/fsmtest"
)

var retentionKey = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, ed25519.SeedSize))

// fataler is a *testing.T or a *rapid.T.
type fataler interface {
	Fatal(...any)
	Fatalf(string, ...any)
	Helper()
}

// kept is replicas of one shard under a policy of retention; the first one leads.
type kept struct {
	t        fataler
	replicas []*fsmtest.Driver
	policy   RetentionPolicy
	retainer *Retainer
	stopped  bool
	// between is called before each command of retention.
	between func()
	docs    []keptDocument
	gone    map[string]uint64 // of each tenant and kind, as the model knows
}

// documentID is what is taken once.
type documentID struct{ tenant, id string }

// keptDocument is what the model knows of a document.
type keptDocument struct {
	Document
	arrived time.Duration // group time
}

func newKept(t testing.TB, f fataler, replicas, headDocuments int) *kept {
	return newKeptOf(t, f, replicas, testMachine(headDocuments))
}

// newKeptOf has replicas with other machines.
func newKeptOf(t testing.TB, f fataler, replicas int, machine func() raftfsm.Machine) *kept {
	k := &kept{t: f, gone: map[string]uint64{}}
	for range replicas {
		k.replicas = append(k.replicas, fsmtest.NewCrashable(t, machine))
	}
	k.retainer = &Retainer{
		Region: "local", Shard: "index-0", Level: func() int { return raftfsm.LevelCurrent }, Key: retentionKey, Log: slog.New(slog.DiscardHandler),
		Policy:  func(context.Context) (RetentionPolicy, error) { return k.policy, nil },
		Stopped: func() bool { return k.stopped },
		Peers:   keptPeers{k},
		Propose: func(_ context.Context, c []byte) ([]byte, error) {
			if k.between != nil {
				k.between()
			}
			return k.apply(c), nil
		},
	}
	return k
}

// keptPeers are the replicas behind the leader.
type keptPeers struct{ k *kept }

func (p keptPeers) Others() (all []string) {
	for i := range p.k.replicas[1:] {
		all = append(all, strconv.Itoa(i+1))
	}
	return all
}

func (p keptPeers) Ask(ctx context.Context, member string, query []byte) ([]byte, error) {
	i, err := strconv.Atoi(member)
	if err != nil {
		return nil, err
	}
	return p.k.replicas[i].Machine().Query(ctx, query)
}

func (k *kept) leader() *Machine { return k.replicas[0].Machine().(*Machine) }

// apply applies a command on all replicas.
func (k *kept) apply(c []byte) []byte {
	k.t.Helper()
	got := k.replicas[0].Apply(c)[0]
	for _, d := range k.replicas[1:] {
		if other := d.Apply(c)[0]; !bytes.Equal(other, got) {
			k.t.Fatalf("results differ: %x, %x", got, other)
		}
	}
	return got
}

// lead applies what the leader of the shard would have in the log by now.
func (k *kept) lead() {
	k.t.Helper()
	m := k.leader()
	for {
		m.mu.Lock()
		for len(m.frozen) > 0 || m.mergeable() != nil || m.outdatedFile() != nil {
			if m.failed != nil {
				k.t.Fatal(m.failed)
			}
			m.changed.Wait()
		}
		next := m.nextCommands(layoutNewest)
		m.mu.Unlock()
		if next == nil {
			return
		}
		for _, c := range next {
			k.apply(c)
		}
	}
}

// store stores documents with one command.
func (k *kept) store(docs ...Document) {
	k.t.Helper()
	k.apply(command(docs...))
	for _, d := range docs {
		k.docs = append(k.docs, keptDocument{d, k.replicas[0].Time})
	}
}

// pass lets time pass, in which a leader marks what has arrived.
func (k *kept) pass(by time.Duration) {
	step := min(by, 2*time.Minute)
	for _, d := range k.replicas {
		d.Time += step
		d.Wall = d.Wall.Add(step)
	}
	if by > step {
		k.apply(retentionHeader(retentionMark))
		k.pass(by - step)
	}
}

// retain runs the leader's round.
func (k *kept) retain() {
	k.t.Helper()
	wall := func() time.Time { return k.replicas[0].Wall }
	if err := k.leader().retainAll(context.Background(), k.retainer, wall); err != nil {
		k.t.Fatal(err)
	}
}

// query reads all documents that match, on every replica.
func (k *kept) query(text string) []Document {
	k.t.Helper()
	q := shardQuery{text: text, limit: PageMax, exact: true}
	var all []Document
	for {
		want := k.replicas[0].Query(q.encode())
		for n, d := range k.replicas[1:] {
			if !bytes.Equal(d.Query(q.encode()), want) {
				k.t.Fatalf("the answer of replica %d to %q differs", n+1, text)
			}
		}
		a, err := decodeShardAnswer(want)
		if err != nil {
			k.t.Fatal(err)
		}
		for _, row := range a.rows {
			d, err := DecodeDocument(row)
			if err != nil {
				k.t.Fatal(err)
			}
			all = append(all, d)
		}
		if !a.more {
			if int(a.total) != len(all) {
				k.t.Fatalf("the total is %d of %d documents", a.total, len(all))
			}
			return all
		}
		q.after = positionOf(&all[len(all)-1], OrderNewest)
	}
}

func (k *kept) sameState() {
	k.t.Helper()
	hash := k.replicas[0].StateHash()
	for n, d := range k.replicas[1:] {
		if d.StateHash() != hash {
			k.t.Fatalf("the state of replica %d differs", n+1)
		}
	}
}

// check compares what is found with what must be kept, and what has gone with the records.
func (k *kept) check() {
	k.t.Helper()
	found := map[documentID]bool{}
	for _, d := range k.query("NOT kind:disposition") {
		found[documentID{d.Tenant, d.ID}] = true
	}
	now := k.replicas[0].Time
	gone := map[string]uint64{}
	p := boundPolicy{}
	for _, r := range k.policy.Rules {
		p.rules = append(p.rules, boundRule{RetentionRule: r})
	}
	left := k.docs[:0]
	for _, d := range k.docs {
		there := found[documentID{d.Tenant, d.ID}]
		delete(found, documentID{d.Tenant, d.ID})
		rule, age := p.rule(d.Tenant, d.Kind), now-d.arrived
		switch {
		case !there && (rule == nil || rule.Age == 0 || age < rule.Age):
			k.t.Fatalf("document %s/%s is gone at the age of %v, rule %+v", d.Tenant, d.ID, age, rule)
		case there && rule != nil && rule.Age > 0 && age > rule.Age+time.Duration(retentionSlack(rule.Age))*time.Microsecond+3*time.Minute:
			k.t.Fatalf("document %s/%s is there at the age of %v, rule %s %v", d.Tenant, d.ID, age, rule.Name(), rule.Age)
		case !there:
			gone[d.Tenant+"/"+d.Kind]++
		default:
			left = append(left, d)
		}
	}
	k.docs = left
	if len(found) > 0 {
		k.t.Fatalf("documents nobody stored: %v", found)
	}
	k.checkRecords(gone)
}

// recorded are the counts of the records so far, all of which are verified.
func (k *kept) recorded() map[string]uint64 {
	counts := map[string]uint64{}
	for _, d := range k.query("kind:disposition") {
		r, err := verifyRecord(d)
		if err != nil || r.Tenant != d.Tenant {
			k.t.Fatalf("record %+v: %v", d, err)
		}
		for _, l := range r.Lines {
			counts[r.Tenant+"/"+l.Kind] += l.Count
		}
	}
	return counts
}

func (k *kept) checkRecords(more map[string]uint64) {
	k.t.Helper()
	got := k.recorded()
	for key, n := range more {
		k.gone[key] += n
	}
	if fmt.Sprint(got) != fmt.Sprint(k.gone) {
		k.t.Fatalf("the records tell of %v; gone are %v", got, k.gone)
	}
}

func verifyRecord(d Document) (*disposition.Record, error) {
	a := map[string]string{}
	for _, x := range d.Attributes {
		a[x.Name] = x.Value
	}
	sig, err := base64.StdEncoding.DecodeString(a[AttributeSignature])
	if err != nil {
		return nil, err
	}
	return disposition.Verify([]ed25519.PublicKey{retentionKey.Public().(ed25519.PublicKey)}, a[AttributeKey], []byte(a[AttributeRecord]), sig)
}

func genRule(rt *rapid.T) RetentionRule {
	return RetentionRule{
		Tenant: rapid.SampledFrom([]string{"", "acme", "beta"}).Draw(rt, "tenant"),
		Kind:   rapid.SampledFrom([]string{"", KindReceipt, KindEvent}).Draw(rt, "kind"),
		Age:    rapid.SampledFrom([]time.Duration{0, time.Minute, 10 * time.Minute, time.Hour}).Draw(rt, "age"),
	}
}
