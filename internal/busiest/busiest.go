// Package busiest finds the keys that are asked about most, in bounded memory: the Space-Saving sketch
// (Metwally, Agrawal and El Abbadi, 2005) with counts that decay (Cormode, Shkapenyuk, Srivastava and
// Xu, "Forward Decay", 2009), so that it tells of about the last minute.
package busiest

import (
	"cmp"
	"container/heap"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// halfLife is when what was counted weighs half. Longer remembers what is over, shorter jumps
	// with every pause.
	halfLife = 20 * time.Second
	// sampledMost is how many observations a second are counted; of more, a random share is.
	sampledMost = 4_000
	// rateLeast is the least rate, per second, that is shown: one in a few minutes.
	rateLeast = 0.005
	// exponentMost keeps the growing weights of forward decay far from the end of float64.
	exponentMost = 500
)

// Key is what is counted.
type Key struct{ Tenant, Token, Key string }

// Entry is a key with its rates, per second.
type Entry struct {
	Key
	Checks, Denies float64
	// Error is how much of Checks may be another key's, whose place this one took.
	Error float64
	// Limit is the limit that denied it last.
	Limit string
}

// Sketch counts. It is safe for concurrent use.
type Sketch struct {
	size int
	now  func() time.Duration
	mask atomic.Uint32 // one of mask+1 observations is counted

	mu      sync.Mutex
	base    time.Duration // when a weight is 1
	entries map[Key]*entry
	least   byChecks
	// begun is when the second began whose observations counted is the number of.
	begun   time.Duration
	counted int
}

// entry holds weights as of base.
type entry struct {
	Entry
	at int // in the heap
}

// New makes a sketch of at most size keys. now is a clock that never goes back.
func New(size int, now func() time.Duration) *Sketch {
	return &Sketch{size: size, now: now, base: now(), begun: now(), entries: make(map[Key]*entry, size)}
}

// clone is k with texts of its own: those of a request may be parts of a message.
func (k Key) clone() Key {
	return Key{Tenant: strings.Clone(k.Tenant), Token: strings.Clone(k.Token), Key: strings.Clone(k.Key)}
}

// Add counts a check of a key. limit is what denied it, or empty.
func (s *Sketch) Add(k Key, limit string) {
	mask := s.mask.Load()
	if mask != 0 && rand.Uint32()&mask != 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	s.pace(now, mask)
	weight := float64(mask+1) * s.weight(now)
	e := s.entries[k]
	switch {
	case e != nil:
	case len(s.least) < s.size:
		k = k.clone()
		e = &entry{Entry: Entry{Key: k}}
		s.entries[k] = e
		heap.Push(&s.least, e)
	default:
		k = k.clone()
		e = s.least[0]
		delete(s.entries, e.Key)
		e.Entry = Entry{Key: k, Checks: e.Checks, Error: e.Checks}
		s.entries[k] = e
	}
	e.Checks += weight
	if limit != "" {
		e.Denies += weight
		e.Limit = limit
	}
	heap.Fix(&s.least, e.at)
}

// Top are the n busiest keys of a tenant, or of all when it is empty; by what was denied when denied
// is set.
func (s *Sketch) Top(tenant string, n int, denied bool) []Entry {
	s.mu.Lock()
	defer s.mu.Unlock()
	perSecond := math.Ln2 / halfLife.Seconds() / s.weight(s.now())
	var out []Entry
	for k, e := range s.entries {
		if tenant != "" && tenant != k.Tenant {
			continue
		}
		shown := e.Entry
		shown.Checks, shown.Denies, shown.Error = e.Checks*perSecond, e.Denies*perSecond, e.Error*perSecond
		if by(shown, denied) >= rateLeast {
			out = append(out, shown)
		}
	}
	return First(out, n, denied)
}

// First sorts entries and keeps the first n.
func First(all []Entry, n int, denied bool) []Entry {
	slices.SortFunc(all, func(a, b Entry) int {
		return cmp.Or(cmp.Compare(by(b, denied), by(a, denied)), cmp.Compare(a.Tenant, b.Tenant), cmp.Compare(a.Token, b.Token), cmp.Compare(a.Key.Key, b.Key.Key))
	})
	return all[:min(len(all), n)]
}

// Merge sums what several sketches tell of the same keys.
func Merge(all ...[]Entry) []Entry {
	sums := map[Key]*Entry{}
	for _, entries := range all {
		for _, e := range entries {
			sum := sums[e.Key]
			if sum == nil {
				sum = &Entry{Key: e.Key}
				sums[e.Key] = sum
			}
			sum.Checks += e.Checks
			sum.Denies += e.Denies
			sum.Error += e.Error
			sum.Limit = cmp.Or(e.Limit, sum.Limit)
		}
	}
	out := make([]Entry, 0, len(sums))
	for _, e := range sums {
		out = append(out, *e)
	}
	return out
}

func by(e Entry, denied bool) float64 {
	if denied {
		return e.Denies
	}
	return e.Checks
}

// weight is what an observation at now counts beside one at base.
func (s *Sketch) weight(now time.Duration) float64 {
	exponent := float64(now-s.base) / float64(halfLife)
	if exponent <= exponentMost {
		return math.Exp2(exponent)
	}
	for _, e := range s.entries {
		e.Checks, e.Denies, e.Error = math.Ldexp(e.Checks, -int(exponent)), math.Ldexp(e.Denies, -int(exponent)), math.Ldexp(e.Error, -int(exponent))
	}
	s.base += time.Duration(int(exponent)) * halfLife
	return math.Exp2(float64(now-s.base) / float64(halfLife))
}

// pace adjusts the share that is counted, once a second.
func (s *Sketch) pace(now time.Duration, mask uint32) {
	if s.counted++; now-s.begun < time.Second && s.counted <= sampledMost {
		return
	}
	switch {
	case now-s.begun < time.Second:
		s.mask.Store(mask<<1 | 1)
	case s.counted < sampledMost/4:
		s.mask.Store(mask >> 1)
	}
	s.begun, s.counted = now, 0
}

// byChecks is a heap whose first entry has the fewest checks.
type byChecks []*entry

func (h byChecks) Len() int           { return len(h) }
func (h byChecks) Less(i, j int) bool { return h[i].Checks < h[j].Checks }
func (h byChecks) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].at, h[j].at = i, j
}

func (h *byChecks) Push(x any) {
	e := x.(*entry)
	e.at = len(*h)
	*h = append(*h, e)
}

// Pop is never used: entries are replaced, not removed.
func (h *byChecks) Pop() any {
	last := len(*h) - 1
	e := (*h)[last]
	*h = (*h)[:last]
	return e
}
