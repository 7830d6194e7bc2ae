// Package storetest has the tests that every object store must pass.
package storetest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/maestro-conductor/maestro/internal/objectstore"
)

// content is bytes that do not repeat.
func content(n int) []byte {
	rng := rand.New(rand.NewPCG(1, uint64(n)))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return b
}

// Run stores, reads, lists and deletes objects in an empty store.
func Run(t *testing.T, s objectstore.Store) {
	t.Helper()
	ctx, b := context.Background(), content(3<<20+17)
	check := func(what string, err, want error) {
		t.Helper()
		if !errors.Is(err, want) || (err == nil) != (want == nil) {
			t.Fatalf("%s: %v, want %v", what, err, want)
		}
	}
	check("read before", s.ReadAt(ctx, "region/a-0/one.segment", make([]byte, 4), 0), objectstore.ErrNotFound)
	for range 2 { // again changes nothing
		check("put", s.Put(ctx, "region/a-0/one.segment", bytes.NewReader(b), int64(len(b))), nil)
	}
	check("put", s.Put(ctx, "region/a-1/two.segment", bytes.NewReader(b[:5]), 5), nil)
	for _, at := range []int{0, 1, 1 << 20, len(b) - 4} {
		got := make([]byte, min(70_000, len(b)-at))
		check("read", s.ReadAt(ctx, "region/a-0/one.segment", got, int64(at)), nil)
		if !bytes.Equal(got, b[at:at+len(got)]) {
			t.Fatalf("other bytes at %d", at)
		}
	}
	check("read beyond the end", s.ReadAt(ctx, "region/a-0/one.segment", make([]byte, 9), int64(len(b)-3)), io.ErrUnexpectedEOF)
	list := func(prefix string) (names []string) {
		t.Helper()
		check("list", s.List(ctx, prefix, func(name string, modified time.Time) error {
			if time.Since(modified).Abs() > time.Hour {
				t.Errorf("%s was modified at %v", name, modified)
			}
			names = append(names, name)
			return nil
		}), nil)
		slices.Sort(names)
		return names
	}
	if got := list("region/"); !slices.Equal(got, []string{"region/a-0/one.segment", "region/a-1/two.segment"}) {
		t.Fatalf("%v", got)
	}
	if got := list("region/a-1/"); !slices.Equal(got, []string{"region/a-1/two.segment"}) {
		t.Fatalf("%v", got)
	}
	stop := errors.New("stop")
	check("a stopped list", s.List(ctx, "", func(string, time.Time) error { return stop }), stop)
	for range 2 {
		check("delete", s.Delete(ctx, "region/a-0/one.segment"), nil)
	}
	check("read what was deleted", s.ReadAt(ctx, "region/a-0/one.segment", make([]byte, 4), 0), objectstore.ErrNotFound)
	if got := list(""); !slices.Equal(got, []string{"region/a-1/two.segment"}) {
		t.Fatalf("%v", got)
	}
}

// Unavailable checks that a store that cannot be reached says so, and never that an object is not there.
func Unavailable(t *testing.T, s objectstore.Store) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	for what, err := range map[string]error{
		"put":    s.Put(ctx, "a/b", bytes.NewReader([]byte("x")), 1),
		"read":   s.ReadAt(ctx, "a/b", make([]byte, 1), 0),
		"delete": s.Delete(ctx, "a/b"),
		"list":   s.List(ctx, "a", func(string, time.Time) error { return nil }),
	} {
		if !errors.Is(err, objectstore.ErrUnavailable) || errors.Is(err, objectstore.ErrNotFound) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// RunCache reads a store through a cache; end makes the store unavailable.
func RunCache(t *testing.T, s objectstore.Store, end func()) {
	t.Helper()
	b := content(2 << 20)
	if err := s.Put(context.Background(), "o", bytes.NewReader(b), int64(len(b))); err != nil {
		t.Fatal(err)
	}
	c, err := objectstore.NewCache(s, t.TempDir(), 600<<10)
	if err != nil {
		t.Fatal(err)
	}
	read := func(at, n int) {
		t.Helper()
		got := make([]byte, n)
		if err := c.ReadAt("o", int64(len(b)), got, int64(at)); err != nil || !bytes.Equal(got, b[at:at+n]) {
			t.Fatalf("at %d: %v", at, err)
		}
	}
	read(0, len(b))
	read(len(b)-5, 5)
	if r := c.Reads(); r.Store != 8 || r.Cached != 1 || r.Bytes > 600<<10 {
		t.Fatalf("%+v", r)
	}
	c.Drop("o", int64(len(b)-5), 5)
	read(len(b)-5, 5)
	if r := c.Reads(); r.Store != 9 {
		t.Fatalf("after a drop: %+v", r)
	}
	end()
	read(len(b)-100, 100) // it is in the cache
	for range 2 {
		if err := c.ReadAt("o", int64(len(b)), make([]byte, 5), 0); !errors.Is(err, objectstore.ErrUnavailable) {
			t.Fatal(err)
		}
	}
	if r := c.Reads(); r.Store != 10 || r.Failed != 2 {
		t.Errorf("without the store: %+v", r)
	}
}
