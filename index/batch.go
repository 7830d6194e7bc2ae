package index

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

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

// rowChunk is a few documents and their encodings, as they are read from rows.
type rowChunk struct {
	docs []Document
	rows [][]byte
	use  func(docs []Document, rows [][]byte) error
	next uint64 // number of the next document
}

func (c *rowChunk) add(enc []byte) error {
	d, err := DecodeDocument(enc)
	if err != nil {
		return fmt.Errorf("index: document %d: %w", c.next, err)
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
	err := m.eachRow(documentKey(from), documentKey(to), func(key, value []byte) error {
		if !bytes.Equal(key, documentKey(c.next)) {
			return nil // it is missed below
		}
		return c.add(value)
	})
	if err != nil {
		return err
	}
	err = m.eachRow(batchKey(c.next), batchKey(to), func(key, value []byte) error {
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
func (m *Machine) eachRow(lower, upper []byte, use func(key, value []byte) error) (err error) {
	it, err := m.store.NewIter(lower, upper)
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
