package meta

import (
	"bytes"
	"fmt"
	"math"
	"strings"

	"github.com/maestro-conductor/maestro/pkgstore"
)

// The tables of the catalog have bounds for all, so that each tenant has one of its own below them. The count
// is a row beside the records: a table is not walked to write one.

// ownedMost is how many live records of a table a namespace may have. The platform's have the table's bound alone.
func ownedMost(t table, namespace string) uint64 {
	switch {
	case namespace == pkgstore.Public:
		return math.MaxUint64
	case t == tableKeys:
		return pkgstore.KeysOfOneMax
	case t == tablePackages:
		return pkgstore.PackagesOfOneMax
	}
	return pkgstore.InstallsOfOneMax
}

var ownedNames = map[table]string{tableKeys: "trust keys, with those revoked", tablePackages: "versions of packages", tableInstalls: "packages installed"}

func ownedKey(t table, namespace string) []byte {
	return append([]byte{spaceOwned, byte(t)}, namespace...)
}

// owns changes by how much a step changes the live records of its namespace; with outcome 0 there is room.
func (x *catalogTx) owns(t table, s step) (by int64, full catalogResult, err error) {
	before, found, err := getRecord(x.tx, t, s.key)
	if err != nil {
		return 0, full, err
	}
	lives := found && !before.deleted
	switch {
	case s.kind == kindDelete && lives:
		return -1, full, nil
	case s.kind == kindDelete || lives:
		return 0, full, nil
	}
	namespace, _, _ := strings.Cut(s.key, " ")
	has, _, err := getRow(x.tx, ownedKey(t, namespace), decodeCount)
	if most := ownedMost(t, namespace); err == nil && has >= most {
		full = x.refuse(catalogFull, "%s has %d %s, the most that a tenant may have", namespace, has, ownedNames[t])
	}
	return 1, full, err
}

// restorableOwned checks a row of a backup that counts what a namespace has.
func restorableOwned(k, v []byte) error {
	_, err := decodeCount(v)
	if err == nil && (len(k) < 3 || len(k) > 2+nameBytesMax || bytes.IndexByte(k[2:], ' ') >= 0) {
		err = errRow("count")
	}
	return err
}

// addCount changes a row that counts. At nothing there is none.
func (x *catalogTx) addCount(key []byte, by int64) error {
	n, _, err := getRow(x.tx, key, decodeCount)
	if err != nil {
		return err
	}
	if n += uint64(by); n == 0 {
		err = x.tx.Delete(key)
	} else {
		err = x.tx.Set(key, encodeCount(n))
	}
	if err != nil {
		return fmt.Errorf("meta: count %q: %w", key, err)
	}
	return nil
}
