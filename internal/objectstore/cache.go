package objectstore

import (
	"container/list"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// chunkBytes is how much is read of a store at once: a request costs tens of milliseconds, whatever it brings,
	// and what stands next to a block is often wanted too. Larger reads more that nobody wants.
	chunkBytes = 256 << 10
	// readTimeout is how long a store may take for a chunk. Searches wait for it.
	readTimeout = time.Second
	// restAfter is how long nothing is read after a store has failed: searches say at once that something is
	// missing, instead of waiting in vain, one after the other.
	restAfter = 5 * time.Second
)

// Cache reads a store through files on the local disk, which it begins without. It is safe for concurrent use.
type Cache struct {
	store Store
	dir   string
	most  int64
	now   func() time.Time

	reads, hits, failures atomic.Uint64

	mu     sync.Mutex
	size   int64
	chunks map[chunkKey]*list.Element
	order  *list.List // of *chunk, the latest first
	// under are reads of the store that others wait for.
	under map[chunkKey]*fetching
	// restUntil is when the store is read again, and why it is not, after a failure.
	restUntil time.Time
	failed    error
}

type chunkKey struct {
	name string
	n    int64
}

type chunk struct {
	key  chunkKey
	size int64
}

type fetching struct {
	done chan struct{}
	b    []byte
	err  error
}

// Reads are how the store was read since the start.
type Reads struct {
	// Store counts chunks read of the store, Cached those that were there, Failed those that could not be read.
	Store, Cached, Failed uint64
	// Bytes is what the cache holds.
	Bytes int64
}

// NewCache empties dir and keeps most bytes there at most.
func NewCache(store Store, dir string, most int64) (*Cache, error) {
	if err := os.RemoveAll(dir); err != nil {
		return nil, fmt.Errorf("objectstore: cache: %w", err)
	}
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, fmt.Errorf("objectstore: cache: %w", err)
	}
	return &Cache{store: store, dir: dir, most: most, now: time.Now, chunks: map[chunkKey]*list.Element{}, order: list.New(), under: map[chunkKey]*fetching{}}, nil
}

// Store is what is behind the cache.
func (c *Cache) Store() Store { return c.store }

// Reads tells how it was read.
func (c *Cache) Reads() Reads {
	c.mu.Lock()
	defer c.mu.Unlock()
	return Reads{Store: c.reads.Load(), Cached: c.hits.Load(), Failed: c.failures.Load(), Bytes: c.size}
}

// ReadAt fills b with what an object of so many bytes has at an offset. After a failure it fails at once for some seconds.
func (c *Cache) ReadAt(name string, size int64, b []byte, at int64) error {
	for len(b) > 0 {
		n := at / chunkBytes
		v, err := c.chunk(chunkKey{name, n}, min(chunkBytes, size-n*chunkBytes))
		if err != nil {
			return err
		}
		from := at - n*chunkBytes
		if from >= int64(len(v)) {
			return fmt.Errorf("read %s at %d: %w", name, at, io.ErrUnexpectedEOF)
		}
		took := copy(b, v[from:])
		b, at = b[took:], at+int64(took)
	}
	return nil
}

// Drop forgets what the cache has of a part of an object, so that it is read of the store again.
func (c *Cache) Drop(name string, at int64, n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for k := at / chunkBytes; k <= (at+int64(n))/chunkBytes; k++ {
		if e, ok := c.chunks[chunkKey{name, k}]; ok {
			c.remove(e)
		}
	}
}

func (c *Cache) chunk(key chunkKey, size int64) ([]byte, error) {
	if size <= 0 {
		return nil, nil
	}
	c.mu.Lock()
	if e, ok := c.chunks[key]; ok {
		c.order.MoveToFront(e)
		c.mu.Unlock()
		// It may be removed now; then it is read again.
		if b, err := os.ReadFile(c.path(key)); err == nil && int64(len(b)) == size {
			c.hits.Add(1)
			return b, nil
		}
		c.mu.Lock()
		if c.chunks[key] == e {
			c.remove(e)
		}
	}
	if f, ok := c.under[key]; ok {
		c.mu.Unlock()
		<-f.done
		return f.b, f.err
	}
	if c.now().Before(c.restUntil) {
		err := c.failed
		c.mu.Unlock()
		c.failures.Add(1)
		return nil, err
	}
	f := &fetching{done: make(chan struct{})}
	c.under[key] = f
	c.mu.Unlock()
	f.b, f.err = c.fetch(key, size)
	c.mu.Lock()
	delete(c.under, key)
	if errors.Is(f.err, ErrUnavailable) {
		c.restUntil, c.failed = c.now().Add(restAfter), f.err
	}
	c.mu.Unlock()
	close(f.done)
	return f.b, f.err
}

// fetch reads a chunk of the store, and keeps it if the disk takes it.
func (c *Cache) fetch(key chunkKey, size int64) ([]byte, error) {
	c.reads.Add(1)
	ctx, cancel := context.WithTimeout(context.Background(), readTimeout)
	defer cancel()
	b := make([]byte, size)
	answered := make(chan error, 1)
	go func() { answered <- c.store.ReadAt(ctx, key.name, b, key.n*chunkBytes) }() // a folder that hangs heeds no context
	var err error
	select {
	case err = <-answered:
	case <-ctx.Done():
		err = fmt.Errorf("read %s: %w: %w", key.name, ErrUnavailable, ctx.Err())
	}
	if err != nil {
		c.failures.Add(1)
		return nil, err
	}
	if os.WriteFile(c.path(key), b, 0o600) == nil { // else it is read again the next time
		c.mu.Lock()
		defer c.mu.Unlock()
		c.chunks[key] = c.order.PushFront(&chunk{key, size})
		for c.size += size; c.size > c.most && c.order.Len() > 1; {
			c.remove(c.order.Back())
		}
	}
	return b, nil
}

// remove forgets a chunk; the caller holds mu.
func (c *Cache) remove(e *list.Element) {
	old := c.order.Remove(e).(*chunk)
	delete(c.chunks, old.key)
	c.size -= old.size
	_ = os.Remove(c.path(old.key)) // what stays is overwritten, or goes with the next start
}

func (c *Cache) path(key chunkKey) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s %d", key.name, key.n))
	return filepath.Join(c.dir, hex.EncodeToString(sum[:16]))
}
