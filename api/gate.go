package api

import (
	"sync"
	"time"
)

// gate bounds the requests of one class that are under way, and the bytes of their bodies, in
// all and for each tenant.
type gate struct {
	classLimit
	mostOne      int
	mostOneBytes int64
	now          func() time.Time

	mu       sync.Mutex
	inside   share
	byTenant map[string]*share
	// lastLeft is when a request left last, and gap the time between two, smoothed.
	lastLeft time.Time
	gap      time.Duration
}

// share is what is under way.
type share struct {
	requests int
	bytes    int64
}

// newGate lets a single tenant take at most half of the room.
func newGate(most classLimit) *gate {
	return &gate{
		classLimit: most, mostOne: max(1, most.requests/2), mostOneBytes: most.bytes / 2,
		now: time.Now, byTenant: map[string]*share{},
	}
}

func newGates() (gates [classes]*gate) {
	for c := range classes {
		gates[c] = newGate(classLimits[c])
	}
	return gates
}

// enter takes a place, or says why there is none. A nil fault obliges to call leave.
func (g *gate) enter(tenant string) *fault {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.inside.requests >= g.requests {
		return g.shed(reasonOverloaded, "this node has %d requests of this kind under way, the most it takes", g.requests)
	}
	if tenant != AllTenants {
		t := g.byTenant[tenant]
		if t == nil {
			t = &share{}
			g.byTenant[tenant] = t
		}
		if t.requests >= g.mostOne {
			return g.shed(reasonTenantOverloaded, "tenant %s has %d requests of this kind under way on this node, the most it may have", tenant, g.mostOne)
		}
		t.requests++
	}
	g.inside.requests++
	return nil
}

// charge counts bytes of a body that have arrived, or says that there is no room for them.
func (g *gate) charge(tenant string, n int64) *fault {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.inside.bytes+n > g.bytes {
		return g.shed(reasonOverloaded, "this node holds %d bytes of requests of this kind, the most it takes", g.inside.bytes)
	}
	if t := g.byTenant[tenant]; t != nil {
		if t.bytes+n > g.mostOneBytes {
			return g.shed(reasonTenantOverloaded, "this node holds %d bytes of requests of this kind for tenant %s, the most it may have", t.bytes, tenant)
		}
		t.bytes += n
	}
	g.inside.bytes += n
	return nil
}

// adjust counts bytes that are there already, or gone: nobody can be refused for them any more.
func (g *gate) adjust(tenant string, n int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.inside.bytes += n
	if t := g.byTenant[tenant]; t != nil {
		t.bytes += n
	}
}

// discharge gives bytes back that were charged.
func (g *gate) discharge(tenant string, n int64) { g.adjust(tenant, -n) }

// leave gives the place back, after its bytes.
func (g *gate) leave(tenant string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := g.now()
	if !g.lastLeft.IsZero() {
		g.gap += (min(now.Sub(g.lastLeft), gapMax) - g.gap) / gapSmoothing
	}
	g.lastLeft = now
	g.inside.requests--
	t := g.byTenant[tenant]
	if t == nil {
		return
	}
	// A tenant with nothing under way leaves no trace: the map is bounded by the requests.
	if t.requests--; t.requests == 0 {
		delete(g.byTenant, tenant)
	}
}

const (
	// gapMax keeps a quiet night from counting as slowness, gapSmoothing one slow request.
	gapMax       = time.Second
	gapSmoothing = 16
	// retryLeast and retryMost bound the advice: sooner would be a storm, later a guess.
	retryLeast = 20 * time.Millisecond
	retryMost  = 10 * time.Second
)

// shed refuses with the time after which those who are inside now have left, at the rate at
// which they have left lately (Little's law).
func (g *gate) shed(r *reason, format string, args ...any) *fault {
	f := refuse(r, format, args...)
	if g.gap > 0 {
		f.retryIn(g.gap * time.Duration(g.inside.requests))
	}
	return f
}

// meter charges the bytes of one request's body as they arrive.
type meter struct {
	gate   *gate
	tenant string
	taken  int64
	// refused is why a body was shed; nil when none was. Connect passes it on without a word to
	// the handler.
	refused *fault
}

func (m *meter) take(n int) *fault {
	if m == nil || n == 0 {
		return nil
	}
	f := m.gate.charge(m.tenant, int64(n))
	if f != nil {
		m.refused = f
		return f
	}
	m.taken += int64(n)
	return nil
}

// handOver is what was taken for a message that is done with later; see giveBack.
func (m *meter) handOver() int64 {
	n := m.taken
	m.taken = 0
	return n
}

// set makes what was taken n bytes, which are there already.
func (m *meter) set(n int64) {
	m.gate.adjust(m.tenant, n-m.taken)
	m.taken = n
}

func (m *meter) giveBack(n int64) { m.gate.discharge(m.tenant, n) }

// release gives back what was taken: the message is done with.
func (m *meter) release() {
	m.gate.discharge(m.tenant, m.taken)
	m.taken = 0
}
