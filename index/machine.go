package index

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/maestro-conductor/maestro/index/internal/segment"
	"github.com/maestro-conductor/maestro/internal/objectstore"
	"github.com/maestro-conductor/maestro/raftfsm"
)

const (
	// frozenMax is how many frozen heads wait to be sealed before Apply waits for them.
	frozenMax = 4
	// cacheBytes is how much was read of segments a machine without a shared cache keeps in memory.
	cacheBytes = 48 << 20
)

// Machine is the state machine of one shard. Replicated are the documents, as rows by number until
// they are sealed and as segments from then on, and their count. Heads are derived on each node, and so
// are segments until the log has them moved into the state.
type Machine struct {
	headDocuments int
	mergedHeads   int
	// turns begins a long piece of work that nobody waits for; the function it returns is called
	// every so often and may rest.
	turns func() func()

	// life is held by whoever uses the store, and exclusively by Load while it replaces
	// everything.
	life  sync.RWMutex
	store *raftfsm.Store
	cache *segment.Cache
	// objects is where cold segments are; nil without a store.
	objects *objectstore.Cache

	mu       sync.RWMutex
	segments []segmentSource // replaced, never changed
	frozen   []*head         // oldest first; replaced, never changed
	active   *head
	docs     uint64 // documents visible to searches
	failed   error  // what ended a worker
	damaged  *sealed
	stopping bool
	layout   byte   // of the state
	moved    uint64 // documents that are in segments of the state; only Apply and Load write it
	// merged is the file of the next merge of segments of the state; nil until it is there.
	merged *sealed
	// pending is what the state wants disposed of, and disposal what this node has computed of it; nil
	// when there is none.
	pending  *pendingDisposal
	disposal *disposal
	// delayed is why the pending disposal cannot be computed for now.
	delayed error
	// changed is signalled when any of these change, but docs; its lock is mu.
	changed *sync.Cond
	workers sync.WaitGroup // seal, tend, dispose, mend and scrub
	// end ends what workers wait for outside of the machine.
	end context.CancelFunc

	// keeper is nil until the machine is attended; unsound are segments of the state that are to be mended.
	keeper  *Keeper
	unsound []*unsound // replaced or appended to, never changed
	// interrupted has Apply wait no longer.
	interrupted bool

	damages, mends, scrubbed atomic.Uint64
	// objectsDamaged counts reads of cold segments whose object has wrong bytes.
	objectsDamaged atomic.Uint64

	// hurry is how many wait for the sealer; it does not rest then.
	hurry atomic.Int32
	// gone counts documents that were disposed of.
	gone atomic.Uint64
	// differing counts segments whose bytes were not the leader's.
	differing atomic.Uint64

	clock retentionClock // only Apply and Load write it, under mu
	now   atomic.Int64   // the retention time of the last entry

	buffers buffers // of Apply
}

// NewMachine makes the machine of one shard. turns is called when the machine begins to load or to
// build a segment, and the function it returns every so often meanwhile, so that it can rest for
// the sake of others; nil means never. cache may be shared; nil means one of its own.
func NewMachine(turns func() func(), cache *Cache) *Machine {
	m := newMachine(headDocumentsMax, mergedHeads)
	if turns != nil {
		m.turns = turns
	}
	if cache != nil {
		m.cache = cache
	}
	return m
}

// Cache is what was read of segments. The shards of a node share one.
type Cache = segment.Cache

// NewCache makes a cache of at most so many bytes.
func NewCache(bytes int) *Cache { return segment.NewCache(bytes) }

func newMachine(headDocuments, mergedHeads int) *Machine {
	m := &Machine{headDocuments: headDocuments, mergedHeads: mergedHeads, cache: segment.NewCache(cacheBytes), turns: func() func() { return func() {} }}
	m.changed = sync.NewCond(&m.mu)
	return m
}

// Tables of the replicated state.
const (
	tableDocument = 'd' // number, 8 bytes -> encoded document; before layoutBatches
	tableBatch    = 'b' // number of the first document, 8 bytes -> command that stores these documents
	tableID       = 'i' // hash of tenant and id, 16 bytes -> number, hash of the content; before layoutSegments
	tableCount    = 'n' // -> how many documents there are
)

func documentKey(number uint64) []byte {
	return binary.BigEndian.AppendUint64([]byte{tableDocument}, number)
}

// Load rebuilds the heads and opens the segments.
func (m *Machine) Load(store *raftfsm.Store) error {
	m.life.Lock()
	defer m.life.Unlock()
	if err := m.stop(); err != nil {
		return err
	}
	count, err := readCount(store.Get)
	if err != nil {
		return err
	}
	layout, err := readLayout(store.Get)
	if err != nil {
		return err
	}
	pending, err := loadPending(store)
	if err != nil {
		return err
	}
	clock, err := loadClock(store)
	if err != nil {
		return err
	}
	m.setClock(clock)
	m.now.Store(clock.last.time)
	m.store = store
	m.mu.Lock()
	m.unsound, m.interrupted = nil, false
	segments, moved, end, err := m.openSegments(count, layout)
	m.mu.Unlock()
	if err != nil {
		return err
	}
	m.mu.Lock()
	m.segments, m.frozen, m.active, m.docs = segments, nil, newHead(end), end
	m.failed, m.damaged, m.stopping = nil, nil, false
	m.layout, m.moved = layout, moved
	m.pending, m.disposal, m.delayed = pending, nil, nil
	m.mu.Unlock()
	m.noteDeleted(segments, moved)
	var ctx context.Context
	ctx, m.end = context.WithCancel(context.Background())
	m.workers.Add(5)
	go m.seal()
	go m.dispose(ctx)
	go m.tend()
	go m.mend(ctx)
	go m.scrub(ctx)
	return m.rebuildHeads(end, count)
}

// rebuildHeads indexes the documents that no segment has.
func (m *Machine) rebuildHeads(from, count uint64) error {
	rest := m.turns()
	return m.readRows(from, count, func(chunk []Document, rows [][]byte) error {
		rest()
		if err := m.waitForSealer(); err != nil {
			return err
		}
		m.publish(chunk, rows)
		return nil
	})
}

// Suspend ends the workers before a snapshot replaces the rows, or the replica is erased with
// its files.
func (m *Machine) Suspend() {
	m.life.Lock()
	defer m.life.Unlock()
	// What cannot be closed was read only. Load or Close follows, and there is nothing left to close.
	_ = m.stop()
}

// Close ends the workers and closes the files.
func (m *Machine) Close() error {
	m.life.Lock()
	defer m.life.Unlock()
	return m.stop()
}

// stop ends the workers and lets go of the segments. Nobody searches meanwhile, nor later
// before Load.
func (m *Machine) stop() error {
	m.mu.Lock()
	m.stopping = true
	if m.end != nil {
		m.end()
	}
	m.changed.Broadcast()
	m.mu.Unlock()
	m.workers.Wait()
	m.mu.Lock()
	defer m.mu.Unlock()
	open := m.segments
	m.segments = nil
	if m.merged != nil {
		open = append(open[:len(open):len(open)], segmentSource{m.merged})
		m.merged = nil
	}
	if d := m.disposal; d != nil && d.file != nil {
		open = append(open[:len(open):len(open)], segmentSource{d.file})
	}
	m.pending, m.disposal = nil, nil
	return releaseAll(open)
}

const (
	// publishChunk is how many documents enter the head under one lock.
	publishChunk = 256
	// rebuildChunk is how many documents are indexed between two chances to rest: less than a
	// millisecond.
	rebuildChunk = 64
)

// publish makes documents visible to searches; their rows are committed.
func (m *Machine) publish(docs []Document, rows [][]byte) {
	for len(docs) > 0 {
		n := min(len(docs), publishChunk, m.headDocuments-int(m.active.span))
		m.active.add(docs[:n], rows[:n])
		docs, rows = docs[n:], rows[n:]
		var next *head
		if int(m.active.span) == m.headDocuments {
			next = m.active.next()
		}
		m.mu.Lock()
		m.docs += uint64(n)
		if next != nil {
			m.frozen = append(m.frozen[:len(m.frozen):len(m.frozen)], m.active)
			m.active = next
			m.changed.Broadcast()
		}
		m.mu.Unlock()
	}
}

// waitForSealer blocks while too many heads wait. It is an error when the sealer has failed:
// then heads would pile up in memory.
func (m *Machine) waitForSealer() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for len(m.frozen) >= frozenMax && m.failed == nil {
		m.changed.Wait()
	}
	return m.failed
}

// Query answers an encoded shard query.
func (m *Machine) Query(ctx context.Context, b []byte) ([]byte, error) {
	if len(b) > 0 && b[0] == wirePeer {
		m.life.RLock()
		defer m.life.RUnlock()
		return m.answerPeer(b)
	}
	q, err := decodeShardQuery(b)
	if err != nil {
		return nil, err
	}
	m.life.RLock()
	defer m.life.RUnlock()
	a, err := m.search(ctx, q)
	if err != nil {
		return nil, err
	}
	return a.encode(), nil
}

// search begins anew when a segment that it reads was replaced, or cannot be read.
func (m *Machine) search(ctx context.Context, q *shardQuery) (shardAnswer, error) {
	var gone away
	for {
		a, err := m.searchOnce(ctx, q, &gone)
		var cold *coldError
		switch {
		case ctx.Err() != nil:
			return a, err
		case errors.As(err, &cold):
			gone.add(cold.base)
		case !errors.Is(err, errReplaced):
			return a, err
		}
	}
}

// searchOnce leaves out the segments that are away.
func (m *Machine) searchOnce(ctx context.Context, q *shardQuery, gone *away) (shardAnswer, error) {
	p, err := parseShardQuery(q)
	var mistake *QueryError
	if errors.As(err, &mistake) {
		return shardAnswer{mistake: mistake}, nil
	}
	if err != nil {
		return shardAnswer{}, err
	}
	sources, docs, release := m.sources()
	defer release()
	if sources == nil {
		return shardAnswer{}, fmt.Errorf("%w: a segment cannot be opened until it is mended", segment.ErrCorrupt)
	}
	missing := ""
	if gone.any() {
		var lost []segmentSource
		if sources, lost = gone.split(sources); len(lost) > 0 {
			missing = missingOfAway(lost)
		}
	}
	a, err := m.searchIn(ctx, q, p, sources, docs)
	a.missing = missing
	return a, err
}

func (m *Machine) searchIn(ctx context.Context, q *shardQuery, p *plan, sources []source, docs uint64) (shardAnswer, error) {
	w := window{bound: docs, since: q.since, after: q.after, limit: q.limit + 1, order: q.order}
	if q.bound != nil {
		if w.bound = *q.bound; w.bound > docs {
			return shardAnswer{behind: true}, nil
		}
	}
	if w.since > w.bound {
		return shardAnswer{behind: true}, nil
	}
	// They are in the order of their numbers: what stands before the last one that begins at
	// since or earlier is not looked at.
	for len(sources) > 1 && sources[1].base() <= w.since {
		sources = sources[1:]
	}
	s := shardSearch{sources: sources, plan: p, query: q, window: w}
	if q.lookup != nil {
		return s.lookup(ctx)
	}
	if q.explain {
		s.seen = observe(sources)
	}
	return s.run(ctx)
}

// sources are the heads and segments, and how many documents they have together; nil while one cannot be
// opened. They may be used until release.
func (m *Machine) sources() (all []source, docs uint64, release func()) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if !m.isWhole() {
		return nil, 0, func() {}
	}
	all = make([]source, 0, len(m.segments)+len(m.frozen)+1)
	held := m.segments
	for _, s := range held {
		s.hold()
		all = append(all, s)
	}
	for _, h := range m.frozen {
		all = append(all, headSource{h})
	}
	if m.active != nil {
		all = append(all, headSource{m.active})
	}
	// A file that was read and cannot be closed changes no answer.
	return all, m.docs, func() { _ = releaseAll(held) }
}

func readCount(get func([]byte) ([]byte, error)) (uint64, error) {
	v, err := get([]byte{tableCount})
	if errors.Is(err, raftfsm.ErrNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	if len(v) != 8 {
		return 0, errors.New("index: the row that counts the documents is damaged")
	}
	return binary.BigEndian.Uint64(v), nil
}
