package raftfsm

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/objstorage/objstorageprovider"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// exchangeName is the file of rows that are exchanged, while they are.
const exchangeName = "tmp-exchange.sst"

// Exchange puts rows, in the order of their keys, in the place of all in [lower, upper), at once and
// durably. What was there is not read, and no compaction reads it later: it may be damaged on the disk.
//
// It is for rows that should be there anyway, since it is no part of an entry. Only Apply and Load may call it:
// no entry changes the rows meanwhile.
func (s *Store) Exchange(lower, upper []byte, rows iter.Seq2[[]byte, []byte]) (err error) {
	if err := makeDir(s.folder.fs, s.folder.dir); err != nil {
		return err
	}
	path := s.folder.fs.PathJoin(s.folder.dir, exchangeName)
	if err := removeFile(s.folder.fs, path); err != nil {
		return fmt.Errorf("raftfsm: exchange rows: %w", err)
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("raftfsm: exchange rows: %w", err)
		}
		err = errors.Join(err, removeFile(s.folder.fs, path))
	}()
	f, err := s.folder.fs.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	w := sstable.NewWriter(objstorageprovider.NewFileWritable(f), sstable.WriterOptions{
		TableFormat: s.db.TableFormat(), BlockSize: 32 << 10, IndexBlockSize: 256 << 10, Compression: sstable.NoCompression,
	})
	for key, value := range rows {
		if err := w.Set(join(s.state, key), value); err != nil {
			return errors.Join(err, w.Close())
		}
	}
	if err := w.Close(); err != nil { // it syncs the file
		return err
	}
	span := pebble.KeyRange{Start: join(s.state, lower), End: upperBound(s.state, upper)}
	_, err = s.db.IngestAndExcise(context.Background(), []string{path}, nil, nil, span)
	return err
}
