package segment

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"iter"
	"maps"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/RoaringBitmap/roaring/v2"
	"pgregory.net/rapid"
)

// sample is a document with all that a segment keeps of it.
type sample struct {
	Document
	texts      [len(TextGroups)]string // the first two are ID and Tenant
	digests    []Digest
	attributes []string
	words      []string // other terms
	rest       string
}

// terms are what the document is found by.
func (d *sample) terms() []string {
	var out []string
	for i, v := range d.texts {
		if v != "" {
			out = append(out, TextGroups[i:i+1]+v)
		}
	}
	for _, g := range d.digests {
		out = append(out, string(rune(DigestGroup+g.Direction))+g.Value)
	}
	for _, a := range d.attributes {
		out = append(out, "a"+a)
	}
	return append(out, d.words...)
}

// corpus is documents by arrival.
type corpus struct {
	base    uint64
	docs    []sample
	version byte // of the segment that it is built as
}

// genCorpus draws documents that share values in every way: single, rare, common, in runs,
// with and without a pattern.
func genCorpus(rt *rapid.T, least, most int) corpus {
	c := corpus{base: 1000, version: rapid.SampledFrom([]byte{VersionTables, Version}).Draw(rt, "version")}
	seed := rapid.Uint64().Draw(rt, "seed")
	random := func(n, what int) uint64 {
		x := seed + uint64(n)*0x9E3779B97F4A7C15 + uint64(what)*0xD1B54A32D192ED03
		x = (x ^ x>>30) * 0xBF58476D1CE4E5B9
		x = (x ^ x>>27) * 0x94D049BB133111EB
		return x ^ x>>31
	}
	spread := rapid.SampledFrom([]uint64{3, 1000, 1e9}).Draw(rt, "spread of times")
	for n := range rapid.IntRange(least, most).Draw(rt, "documents") {
		var d sample
		d.Time = int64(uint64(n)*7 + random(n, 0)%spread)
		if seed%2 == 0 {
			d.Time *= 1_000_000
		}
		d.ID = fmt.Sprintf("receipt-%016x", random(n, 1))
		if n%50 == 0 {
			d.ID = fmt.Sprint("odd ", n, "_deadbeefdeadbeef00")
		}
		d.Tenant = fmt.Sprint("tenant-", random(n, 2)%3*(random(n, 3)%7))
		d.texts[0], d.texts[1] = d.ID, d.Tenant
		d.texts[2] = "receipt"
		d.texts[4] = fmt.Sprintf("run-%08x", n/20*12345)
		if n%3 == 0 {
			d.texts[5] = fmt.Sprint("task-", random(n, 4)%100_000)
		}
		if n%5 == 0 {
			d.texts[6] = strings.Repeat("long", int(random(n, 5)%60))
		}
		for k := range random(n, 6) % 4 {
			what := int(random(n, int(k)) % uint64(n/2+1))
			v := fmt.Sprintf("%016x%016x:sha256", random(what, 7), what%2)
			if seed%5 == 1 { // others that begin alike
				v = fmt.Sprintf("%016x%016x:sha256", random(what, 7), n%2)
			}
			if seed%3 == 0 && random(n, 8)%29 == 0 {
				v = fmt.Sprintf("%010x:sha1", random(n, 9)>>24)
			}
			g := Digest{Value: v, Direction: int(random(n, 10+int(k)) % Directions)}
			if !slices.Contains(d.digests, g) {
				d.digests = append(d.digests, g)
			}
		}
		d.attributes = []string{fmt.Sprint("branch\x00", random(n, 20)%30), "commit\x00" + strings.Repeat("0", n%4)}
		if random(n, 21)%2 == 0 {
			d.attributes = nil
		}
		d.words = []string{"wall"}
		if random(n, 22)%10 < 7 {
			d.words = append(d.words, "wmost")
		}
		if random(n, 23)%3 == 0 {
			d.rest = fmt.Sprint("because ", n, strings.Repeat(" of it", n%9))
		}
		if d.HasCost = n%3 > 0; d.HasCost {
			d.Cost = int64(random(n, 24)%1000) - 100
		}
		d.Stamped, d.Duration = n%11 == 0, uint32(random(n, 25)>>40)
		c.docs = append(c.docs, d)
	}
	return c
}

// example is so many documents, always the same ones.
func example(docs int) corpus {
	c := rapid.Custom(func(rt *rapid.T) corpus { return genCorpus(rt, docs, docs) }).Example(1)
	c.version = Version
	return c
}

// postings are the documents of each stored term.
func (c corpus) postings() (terms []string, of map[string]*Postings) {
	of = map[string]*Postings{}
	for n := range c.docs {
		for _, term := range c.docs[n].terms() {
			stored, direction := storedTerm(term)
			if of[stored] == nil {
				of[stored] = &Postings{}
			}
			p := of[stored]
			if l := p[direction]; len(l) == 0 || l[len(l)-1] != uint32(n) {
				p[direction] = append(l, uint32(n))
			}
		}
	}
	return slices.Sorted(maps.Keys(of)), of
}

func (c corpus) input() Input {
	terms, of := c.postings()
	in := Input{Base: c.base}
	for _, d := range c.docs {
		in.Documents = append(in.Documents, d.Document)
	}
	in.Terms = func(yield func([]byte, *Postings) bool) {
		for _, t := range terms {
			if !yield([]byte(t), of[t]) {
				return
			}
		}
	}
	digests := slices.DeleteFunc(slices.Clone(terms), func(t string) bool { return t[0] != DigestGroup })
	in.Digests = func(arrival uint32, b []uint32) []uint32 {
		for _, g := range c.docs[arrival].digests {
			n, _ := slices.BinarySearch(digests, string(rune(DigestGroup))+g.Value)
			b = append(b, uint32(n)<<2|uint32(g.Direction))
		}
		return b
	}
	in.Rest = func(arrival uint32) []byte { return []byte(c.docs[arrival].rest) }
	return in
}

// fataler is a *testing.T or a *rapid.T.
type fataler interface {
	Fatal(...any)
	Fatalf(string, ...any)
}

func build(t fataler, c corpus) []byte {
	var b bytes.Buffer
	if err := Build(&b, c.version, c.input()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func open(t fataler, b []byte) *Segment {
	s, err := Open(bytes.NewReader(b), int64(len(b)), NewCache(64<<10))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// order is the documents as a segment numbers them.
func (c corpus) order() []uint32 {
	out := make([]uint32, len(c.docs))
	for i := range out {
		out[i] = uint32(i)
	}
	slices.SortFunc(out, func(a, b uint32) int { return Compare(&c.docs[a].Document, &c.docs[b].Document) })
	return out
}

// check compares a segment with the documents it should have.
func check(t fataler, s *Segment, c corpus) {
	order := c.order()
	checkRows(t, s, c, order)
	checkTerms(t, s, c, order)
	if err := s.Verify(); err != nil {
		t.Fatal(err)
	}
}

func checkRows(t fataler, s *Segment, c corpus, order []uint32) {
	if s.Len() != len(c.docs) || s.Base() != c.base {
		t.Fatalf("%d documents from %d", s.Len(), s.Base())
	}
	var r Row
	reader := s.NewReader()
	for local, arrival := range order {
		d := &c.docs[arrival]
		when, where, err := reader.Place(uint32(local))
		if err != nil || when != d.Time || where != arrival {
			t.Fatalf("document %d: time %d, arrival %d, %v; want %d, %d", local, when, where, err, d.Time, arrival)
		}
		if err := reader.Row(uint32(local), &r); err != nil {
			t.Fatal(err)
		}
		got := sample{texts: r.Texts, rest: string(r.Rest)}
		got.Document = Document{Time: r.Time, ID: r.Texts[0], Tenant: r.Texts[1], Cost: r.Cost, HasCost: r.HasCost, Stamped: r.Stamped, Duration: r.Duration}
		got.digests, got.attributes, got.words = append(got.digests, r.Digests...), append(got.attributes, r.Attributes...), d.words
		if !reflect.DeepEqual(got, *d) {
			t.Fatalf("document %d:\n got %+v\nwant %+v", local, got, *d)
		}
	}
}

func checkTerms(t fataler, s *Segment, c corpus, order []uint32) {
	local := make([]uint32, len(order))
	for l, a := range order {
		local[a] = uint32(l)
	}
	terms, of := c.postings()
	visible := map[string][]uint32{}
	for _, stored := range terms {
		for direction, arrivals := range of[stored] {
			if len(arrivals) == 0 {
				continue
			}
			term := string(stored[0]+byte(direction)) + stored[1:]
			for _, a := range arrivals {
				visible[term] = append(visible[term], local[a])
			}
			slices.Sort(visible[term])
		}
	}
	for term, want := range visible {
		p, err := s.Lookup(term)
		if err != nil || p.Len() != len(want) {
			t.Fatalf("%q: %d documents, %v; want %d", term, p.Len(), err, len(want))
		}
		bm, err := p.Bitmap()
		if err != nil || !slices.Equal(bm.ToArray(), want) {
			t.Fatalf("%q: %v, %v; want %v", term, bm, err, want)
		}
		if !s.MayContain(TermHash(term)) {
			t.Fatalf("%q may not be there", term)
		}
	}
	for _, absent := range []string{"i", "w", "wall ", "zzz", "\x00", "1", "2ffff", "e", "erun-"} {
		if _, there := visible[absent]; there {
			continue
		}
		if p, err := s.Lookup(absent); p.Len() != 0 || err != nil {
			t.Fatalf("%q: %d documents, %v", absent, p.Len(), err)
		}
	}
	for _, prefix := range []string{"i", "ireceipt-1", "w", "1", "2", "31", "31f", "1ab12", "abranch\x001", "g", "x", "erun-0000", "\x00", "\xff"} {
		var got []string
		if err := s.Prefix(prefix, func(term string, p Posting) bool {
			if p.Len() != len(visible[term]) {
				t.Fatalf("%q has %d documents", term, p.Len())
			}
			got = append(got, term)
			return true
		}); err != nil {
			t.Fatal(err)
		}
		want := slices.DeleteFunc(slices.Sorted(maps.Keys(visible)), func(t string) bool { return !strings.HasPrefix(t, prefix) })
		if !slices.Equal(got, want) {
			t.Fatalf("prefix %q: %q, want %q", prefix, got, want)
		}
	}
}

// A segment answers as the documents it was built of.
func TestSegmentHoldsWhatItWasBuiltOf(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		c := genCorpus(rt, 1, rapid.SampledFrom([]int{20, 150, 300, 2100}).Draw(rt, "most"))
		s := open(rt, build(rt, c))
		check(rt, s, c)
		checkRanges(rt, s, c)
	})
}

// Counting by postings and by columns gives the same as looking at each document.
func TestCounts(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		c := genCorpus(rt, 1, 5000)
		s := open(rt, build(rt, c))
		order := c.order()
		within := roaring.New()
		within.AddRange(uint64(rapid.IntRange(0, len(order)-1).Draw(rt, "from")), uint64(len(order)))
		if rapid.Bool().Draw(rt, "sparse") {
			within.And(roaring.BitmapOf(0, 1, 7, 2047, 2048, 2049, 4000))
		}
		group := rapid.IntRange(0, len(TextGroups)-1).Draw(rt, "group")
		interval := rapid.SampledFrom([]int64{1, 10, 1000, 1e6, 1e9}).Draw(rt, "interval")
		texts, times := map[string]uint64{}, map[int64]uint64{}
		for it := within.Iterator(); it.HasNext(); {
			d := &c.docs[order[it.Next()]]
			if v := d.texts[group]; v != "" {
				texts[v]++
			}
			times[d.Time/interval*interval]++
		}
		for name, count := range map[string]func(byte, *roaring.Bitmap, func(string, uint64)) error{
			"postings": s.countByPostings, "column": s.countByColumn, "either": s.CountTexts,
		} {
			got := map[string]uint64{}
			if err := count(TextGroups[group], within, func(v string, n uint64) { got[v] += n }); err != nil || !maps.Equal(got, texts) {
				rt.Fatalf("by %s: %v, %v, want %v", name, got, err, texts)
			}
		}
		got, last := map[int64]uint64{}, int64(math.MaxInt64)
		if err := s.CountTimes(interval, within, func(start int64, n uint64) {
			if start >= last {
				rt.Fatalf("bucket %d after %d", start, last)
			}
			got[start], last = n, start
		}); err != nil || !maps.Equal(got, times) {
			rt.Fatalf("times by %d: %v, %v, want %v", interval, got, err, times)
		}
	})
}

func checkRanges(rt *rapid.T, s *Segment, c corpus) {
	order := c.order()
	ends := rapid.OneOf(rapid.Int64Range(-5, 40_000), rapid.SampledFrom([]int64{math.MinInt64, math.MaxInt64, s.Newest(), s.Oldest()}))
	from, to := ends.Draw(rt, "from"), ends.Draw(rt, "to")
	lo, hi, err := s.Interval(from, to)
	if err != nil {
		rt.Fatal(err)
	}
	var within *roaring.Bitmap
	if rapid.Bool().Draw(rt, "within") {
		p, err := s.Lookup("wmost")
		if err != nil {
			rt.Fatal(err)
		}
		if within, err = p.Bitmap(); err != nil {
			rt.Fatal(err)
		}
	}
	least := rapid.Int64Range(-200, 1000).Draw(rt, "least")
	most := least + rapid.Int64Range(0, 400).Draw(rt, "more")
	costs, err := s.CostRange(least, most, within)
	if err != nil {
		rt.Fatal(err)
	}
	bound := rapid.Uint32Range(0, uint32(s.Len()+1)).Draw(rt, "bound")
	first := rapid.Uint32Range(0, bound).Draw(rt, "first")
	arrived, err := s.Arrived(first, bound, within)
	if err != nil {
		rt.Fatal(err)
	}
	for local, arrival := range order {
		d := &c.docs[arrival]
		if inside := d.Time >= from && (d.Time < to || to == math.MaxInt64); inside != (local >= int(lo) && local < int(hi)) {
			rt.Fatalf("[%d, %d) is [%d, %d): time %d of %d", from, to, lo, hi, d.Time, local)
		}
		in := within == nil || slices.Contains(d.words, "wmost")
		if want := in && d.HasCost && d.Cost >= least && d.Cost <= most; costs.Contains(uint32(local)) != want {
			rt.Fatalf("cost %d of %d in [%d, %d]: %v", d.Cost, local, least, most, !want)
		}
		if want := in && arrival >= first && arrival < bound; arrived.Contains(uint32(local)) != want {
			rt.Fatalf("arrival %d of %d before %d: %v", arrival, local, bound, !want)
		}
	}
}

func TestBuildRefusesWhatItCannotHold(t *testing.T) {
	list := func(terms ...string) iter.Seq2[[]byte, *Postings] {
		return func(yield func([]byte, *Postings) bool) {
			for _, t := range terms {
				if !yield([]byte(t), &Postings{{0}}) {
					return
				}
			}
		}
	}
	for name, in := range map[string]Input{
		"no documents":       {Terms: list()},
		"too many documents": {Documents: make([]Document, DocumentsMax+1), Terms: list()},
		"terms out of order": {Documents: make([]Document, 1), Terms: list("b", "a")},
		"a term twice":       {Documents: make([]Document, 1), Terms: list("b", "b")},
	} {
		if err := Build(&bytes.Buffer{}, Version, in); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestOpenTellsVersionFromDamage(t *testing.T) {
	b := build(t, example(100))
	open := func(b []byte) error {
		_, err := Open(bytes.NewReader(b), int64(len(b)), NewCache(1))
		return err
	}
	other := slices.Clone(b)
	other[len(magic)] = Version + 1
	if err := open(other); !errors.Is(err, ErrVersion) {
		t.Errorf("another version: %v", err)
	}
	for _, n := range []int{0, 1, headerBytes, headerBytes + footerBytes, len(b) / 2, len(b) - 1} {
		if err := open(b[:n]); !errors.Is(err, ErrCorrupt) {
			t.Errorf("cut to %d bytes of %d: %v", n, len(b), err)
		}
	}
}

// Whatever byte changes, reading says so, and answers nothing that is wrong.
func TestEveryChangedByteIsNoticed(t *testing.T) {
	c := example(2500)
	b := build(t, c)
	step := max(1, len(b)/500)
	for at := 0; at < len(b); at += step {
		bad := slices.Clone(b)
		bad[at] ^= 1 << (at % 8)
		s, err := Open(bytes.NewReader(bad), int64(len(bad)), NewCache(1<<20))
		if err == nil {
			err = s.Verify()
		}
		if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrVersion) {
			t.Fatalf("byte %d of %d: %v", at, len(b), err)
		}
	}
}

// Damage is an error when the block is read; what does not need the block is answered.
func TestReadsOfDamagedBlocksFail(t *testing.T) {
	c := example(2500)
	b := build(t, c)
	whole := open(t, b)
	for kind, blocks := range whole.file.blocks {
		for n, e := range blocks {
			bad := slices.Clone(b)
			bad[e.offset+int64(n)%int64(e.length)] ^= 0x10
			s, err := Open(bytes.NewReader(bad), int64(len(bad)), NewCache(1<<20))
			if err == nil {
				err = readAll(t, s, whole)
			}
			if !errors.Is(err, ErrCorrupt) {
				t.Errorf("block %c%d: %v", kind, n, err)
			}
		}
	}
}

// readAll compares all that s answers with what whole does; it returns the first error.
func readAll(t fataler, s, whole *Segment) (err error) {
	note := func(e error) { err = cmp.Or(err, e) }
	var got, want Row
	bad, good := s.NewReader(), whole.NewReader()
	for local := uint32(0); local < uint32(s.Len()); local += 7 { // some of every block
		if e := bad.Row(local, &got); e != nil {
			note(e)
			continue
		}
		if e := good.Row(local, &want); e != nil || !reflect.DeepEqual(got.Texts, want.Texts) || got.Time != want.Time || !bytes.Equal(got.Rest, want.Rest) {
			t.Fatalf("document %d: %+v, %v; want %+v", local, got, e, want)
		}
	}
	for _, term := range []string{"wall", "wmost", "kreceipt", "t" + want.Texts[1], "i" + want.Texts[0]} {
		p, e := s.Lookup(term)
		note(e)
		if e != nil {
			continue
		}
		bm, e := p.Bitmap()
		note(e)
		q, _ := whole.Lookup(term)
		if all, _ := q.Bitmap(); e == nil && !bm.Equals(all) {
			t.Fatalf("%q: %v", term, bm)
		}
	}
	for _, prefix := range TextGroups + "123aw" {
		note(s.Prefix(string(prefix), func(_ string, p Posting) bool { _, e := p.Bitmap(); note(e); return true }))
	}
	_, e := s.CostRange(0, 10, nil)
	note(e)
	return err
}

// FuzzOpen opens whatever it is given: an error, never a panic, and never much memory.
func FuzzOpen(f *testing.F) {
	b := build(f, example(8))
	f.Add(b)
	f.Add(b[:len(b)/2])
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := Open(bytes.NewReader(b), int64(len(b)), NewCache(1<<20))
		if err != nil {
			return
		}
		var r Row
		reader := s.NewReader()
		for local := range uint32(min(s.Len(), 100)) {
			_ = reader.Row(local, &r)
		}
		for _, term := range []string{"wall", "1", "kreceipt"} {
			if p, err := s.Lookup(term); err == nil {
				_, _ = p.Bitmap()
			}
			_ = s.Prefix(term[:1], func(_ string, p Posting) bool { _, _ = p.Bitmap(); return true })
		}
	})
}

// FuzzBlocks reads blocks of whatever bytes, as if their checksums were right.
func FuzzBlocks(f *testing.F) {
	c := example(60)
	s := open(f, build(f, c))
	for _, kind := range blockKinds {
		if len(s.file.blocks[byte(kind)]) > 0 {
			b, err := s.file.read(byte(kind), 0)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(byte(kind), b)
		}
	}
	f.Fuzz(func(t *testing.T, kind byte, b []byte) {
		switch kind {
		case blockTerms:
			if ch, err := openChunk(b); err == nil {
				for i := range ch.n {
					_, _ = s.term(ch, i, nil)
					for d := range Directions {
						if p, err := s.posting(ch, i, d); err == nil && p.kind != postingFar {
							_, _ = p.appendTo(nil)
						}
					}
				}
				_, _, _ = s.search(ch, []byte("wall"))
			}
		case blockNumbers:
			if n, err := s.openNumbers(0, b, false); err == nil {
				_ = n.age.at(s.Len() - 1)
			}
		case blockOrdinals:
			if o, err := s.openOrdinals(0, b, false); err == nil {
				for i := range min(s.Len(), 4) {
					for from, to := o.digests.of(i); from < to; from++ {
						_ = o.directions.at(from)
					}
				}
			}
		case blockSlots:
			_ = (&Segment{file: s.file}).openSlots(b)
		case blockRest:
			_, _ = openRest(s.cache.zstd, b)
		}
	})
}
