package meta

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/maestro-conductor/maestro/raftfsm"
)

// The catalog may be gigabytes, so its rows do not wait aside while it is restored: they go where they
// belong, and queries are refused until the end.

var catalogTables = [...]table{tablePackages, tableInstalls, tableKeys}

// catalogRanges are the rows of the catalog that a backup takes: blobs before chunks, so that chunks of
// what nobody has published are known and left out.
func catalogRanges() [][2][]byte {
	first, end := byte(catalogTables[0]), byte(catalogTables[len(catalogTables)-1])+1
	return [][2][]byte{
		{{spaceRecord, first}, {spaceRecord, end}},
		{{spaceTable, first}, {spaceTable, end}},
		{{spaceBlob}, {spaceBlob + 1}},
		{{spaceChunk}, {spaceChunk + 1}},
		{{spaceDigest}, {spaceDigest + 1}},
		{{spaceFolded}, {spaceFolded + 1}},
		{{spaceBytes}, {spaceBytes + 1}},
		{{spaceOwned}, {spaceOwned + 1}},
	}
}

// ofCatalog tells whether a row of a backup is one of the catalog.
func ofCatalog(key []byte) bool {
	if len(key) == 0 {
		return false
	}
	switch key[0] {
	case spaceRecord, spaceTable, spaceOwned:
		return len(key) > 1 && slices.Contains(catalogTables[:], table(key[1]))
	case spaceBlob, spaceChunk, spaceDigest, spaceFolded, spaceBytes:
		return true
	}
	return false
}

// emptyCatalog refuses a region in whose catalog something was.
func emptyCatalog(tx *raftfsm.Tx) error {
	for _, t := range catalogTables {
		count, _, err := getRow(tx, []byte{spaceTable, byte(t)}, decodeCounters)
		if err == nil && count.version > 0 {
			err = fmt.Errorf("%w: its catalog of packages has been used", raftfsm.ErrNotEmpty)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// restoreCatalog writes one row where it belongs, and what its table derives of it.
func (m *Machine) restoreCatalog(tx *raftfsm.Tx, row raftfsm.Row) error {
	keep, err := m.checkCatalogRow(tx, row)
	if err != nil {
		return fmt.Errorf("%w: row %q: %w", raftfsm.ErrRestoreRefused, row.Key, err)
	}
	if !keep {
		return nil
	}
	err = errors.Join(tx.Set([]byte{spaceRestoring}, nil), tx.Set(row.Key, row.Value))
	if err != nil {
		return fmt.Errorf("meta: restore: %w", err)
	}
	if row.Key[0] != spaceRecord {
		return nil
	}
	return restoreIndexes(tx, row)
}

// restoreIndexes puts a record into the indexes of its table, and the clock behind it.
func restoreIndexes(tx *raftfsm.Tx, row raftfsm.Row) error {
	t := table(row.Key[1])
	rec, err := decodeRecord(string(row.Key[2:]), row.Value)
	if err != nil {
		return err
	}
	err = tx.Set(changeKey(spaceChange, t, rec.tableVersion, rec.key), nil)
	if rec.deleted {
		err = errors.Join(err, tx.Set(changeKey(spaceTombstone, t, rec.tableVersion, rec.key), nil))
	}
	if err != nil {
		return fmt.Errorf("meta: restore: %w", err)
	}
	clock, _, err := getRow(tx, []byte{spaceClock}, decodeClock)
	if err != nil {
		return err
	}
	if s := rec.stamp; s.wall > clock.wall || s.wall == clock.wall && s.logical > clock.logical {
		return tx.Set([]byte{spaceClock}, encodeClock(s))
	}
	return nil
}

func (m *Machine) checkCatalogRow(tx *raftfsm.Tx, row raftfsm.Row) (keep bool, err error) {
	k := row.Key
	switch k[0] {
	case spaceTable:
		_, err := decodeCounters(row.Value)
		if err == nil && len(k) != 2 {
			err = errRow("table")
		}
		return true, err
	case spaceRecord:
		if len(k) > 2+catalogKeyBytesMax {
			return false, errRow("record")
		}
		rec, err := decodeRecord(string(k[2:]), row.Value)
		if err == nil && !rec.deleted {
			err = m.rules(table(k[1])).valid(rec.key, rec.value)
		}
		return true, err
	case spaceOwned:
		return true, restorableOwned(k, row.Value)
	case spaceDigest, spaceFolded:
		if len(k) > math.MaxUint8 || len(row.Value) > catalogKeyBytesMax {
			return false, errRow("name")
		}
		return true, nil
	}
	return restorableBlob(tx, row)
}
