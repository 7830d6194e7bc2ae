package segment

import "slices"

// Row is a document as its columns have it.
type Row struct {
	Time     int64
	Stamped  bool
	HasCost  bool
	Cost     int64
	Duration uint32
	// Texts are the values of TextGroups; empty ones are absent.
	Texts   [len(TextGroups)]string
	Digests []Digest
	// Attributes are terms of AttributeGroup without its byte.
	Attributes []string
	// Rest is what was given to Build.
	Rest []byte
}

// Digest is the value of a digest's term and its direction.
type Digest struct {
	Value     string
	Direction int
}

// Reader reads documents of a segment. It remembers the blocks of the last one, since hits
// are often neighbours, and the terms of groups that have few. One goroutine uses it.
type Reader struct {
	s          *Segment
	numbersAt  uint32 // number of the block in n, if there is one
	ordinalsAt uint32
	n          *numbers
	o          *ordinals
	words      map[byte][]string
	buf        []byte
	valuesAt   uint32 // number of the block in v, if there is one
	v          []byte
}

// NewReader begins to read documents.
func (s *Segment) NewReader() *Reader { return &Reader{s: s} }

func (r *Reader) numbers(local uint32) (*numbers, int, error) {
	block := local / blockDocuments
	if r.n == nil || r.numbersAt != block {
		n, err := r.s.numbers(block)
		if err != nil {
			return nil, 0, err
		}
		r.n, r.numbersAt = n, block
	}
	return r.n, int(local % blockDocuments), nil
}

func (r *Reader) ordinals(local uint32) (*ordinals, int, error) {
	block := local / blockDocuments
	if r.o == nil || r.ordinalsAt != block {
		o, err := r.s.ordinals(block)
		if err != nil {
			return nil, 0, err
		}
		r.o, r.ordinalsAt = o, block
	}
	return r.o, int(local % blockDocuments), nil
}

// Place is a document's time and arrival number.
func (r *Reader) Place(local uint32) (time int64, arrival uint32, err error) {
	n, i, err := r.numbers(local)
	if err != nil {
		return 0, 0, err
	}
	return n.newest - int64(n.age.at(i)), uint32(n.arrival.at(i)), nil
}

// Text is one of a document's texts, by its place in TextGroups.
func (r *Reader) Text(local uint32, t int) (string, error) {
	o, i, err := r.ordinals(local)
	if err != nil {
		return "", err
	}
	ord := o.texts[t].at(i)
	if ord == 0 {
		return "", nil
	}
	return r.value(local, TextGroups[t], ord-1)
}

// documentRow is the cache's name for a document as somebody wrote it again, which is no block of the
// file.
const documentRow = 'd'

// Kept returns what Keep was given of a document, as long as the cache has it.
func (r *Reader) Kept(local uint32) []byte {
	if v, ok := r.s.cache.get(r.s.cacheKey(documentRow, local)); ok && r.s.stats == nil {
		return v.([]byte)
	}
	return nil
}

// Keep has the cache keep bytes, which must not change, of a document.
func (r *Reader) Keep(local uint32, b []byte) {
	r.s.cache.put(r.s.cacheKey(documentRow, local), b, len(b))
}

// Row reads a document into row, whose slices are used again.
func (r *Reader) Row(local uint32, row *Row) error {
	r.s.noteExamined(1)
	n, i, err := r.numbers(local)
	if err != nil {
		return err
	}
	o, _, err := r.ordinals(local)
	if err != nil {
		return err
	}
	row.Time, row.Stamped, row.Duration = n.newest-int64(n.age.at(i)), n.stamped.at(i) == 1, uint32(n.duration.at(i))
	cost := n.cost.at(i)
	if row.HasCost, row.Cost = cost > 0, 0; row.HasCost {
		row.Cost = unzigzag(cost - 1)
	}
	for t := range row.Texts {
		row.Texts[t] = ""
		if ord := o.texts[t].at(i); ord > 0 {
			if row.Texts[t], err = r.value(local, TextGroups[t], ord-1); err != nil {
				return err
			}
		}
	}
	row.Digests, row.Attributes, row.Rest = row.Digests[:0], row.Attributes[:0], nil
	for from, to := o.digests.of(i); from < to; from++ {
		v, err := r.value(local, DigestGroup, o.digests.values.at(from))
		if err != nil {
			return err
		}
		row.Digests = append(row.Digests, Digest{Value: v, Direction: int(o.directions.at(from))})
	}
	for from, to := o.attributes.of(i); from < to; from++ {
		v, err := r.value(local, AttributeGroup, o.attributes.values.at(from))
		if err != nil {
			return err
		}
		row.Attributes = append(row.Attributes, v)
	}
	if o.hasRest.at(i) == 1 {
		row.Rest, err = r.s.restOf(local)
	}
	return err
}

// fewTerms is how many terms of a group are kept as texts.
const fewTerms = 1 << 11

// value is a term without the byte of its group, by its number there. Random texts are likely to stand with the document.
func (r *Reader) value(local uint32, name byte, ord uint64) (string, error) {
	g := &r.s.groups[name]
	if ord >= uint64(g.terms()) {
		return "", damaged("no term %d in group %c", ord, name)
	}
	if g.apart != nil {
		if n := g.apart.count(); ord >= uint64(n) {
			ord -= uint64(n)
		} else {
			return r.valueApart(g.apart, local, uint32(ord))
		}
	}
	if g.count <= fewTerms {
		words, err := r.wordsOf(name)
		if err != nil {
			return "", err
		}
		return words[ord], nil
	}
	var err error
	if r.buf, err = r.s.appendOrdinal(r.buf[:0], g.first+uint32(ord)); err != nil {
		return "", err
	}
	return string(r.buf[1:]), nil
}

// valueApart reads a random text.
func (r *Reader) valueApart(a *apart, local, number uint32) (string, error) {
	n := a.blockOf(number, local/valueDocuments)
	if r.v == nil || r.valuesAt != n {
		v, err := r.s.values(n)
		if err != nil {
			return "", err
		}
		r.v, r.valuesAt = v, n
	}
	stored, err := r.s.valueIn(r.v, a, n, number)
	if err != nil {
		return "", err
	}
	r.buf = a.append(r.buf[:0], stored)
	return string(r.buf), nil
}

// wordsOf are all terms of the table of a group without its byte.
func (r *Reader) wordsOf(name byte) ([]string, error) {
	if w, ok := r.words[name]; ok {
		return w, nil
	}
	key := r.s.cacheKey(groupWords, uint32(name))
	v, ok := r.s.cache.get(key)
	if !ok {
		words, err := r.s.readWords(r.s.groups[name])
		if err != nil {
			return nil, err
		}
		size := 16 * len(words)
		for _, w := range words {
			size += len(w)
		}
		r.s.cache.put(key, words, size)
		v = words
	}
	if r.words == nil {
		r.words = map[byte][]string{}
	}
	r.words[name] = v.([]string)
	return r.words[name], nil
}

// groupWords is the cache's name for the terms of a small group, which are no block of the file.
const groupWords = 'w'

func (s *Segment) readWords(g group) ([]string, error) {
	words := make([]string, 0, g.count)
	var buf []byte
	at, _ := slices.BinarySearch(s.ordinal, g.first) // a group begins with a chunk
	for ; len(words) < int(g.count); at++ {
		c, err := s.chunk(uint32(at))
		if err != nil {
			return nil, err
		}
		if c.apart != nil {
			continue
		}
		if c.n != int(s.ordinal[at+1]-s.ordinal[at]) {
			return nil, damaged("chunk of %d terms", c.n)
		}
		for i := range c.n {
			if buf, err = c.appendTerm(buf[:0], i); err != nil {
				return nil, err
			}
			words = append(words, string(buf[1:]))
		}
	}
	return words, nil
}
