package index

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/maestro-conductor/maestro/raftfsm"
)

// Documents that are in no segment yet are rows. From layoutBatches on a row is the command that brought them:
// a row for each document costs every replica more than all else that it does for it, although the segment
// replaces it soon. Documents with rows of their own, of before, come first. No row has documents of
// two heads, since they are removed head by head.

func batchKey(first uint64) []byte {
	return binary.BigEndian.AppendUint64([]byte{tableBatch}, first)
}

// storeBatch writes the rows of a command's new documents, of which the first has the number first. It is
// the command itself when all its documents are new, which is usual.
func (a *applier) storeBatch(command []byte, whole bool, rows [][]byte, first uint64) error {
	for len(rows) > 0 {
		n := len(rows)
		if room := uint64(a.m.headDocuments) - first%uint64(a.m.headDocuments); uint64(n) > room {
			n, whole = int(room), false
		}
		row := command
		if !whole {
			a.value = append(a.value[:0], commandHeader()...)
			for _, enc := range rows[:n] {
				a.value = appendCommandDocument(a.value, enc)
			}
			row = a.value
		}
		if err := a.tx.Set(batchKey(first), row); err != nil {
			return err
		}
		rows, first = rows[n:], first+uint64(n)
	}
	return nil
}

// emptyRows removes what is stored of documents of the active head, whose numbers are in order. Their places
// stay, without bytes.
func (a *applier) emptyRows(numbers []uint64) error {
	type batch struct{ key, row []byte }
	var changed []batch // written when all are read
	// Those with rows of their own come before all batches.
	own, rest, met := numbers, []uint64(nil), false
	err := eachRow(a.tx, batchKey(a.m.moved), batchKey(a.before), func(key, value []byte) error {
		docs, err := decodeCommand(value)
		if err != nil {
			return fmt.Errorf("index: the row %x: %w", key, err)
		}
		first := binary.BigEndian.Uint64(key[1:])
		if !met {
			at, _ := slices.BinarySearch(numbers, first)
			own, rest, met = numbers[:at], numbers[at:], true
		}
		if len(rest) == 0 || rest[0] >= first+uint64(len(docs)) {
			return nil
		}
		row := commandHeader()
		for i, enc := range docs {
			if len(rest) > 0 && rest[0] == first+uint64(i) {
				enc, rest = nil, rest[1:]
			}
			row = appendCommandDocument(row, enc)
		}
		changed = append(changed, batch{slices.Clone(key), row})
		return nil
	})
	if err != nil {
		return err
	}
	if len(rest) > 0 {
		return fmt.Errorf("index: document %d is in no row", rest[0])
	}
	for _, number := range own {
		if err := a.tx.Set(documentKey(number), nil); err != nil {
			return err
		}
	}
	for _, b := range changed {
		if err := a.tx.Set(b.key, b.row); err != nil {
			return err
		}
	}
	return nil
}

// rowChunk is a few documents and their encodings, as they are read from rows.
type rowChunk struct {
	docs []Document
	rows [][]byte
	use  func(docs []Document, rows [][]byte) error
	next uint64 // number of the next document
}

func (c *rowChunk) add(enc []byte) (err error) {
	var d Document // without an id, in the place of one that was disposed of
	if len(enc) > 0 {
		if d, err = DecodeDocument(enc); err != nil {
			return fmt.Errorf("index: document %d: %w", c.next, err)
		}
	}
	c.docs, c.rows = append(c.docs, d), append(c.rows, bytes.Clone(enc))
	c.next++
	if len(c.docs) < rebuildChunk {
		return nil
	}
	return c.flush()
}

func (c *rowChunk) flush() error {
	if len(c.docs) == 0 {
		return nil
	}
	err := c.use(c.docs, c.rows)
	c.docs, c.rows = c.docs[:0], c.rows[:0]
	return err
}

// readRows reads the documents [from, to) and their encodings, a few at a time. use must not keep them.
func (m *Machine) readRows(from, to uint64, use func(docs []Document, rows [][]byte) error) error {
	c := &rowChunk{use: use, next: from}
	err := eachRow(m.store, documentKey(from), documentKey(to), func(key, value []byte) error {
		if !bytes.Equal(key, documentKey(c.next)) {
			return nil // it is missed below
		}
		return c.add(value)
	})
	if err != nil {
		return err
	}
	err = eachRow(m.store, batchKey(c.next), batchKey(to), func(key, value []byte) error {
		docs, err := decodeCommand(value)
		if err != nil {
			return fmt.Errorf("index: the row of the documents from %d on: %w", c.next, err)
		}
		if !bytes.Equal(key, batchKey(c.next)) || c.next+uint64(len(docs)) > to {
			return nil
		}
		for _, enc := range docs {
			if err := c.add(enc); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if c.next != to {
		return fmt.Errorf("index: documents %d to %d are counted, but those from %d on are not there", from, to, c.next)
	}
	return c.flush()
}

// eachRow calls use with the rows in [lower, upper), which are valid during the call.
func eachRow(s iterating, lower, upper []byte, use func(key, value []byte) error) (err error) {
	it, err := s.NewIter(lower, upper)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	for ok := it.First(); ok; ok = it.Next() {
		value, err := it.Value()
		if err != nil {
			return err
		}
		if err := use(it.Key(), value); err != nil {
			return err
		}
	}
	return it.Error()
}

// hasBatches tells whether the state has rows of batches, after the writes of tx.
func hasBatches(tx *raftfsm.Tx) (bool, error) {
	it, err := tx.NewIter([]byte{tableBatch}, []byte{tableBatch + 1})
	if err != nil {
		return false, err
	}
	has := it.First()
	return has, it.Close()
}
