package index

import "encoding/binary"

// extension is what queries have learned since the first version. A node that knows none
// refuses a query with one; one without is as it always was.
type extension struct {
	// lookup, when not nil, asks for digests instead: for each the values of terms that it can
	// mean. perDigest is how many of the newest documents of each are wanted.
	lookup    [][]string
	perDigest int
}

const extensionLookup = 1 << iota

const extensionsKnown = extensionLookup

// extended tells whether there is anything in it.
func (e *extension) extended() bool { return e.bits() != 0 }

func (e *extension) bits() (bits uint64) {
	if e.lookup != nil {
		bits |= extensionLookup
	}
	return bits
}

func (e *extension) appendExtension(b []byte) []byte {
	b = binary.AppendUvarint(b, e.bits())
	if e.lookup != nil {
		b = binary.AppendUvarint(binary.AppendUvarint(b, uint64(e.perDigest)), uint64(len(e.lookup)))
		for _, readings := range e.lookup {
			b = appendStrings(b, readings)
		}
	}
	return b
}

func (r *wireReader) extension() (e extension) {
	bits := r.uvarint()
	if bits&^extensionsKnown != 0 || bits == 0 {
		r.bad = true
	}
	if bits&extensionLookup != 0 {
		e.perDigest = r.count(LookupDocumentsMax)
		n := r.count(LookupDigestsMax)
		for e.lookup = make([][]string, 0, min(n, len(r.b))); n > 0 && !r.bad; n-- {
			e.lookup = append(e.lookup, r.strings(len(digestAlgorithms)))
		}
	}
	return e
}

// lookupFound is what a shard has of one digest: the count of its documents, and the newest.
type lookupFound struct {
	count uint64
	rows  [][]byte
}

func (a *shardAnswer) encodeLookup() []byte {
	size := 64
	for i := range a.lookup {
		size += 2 * binary.MaxVarintLen32
		for _, row := range a.lookup[i].rows {
			size += binary.MaxVarintLen32 + len(row)
		}
	}
	b := append(make([]byte, 0, size), wireVersion, answerLookup)
	b = binary.AppendUvarint(binary.AppendUvarint(b, a.bound), uint64(len(a.lookup)))
	for i := range a.lookup {
		b = binary.AppendUvarint(b, a.lookup[i].count)
		b = binary.AppendUvarint(b, uint64(len(a.lookup[i].rows)))
		for _, row := range a.lookup[i].rows {
			b = append(binary.AppendUvarint(b, uint64(len(row))), row...)
		}
	}
	return b
}

func (r *wireReader) lookup(a *shardAnswer) {
	a.bound = r.uvarint()
	n := r.count(LookupDigestsMax)
	for a.lookup = make([]lookupFound, 0, min(n, len(r.b))); n > 0 && !r.bad; n-- {
		found := lookupFound{count: r.uvarint()}
		for rows := r.count(LookupDocumentsMax); rows > 0 && !r.bad; rows-- {
			found.rows = append(found.rows, r.bytes())
		}
		a.lookup = append(a.lookup, found)
	}
}

// count reads a number that is at most most.
func (r *wireReader) count(most int) int {
	n := r.uvarint()
	if n > uint64(most) {
		r.bad = true
		return 0
	}
	return int(n)
}

func appendStrings(b []byte, all []string) []byte {
	b = binary.AppendUvarint(b, uint64(len(all)))
	for _, s := range all {
		b = appendString(b, s)
	}
	return b
}

// strings reads at most most texts.
func (r *wireReader) strings(most int) (all []string) {
	for n := r.count(most); n > 0 && !r.bad; n-- {
		all = append(all, string(r.bytes()))
	}
	return all
}
