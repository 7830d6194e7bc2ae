package meta

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/maestro-conductor/maestro/internal/wire"
	"github.com/maestro-conductor/maestro/pkgstore"
	"github.com/maestro-conductor/maestro/pkgstore/mwpkg"
	"github.com/maestro-conductor/maestro/raftfsm"
)

// Queries of the catalog: the second byte behind codecCatalog.
const (
	askPackages = 1
	askResolve  = 2
	askChunk    = 3
	askInstalls = 4
	askKeys     = 5
)

const (
	// catalogScanMax is how many records one query looks at: some tens of milliseconds. A page may so be
	// empty although more follow.
	catalogScanMax = 20_000
	// catalogPageMax bounds a page.
	catalogPageMax = pkgstore.PageMax
)

// catalogPage is a part of a table, by key.
type catalogPage struct {
	// next is the key behind which more may follow, or empty.
	next    string
	records []record
}

// packagesQuery asks for packages of some namespaces, all if there are none, behind a key.
type packagesQuery struct {
	namespaces []string
	after      string
	limit      int
	filter     pkgstore.Filter
}

// resolveQuery asks for one package and the keys that judge it: by digest, or by name and version, or the
// latest of a name; the first of the namespaces that has it.
type resolveQuery struct {
	namespaces    []string
	digest        *pkgstore.Digest
	name, version string
}

// installsQuery asks for what tenants use; empty fields keep all.
type installsQuery struct {
	tenant, name string
	after        string
	limit        int
	ref          *pkgstore.Ref
}

func encodePackagesQuery(q packagesQuery) []byte {
	b := appendWordsOf(catalogHeader(askPackages), q.namespaces)
	b = binary.AppendUvarint(wire.AppendString(b, q.after), uint64(q.limit))
	b = appendTexts(b, q.filter.Text, q.filter.Capability, q.filter.Name)
	return appendOptional(b, q.filter.Signer)
}

func appendWordsOf(b []byte, words []string) []byte {
	return appendTexts(binary.AppendUvarint(b, uint64(len(words))), words...)
}

func readWordsOf(r *wire.Reader) (words []string) {
	for n := r.Count(2); n > 0 && !r.Failed(); n-- {
		words = append(words, readName(r))
	}
	return words
}

// appendOptional appends a digest that may be absent.
func appendOptional(b []byte, d *pkgstore.Digest) []byte {
	if d == nil {
		return append(b, 0)
	}
	return append(append(b, 1), d[:]...)
}

func readOptional(r *wire.Reader) *pkgstore.Digest {
	if r.Byte(1) == 0 {
		return nil
	}
	d := pkgstore.Digest(r.Fixed(len(pkgstore.Digest{})))
	return &d
}

func readPackagesQuery(r *wire.Reader) (q packagesQuery) {
	q.namespaces = readWordsOf(r)
	q.after, q.limit = r.String(catalogKeyBytesMax), int(r.Uvarint(catalogPageMax))
	q.filter = pkgstore.Filter{Text: r.String(valueBytesMax), Capability: r.String(pkgstore.CapabilityBytesMax), Name: r.String(pkgstore.NameBytesMax)}
	q.filter.Signer = readOptional(r)
	return q
}

func encodeResolveQuery(q resolveQuery) []byte {
	b := appendOptional(appendWordsOf(catalogHeader(askResolve), q.namespaces), q.digest)
	return appendTexts(b, q.name, q.version)
}

func readResolveQuery(r *wire.Reader) resolveQuery {
	return resolveQuery{
		namespaces: readWordsOf(r), digest: readOptional(r),
		name: r.String(pkgstore.NameBytesMax), version: r.String(pkgstore.VersionBytesMax),
	}
}

func encodeChunkQuery(namespace string, archive pkgstore.Digest, chunk uint32) []byte {
	return binary.AppendUvarint(appendArchive(catalogHeader(askChunk), namespace, archive), uint64(chunk))
}

func encodeInstallsQuery(q installsQuery) []byte {
	b := appendTexts(catalogHeader(askInstalls), q.tenant, q.name, q.after)
	b = binary.AppendUvarint(b, uint64(q.limit))
	if q.ref == nil {
		return append(b, 0)
	}
	return append(appendTexts(append(b, 1), q.ref.Version, q.ref.Namespace), q.ref.Digest[:]...)
}

func readInstallsQuery(r *wire.Reader) installsQuery {
	q := installsQuery{tenant: r.String(nameBytesMax), name: r.String(pkgstore.NameBytesMax), after: r.String(catalogKeyBytesMax), limit: int(r.Uvarint(catalogPageMax))}
	if r.Byte(1) == 1 {
		q.ref = &pkgstore.Ref{Version: r.String(pkgstore.VersionBytesMax), Namespace: r.String(nameBytesMax)}
		q.ref.Digest = pkgstore.Digest(r.Fixed(len(q.ref.Digest)))
	}
	return q
}

func encodeKeysQuery(namespaces []string) []byte {
	return appendWordsOf(catalogHeader(askKeys), namespaces)
}

// queryCatalog answers a query of the catalog: an outcome, and what it is about.
func (m *Machine) queryCatalog(query []byte) (answer []byte, err error) {
	r := wire.NewReader(query[2:])
	var run func(it *raftfsm.Iter) ([]byte, error)
	switch query[1] {
	case askPackages:
		q := readPackagesQuery(r)
		run = func(it *raftfsm.Iter) ([]byte, error) { return m.queryPackages(it, q) }
	case askResolve:
		q := readResolveQuery(r)
		run = func(it *raftfsm.Iter) ([]byte, error) { return m.queryResolve(it, q) }
	case askChunk:
		namespace, archive := readArchive(r)
		chunk := uint32(r.Uvarint(math.MaxUint32))
		run = func(*raftfsm.Iter) ([]byte, error) { return m.queryChunk(blobIDOf(namespace, archive), chunk) }
	case askInstalls:
		q := readInstallsQuery(r)
		run = func(it *raftfsm.Iter) ([]byte, error) { return m.queryInstalls(it, q) }
	case askKeys:
		namespaces := readWordsOf(r)
		run = func(it *raftfsm.Iter) ([]byte, error) { return m.queryKeys(it, namespaces) }
	default:
		return nil, fmt.Errorf("%w: query %d of the catalog", errCodec, query[1])
	}
	if err := r.Done(); err != nil {
		return nil, fmt.Errorf("%w: query %d of the catalog", errCodec, query[1])
	}
	it, err := m.store.NewIter(nil, nil)
	if err != nil {
		return nil, fmt.Errorf("meta: query: %w", err)
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	if it.SeekGE([]byte{spaceRestoring}) && it.Key()[0] == spaceRestoring {
		return []byte{codecFirst, byte(catalogRestoring)}, nil
	}
	if answer, err = run(it); err != nil {
		return nil, fmt.Errorf("meta: query the catalog: %w", err)
	}
	return answer, nil
}

// iterGetter reads rows as the iterator sees them.
type iterGetter struct{ it *raftfsm.Iter }

func (g iterGetter) Get(key []byte) ([]byte, error) {
	if !g.it.SeekGE(key) || !bytes.Equal(g.it.Key(), key) {
		return nil, errors.Join(g.it.Error(), raftfsm.ErrNotFound)
	}
	v, err := g.it.Value()
	return bytes.Clone(v), err
}

// scan walks the live records of a table in ranges of keys, in order, behind a key. take says whether a
// record belongs to the page.
func scan(it *raftfsm.Iter, t table, ranges [][2]string, after string, limit int, take func(record) (bool, error)) (catalogPage, error) {
	var p catalogPage
	seen := 0
	for _, rg := range ranges {
		from, end := rg[0], recordKey(t, rg[1])
		if after != "" && after >= from {
			from = after + "\x00"
		}
		for ok := it.SeekGE(recordKey(t, from)); ok && bytes.Compare(it.Key(), end) < 0; ok = it.Next() {
			if len(p.records) == limit || seen == catalogScanMax {
				return p, nil
			}
			seen++
			rec, err := recordAt(it)
			if err != nil {
				return p, err
			}
			p.next = rec.key
			if rec.deleted {
				continue
			}
			if ok, err := take(rec); err != nil {
				return p, err
			} else if ok {
				p.records = append(p.records, rec)
			}
		}
	}
	p.next = ""
	return p, it.Error()
}

// rangesOf are the keys of namespaces in order; all of a table without any.
func rangesOf(namespaces []string, rest string) (ranges [][2]string) {
	if len(namespaces) == 0 {
		return [][2]string{{"", "\xff"}}
	}
	sorted := slices.Sorted(slices.Values(namespaces))
	for _, ns := range sorted {
		ranges = append(ranges, [2]string{ns + " " + rest, ns + " " + rest + "\xff"})
	}
	return ranges
}

func encodeCatalogPage(p catalogPage) []byte {
	b := wire.AppendString([]byte{codecFirst, byte(catalogDone)}, p.next)
	return appendRecords(b, p.records)
}

func appendRecords(b []byte, records []record) []byte {
	b = binary.AppendUvarint(b, uint64(len(records)))
	for _, rec := range records {
		b = wire.AppendString(wire.AppendString(b, rec.key), appendRecord(nil, rec))
	}
	return b
}

func readRecords(r *wire.Reader) (records []record, err error) {
	for n := r.Count(pkgstore.KeysMax); n > 0 && !r.Failed(); n-- {
		key := r.String(catalogKeyBytesMax)
		rec, err := decodeRecord(key, r.Bytes(2*rowValueBytesMax))
		if err != nil {
			return nil, err
		}
		records = append(records, rec)
	}
	return records, nil
}

func (m *Machine) queryPackages(it *raftfsm.Iter, q packagesQuery) ([]byte, error) {
	rest := ""
	if q.filter.Name != "" {
		rest = q.filter.Name + "@"
	}
	words := q.filter.Words()
	p, err := scan(it, tablePackages, rangesOf(q.namespaces, rest), q.after, q.limit, func(rec record) (bool, error) {
		pkg, err := decodePackage(rec)
		return err == nil && q.filter.Matches(&pkg, words), err
	})
	return encodeCatalogPage(p), err
}

func (m *Machine) queryInstalls(it *raftfsm.Iter, q installsQuery) ([]byte, error) {
	ranges := rangesOf(nil, "")
	switch {
	case q.tenant != "" && q.name != "":
		ranges = [][2]string{{installKey(q.tenant, q.name), installKey(q.tenant, q.name) + "\x00"}}
	case q.tenant != "":
		ranges = rangesOf([]string{q.tenant}, "")
	}
	p, err := scan(it, tableInstalls, ranges, q.after, q.limit, func(rec record) (bool, error) {
		i, err := decodeInstall(rec)
		return err == nil && (q.name == "" || q.name == i.Name) && (q.ref == nil || *q.ref == i.Ref), err
	})
	return encodeCatalogPage(p), err
}

func (m *Machine) queryKeys(it *raftfsm.Iter, namespaces []string) ([]byte, error) {
	p, err := scan(it, tableKeys, rangesOf(namespaces, ""), "", pkgstore.KeysMax, func(record) (bool, error) { return true, nil })
	return encodeCatalogPage(p), err
}

// queryChunk reads one row of an archive, published or not.
func (m *Machine) queryChunk(id blobID, chunk uint32) ([]byte, error) {
	row, err := m.store.Get(chunkKey(id, chunk))
	if errors.Is(err, raftfsm.ErrNotFound) {
		return []byte{codecFirst, byte(catalogUnknown)}, nil
	}
	return append([]byte{codecFirst, byte(catalogDone)}, row...), err
}

// queryResolve answers with a package and the keys that judge its signatures.
func (m *Machine) queryResolve(it *raftfsm.Iter, q resolveQuery) ([]byte, error) {
	g := iterGetter{it}
	for _, ns := range q.namespaces {
		id := q.name + "@" + q.version
		switch {
		case q.digest != nil:
			v, err := g.Get(digestKey(*q.digest, ns))
			if errors.Is(err, raftfsm.ErrNotFound) {
				continue
			}
			if err != nil {
				return nil, err
			}
			id = string(v)
		case q.version == "":
			var err error
			if id, err = latest(it, ns, q.name); err != nil {
				return nil, err
			}
		}
		rec, ok, err := getRecord(g, tablePackages, ns+" "+id)
		if err != nil {
			return nil, err
		}
		if !ok || rec.deleted {
			continue
		}
		pkg, err := decodePackage(rec)
		if err != nil {
			return nil, err
		}
		keys, err := trustRecords(g, &pkg)
		if err != nil {
			return nil, err
		}
		return encodeCatalogPage(catalogPage{records: append([]record{rec}, keys...)}), nil
	}
	return []byte{codecFirst, byte(catalogUnknown)}, nil
}

// trustRecords are the records of the keys that judge a package.
func trustRecords(g getter, p *pkgstore.Package) (out []record, err error) {
	namespaces := []string{pkgstore.Public, p.Namespace}
	for _, s := range p.Signatures {
		for _, ns := range slices.Compact(namespaces) {
			rec, ok, err := getRecord(g, tableKeys, trustKey(ns, s.Key))
			if err != nil {
				return nil, err
			}
			if ok && !rec.deleted {
				out = append(out, rec)
			}
		}
	}
	return out, nil
}

// latest is NAME@VERSION of the highest version that was not taken back; releases before pre-releases.
func latest(it *raftfsm.Iter, namespace, name string) (string, error) {
	best, found := "", false
	_, err := scan(it, tablePackages, rangesOf([]string{namespace}, name+"@"), "", math.MaxInt, func(rec record) (bool, error) {
		p, err := decodePackage(rec)
		if err != nil || p.Yank.Kind >= pkgstore.Yanked {
			return false, err
		}
		pre, bestPre := strings.Contains(p.Version, "-"), strings.Contains(best, "-")
		if !found || bestPre && !pre || pre == bestPre && mwpkg.CompareVersions(p.Version, best) > 0 {
			best, found = p.Version, true
		}
		return false, nil
	})
	return name + "@" + best, err
}

// openAnswer reads the outcome of an answer, which is an error unless it is done.
func openAnswer(b []byte) (*wire.Reader, error) {
	r := wire.NewReader(b)
	v, o := r.Byte(codecFirst), catalogOutcome(r.Byte(byte(catalogOutcomeLast)))
	switch {
	case v != codecFirst || o == 0:
		return nil, fmt.Errorf("%w: answer of the catalog", errCodec)
	case o == catalogRestoring:
		return nil, raftfsm.ErrRestoring
	case o == catalogUnknown:
		return nil, pkgstore.ErrUnknown
	}
	return r, nil
}

func decodeCatalogPage(b []byte) (catalogPage, error) {
	r, err := openAnswer(b)
	if err != nil {
		return catalogPage{}, err
	}
	p := catalogPage{next: r.String(catalogKeyBytesMax)}
	if p.records, err = readRecords(r); err != nil {
		return catalogPage{}, err
	}
	if err := r.Done(); err != nil {
		return catalogPage{}, fmt.Errorf("%w: page of the catalog", errCodec)
	}
	return p, nil
}
