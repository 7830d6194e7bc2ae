package index

// rowArena keeps encoded documents in a few large pieces: reading one from the store would
// cost more than all else that a hit takes. What was added does not change, so a copy of the
// arena, taken under the lock of who adds, can be read beside later additions.
type rowArena struct {
	pieces [][]byte
	used   int        // of the last piece
	ends   []arenaEnd // by document
}

// arenaEnd is where a document ends.
type arenaEnd struct{ piece, end uint32 }

// arenaBytes is how large a piece is, unless one document is larger.
const arenaBytes = 256 << 10

// add appends a document.
func (a *rowArena) add(row []byte) {
	last := len(a.pieces) - 1
	if last < 0 || a.used+len(row) > len(a.pieces[last]) {
		a.pieces = append(a.pieces, make([]byte, max(arenaBytes, len(row))))
		last++
		a.used = 0
	}
	a.used += copy(a.pieces[last][a.used:], row)
	a.ends = append(a.ends, arenaEnd{piece: uint32(last), end: uint32(a.used)})
}

// row is the document with a number.
func (a *rowArena) row(n uint32) []byte {
	e, start := a.ends[n], uint32(0)
	if n > 0 && a.ends[n-1].piece == e.piece {
		start = a.ends[n-1].end
	}
	return a.pieces[e.piece][start:e.end:e.end]
}
