// Package objectstore keeps immutable objects in a folder or in an S3 bucket, and reads parts of them
// through a bounded cache on the local disk.
//
// An object is named for what is in it, so writing one again changes nothing, and whoever reads a name reads the
// same bytes. The package does not check them: who stores has checksums of its own.
package objectstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

var (
	// ErrNotFound means that there is no object of a name.
	ErrNotFound = errors.New("objectstore: there is no such object")
	// ErrUnavailable means that the store does not answer, or refuses: nothing is known of the object.
	ErrUnavailable = errors.New("objectstore: the store cannot be read")
)

// ErrName means a name that no object can have.
var ErrName = errors.New("objectstore: malformed name")

// CheckName returns ErrName for what is not the name of an object: above all names that lead out of a folder.
func CheckName(name string) error {
	for part := range strings.SplitSeq(name, "/") {
		ok := part != "" && part != "." && part != ".." && !strings.HasPrefix(part, tempPrefix)
		for i := range len(part) {
			c := part[i]
			ok = ok && ('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '.' || c == '_' || c == '-')
		}
		if !ok {
			return fmt.Errorf("%w %q", ErrName, name)
		}
	}
	return nil
}

// Store keeps objects. It is safe for concurrent use. Names are parts of letters, digits, '.', '_' and '-' with '/'
// between them. Errors are ErrNotFound, ErrUnavailable or ErrName, wrapped with the operation and name.
type Store interface {
	// Put stores size bytes of r. The object is there whole or not at all, and durable, when it returns.
	Put(ctx context.Context, name string, r io.ReaderAt, size int64) error
	// ReadAt fills b with what begins at an offset. It is io.ErrUnexpectedEOF beyond the end.
	ReadAt(ctx context.Context, name string, b []byte, at int64) error
	// Delete removes an object; one that is not there is no error.
	Delete(ctx context.Context, name string) error
	// List calls use for every object whose name begins with prefix, until it returns an error.
	List(ctx context.Context, prefix string, use func(name string, modified time.Time) error) error
}
