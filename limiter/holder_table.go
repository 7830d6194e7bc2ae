package limiter

import (
	"math/bits"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/maestro-conductor/maestro/raftfsm"
)

// holderShards is into how many parts, each with a lock, the leases of a node are cut. All of a
// tenant are in one. More would help only nodes with far more cores than checks a shard.
const holderShards = 64

// placesMax bounds the routes and leases of a shard, and so what one tenant's flood of keys takes: some
// 131,000 keys with leases of their own, or 40 MB with short names. What finds no place its group
// decides.
const placesMax = 1 << 18

// limitSource is where a group's replica on this node publishes the limits in force.
type limitSource = *atomic.Pointer[limitSet]

// holderTable is the leases of one node, and what leads to them. It is a plain data structure:
// messages are handed out by prepare and their answers brought back by answer, and time comes with
// each call, but for the reading that a check must make after its debits.
type holderTable struct {
	holder Holder
	now    func() int64 // steady clock in nanoseconds, above 0
	seed   uint64       // of hashes
	place  func(tenant string) raftfsm.GroupID
	// groups are those of which this node has a replica. It does not change.
	groups map[raftfsm.GroupID]*holderGroup
	// most is placesMax, but in tests.
	most int
	// wanted wakes who asks for blankets.
	wanted chan struct{}
	// gathered is when what nobody waits for was sent last, and urgent is set by a tick that found something
	// which cannot wait for the next time.
	gathered int64
	urgent   bool
	shards   [holderShards]holderShard
}

// holderGroup is a group from which leases are held.
type holderGroup struct {
	id     raftfsm.GroupID
	source limitSource
	queue  renewalQueue
	// shut is set while what the source publishes may be old: then the group decides itself.
	shut atomic.Bool
	// kick wakes who sends messages.
	kick chan struct{}
	// covers is Machine.covers of the replica; nil where nothing is opened by blankets.
	covers   func(limit uint64, h Holder, epoch uint64, key []byte) bool
	blankets sync.Map // uid of a limit -> *limitBlankets
}

type holderShard struct {
	mu      sync.Mutex
	tenants map[string]*holderTenant
	routes  refTable[route]
	// leases by how often they must be looked at.
	leases [leaseClasses]refTable[lease]
	// epochs counts those opened, so that each has a larger number than any before it.
	epochs uint64
	// checked is when each class and the routes were looked at last.
	checked       [leaseClasses]int64
	forgot        int64 // when denials of a tenant that is not here were forgotten last
	routesChecked int64
	counts        holderCounts
	matched       []*limitState // scratch of resolve
	settled       chan struct{} // closed when pending tokens are settled; nil while nobody waits for that
	key           []byte        // scratch of adopt
	warmed        int           // keeps warm from being left out
	_             [64]byte      // keeps locks apart
}

// holderTenant is what the routes of a tenant have in common.
type holderTenant struct {
	name  string
	hash  uint64
	shard *holderShard
	group *holderGroup
	// set is what the routes of generation gen were resolved with.
	set *limitSet
	gen uint32
	// denials is the generation of denials that still count, and forgot when it was moved on last.
	denials uint32
	forgot  int64
	// refs counts routes and leases.
	refs int
}

// route is what a tenant, a token and a key lead to. It is remembered because finding the limits
// that match costs more than all else.
type route struct {
	tenant *holderTenant
	// subject is the token and the key.
	subject  string
	tokenLen uint16
	// central is set if some level is never lent, so that there are no leases.
	central bool
	gen     uint32
	hash    uint32
	used    uint32
	few     [3]*lease // the first levels; unused places are nil
	more    *routeMore
}

// routeMore is what few routes need.
type routeMore struct {
	leases []*lease // those after few
	denial *denial
}

// hashString mixes s into seed as wyhash does, eight bytes at a time.
func hashString(seed uint64, s string) uint64 {
	h := seed ^ uint64(len(s))
	for len(s) >= 8 {
		word := uint64(s[0]) | uint64(s[1])<<8 | uint64(s[2])<<16 | uint64(s[3])<<24 | uint64(s[4])<<32 | uint64(s[5])<<40 | uint64(s[6])<<48 | uint64(s[7])<<56
		h = mix64(h^word, 0xa0761d6478bd642f)
		s = s[8:]
	}
	var tail uint64
	for i := range len(s) {
		tail |= uint64(s[i]) << (8 * i)
	}
	return mix64(h^tail, 0xe7037ed1a0b428db)
}

func mix64(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a, b)
	return hi ^ lo
}

func newHolderTable(holder Holder, seed uint64, now func() int64, place func(string) raftfsm.GroupID, sources map[raftfsm.GroupID]limitSource) *holderTable {
	t := &holderTable{holder: holder, now: now, seed: seed | 1, place: place, most: placesMax, wanted: make(chan struct{}, 1), groups: map[raftfsm.GroupID]*holderGroup{}}
	for id, source := range sources { // any order
		t.groups[id] = &holderGroup{id: id, source: source, kick: make(chan struct{}, 1)}
	}
	for i := range t.shards {
		t.shards[i].tenants = map[string]*holderTenant{}
		t.shards[i].routes.hash = func(r *route) uint64 { return uint64(r.hash) }
		for c := range t.shards[i].leases {
			t.shards[i].leases[c].hash = func(l *lease) uint64 { return leaseHash(l.tenant, l.limit.uid, l.subject) }
		}
	}
	return t
}

// shardOf is the shard of a tenant with this hash.
func (t *holderTable) shardOf(tenantHash uint64) *holderShard {
	return &t.shards[shardNumber(tenantHash)]
}

func shardNumber(tenantHash uint64) int { return int(tenantHash >> (64 - 6)) }

func (r *route) matches(tenant, token, key string) bool {
	return int(r.tokenLen) == len(token) && len(r.subject) == len(token)+len(key) &&
		r.subject[:len(token)] == token && r.subject[len(token):] == key && r.tenant.name == tenant
}

// find looks for the route of a request.
func (s *holderShard) find(hash uint32, tenant, token, key string) *route {
	slots := s.routes.slots
	if len(slots) == 0 {
		return nil
	}
	for i := int(hash) & (len(slots) - 1); ; i = (i + 1) & (len(slots) - 1) {
		r := slots[i]
		if r == nil || r.hash == hash && r.matches(tenant, token, key) {
			return r
		}
	}
}

// findLease looks for a lease of a tenant, which may be nil.
func (s *holderShard) findLease(t *holderTenant, class int, uid uint64, subject string) *lease {
	slots := s.leases[class].slots
	if len(slots) == 0 || t == nil {
		return nil
	}
	for i := int(uint32(leaseHash(t, uid, subject))) & (len(slots) - 1); ; i = (i + 1) & (len(slots) - 1) {
		l := slots[i]
		if l == nil || l.tenant == t && l.limit.uid == uid && l.subject == subject {
			return l
		}
	}
}

// anyLease looks in all classes.
func (s *holderShard) anyLease(t *holderTenant, uid uint64, subject string) *lease {
	for c := range s.leases {
		if l := s.findLease(t, c, uid, subject); l != nil {
			return l
		}
	}
	return nil
}

func leaseHash(t *holderTenant, uid uint64, subject string) uint64 {
	return hashString(mix64(t.hash, uid^0x8ebc6af09c88c6e3), subject)
}

// routeOf finds the route of a request, or makes it. It returns nil for one of which this node has no
// leases: its group has no replica here, or its limits are never lent, or it has none, or there is no place.
func (t *holderTable) routeOf(s *holderShard, tenantHash uint64, hash uint32, r *Request) *route {
	known := s.find(hash, r.Tenant, r.Token, r.Key)
	if known != nil {
		tenant := known.tenant
		if tenant.group.shut.Load() {
			return nil
		}
		tenant.follow(tenant.group.source.Load())
		if known.gen == tenant.gen {
			return known
		}
	}
	return t.resolve(s, known, tenantHash, hash, r)
}

// full tells whether a shard takes no route that it does not know.
func (t *holderTable) full(s *holderShard) bool {
	n := s.routes.n
	for class := range s.leases {
		n += s.leases[class].n
	}
	return n >= t.most
}

// resolve finds the leases of a route anew.
func (t *holderTable) resolve(s *holderShard, old *route, tenantHash uint64, hash uint32, r *Request) *route {
	if old == nil && (t.full(s) || r.Tenant != globalTenant && validRequest(*r) != nil) {
		return nil
	}
	tenant := t.tenantOf(s, tenantHash, r.Tenant)
	if tenant == nil {
		return nil
	}
	matched := tenant.set.matchCounters(s.matched[:0], r.Tenant, r.Token, r.Key)
	s.matched = matched
	central := len(matched) == 0 || len(matched) > levelsMax
	for _, l := range matched {
		central = central || l.terms.span == 0
	}
	if central {
		if old != nil {
			s.forget(old)
		}
		s.drop(tenant)
		return nil
	}
	at := moment(t.now())
	next := s.newRoute(tenant, hash, r, at)
	for i, l := range matched {
		next.add(i, s.leaseOf(tenant, l, l.subject(next.token(), next.key()), at))
	}
	if old != nil {
		s.forget(old) // only now, so that leases that stay are not dropped in between
	}
	s.routes.insert(next)
	return next
}

func (r *route) token() string { return r.subject[:r.tokenLen] }
func (r *route) key() string   { return r.subject[r.tokenLen:] }

func (s *holderShard) newRoute(tenant *holderTenant, hash uint32, r *Request, at uint32) *route {
	tenant.refs++
	subject := r.Token + r.Key
	if r.Token == "" || r.Key == "" {
		subject = strings.Clone(subject) // a copy in any case: requests may be parts of a message
	}
	return &route{tenant: tenant, subject: subject, tokenLen: uint16(len(r.Token)), gen: tenant.gen, hash: hash, used: at}
}

func (r *route) add(i int, l *lease) {
	l.refs++
	if i < len(r.few) {
		r.few[i] = l
		return
	}
	if r.more == nil {
		r.more = &routeMore{}
	}
	r.more.leases = append(r.more.leases, l)
}

// lease is the i-th lease of the route, or nil.
func (r *route) lease(i int) *lease {
	if i < len(r.few) {
		return r.few[i]
	}
	if i -= len(r.few); r.more != nil && i < len(r.more.leases) {
		return r.more.leases[i]
	}
	return nil
}

// tenantOf finds or makes a tenant with the limits of now; nil if its group has no replica here.
func (t *holderTable) tenantOf(s *holderShard, hash uint64, name string) *holderTenant {
	tenant := s.tenants[name]
	if tenant == nil {
		group := t.groups[t.place(name)]
		if group == nil {
			return nil
		}
		name = strings.Clone(name)
		tenant = &holderTenant{name: name, hash: hash, shard: s, group: group}
		s.tenants[name] = tenant
	}
	set := tenant.group.source.Load()
	if set == nil || tenant.group.shut.Load() {
		s.drop(tenant)
		return nil
	}
	tenant.follow(set)
	return tenant
}

// follow goes on with the limits of now. Routes stay if all of them do for this tenant.
func (t *holderTenant) follow(set *limitSet) {
	if set == t.set {
		return
	}
	if !set.sameFor(t.name, t.set) {
		t.gen++
	}
	t.set = set
}

// drop forgets a tenant of which nothing is left.
func (s *holderShard) drop(t *holderTenant) {
	if t.refs == 0 {
		delete(s.tenants, t.name)
	}
}

// leaseOf finds or makes the lease of a counter.
func (s *holderShard) leaseOf(t *holderTenant, limit *limitState, subject string, at uint32) *lease {
	if l := s.anyLease(t, limit.uid, subject); l != nil {
		if c, to := classOf(l.limit.terms.ttl), classOf(limit.terms.ttl); c != to {
			s.leases[c].remove(l)
			s.leases[to].insert(l)
		}
		l.limit = limit
		return l
	}
	l := &lease{limit: limit, tenant: t, subject: subject, folded: at}
	t.refs++
	s.leases[classOf(limit.terms.ttl)].insert(l)
	return l
}

// forget removes a route.
func (s *holderShard) forget(r *route) {
	s.routes.remove(r)
	for i := 0; ; i++ {
		l := r.lease(i)
		if l == nil {
			break
		}
		l.refs--
	}
	r.tenant.refs--
	s.drop(r.tenant)
}

// forgetLease removes a lease to which no route leads.
func (s *holderShard) forgetLease(class int, l *lease) {
	s.leases[class].remove(l)
	l.tenant.refs--
	s.drop(l.tenant)
}

// holderCounts is what a shard counts since the start.
type holderCounts struct {
	spent, denied     uint64 // checks that passed, and that were denied, by what is held
	cached            uint64 // checks that were denied again
	renewals, refused uint64 // messages of single leases, and those that found their epoch over
	returned, unspent uint64 // tokens given back, and those that ran out or were refused
	recalls           uint64 // requests to give back
	granted           uint64 // tokens
	adopted           uint64 // leases that were opened by blankets
}

// leaseClasses sorts leases by how long they last, so that short ones can be looked at often.
const leaseClasses = 4

// leaseClass are a class's shortest time to live, and how often its leases are looked at.
var leaseClass = [leaseClasses]struct{ ttl, every int64 }{
	{0, int64(10 * time.Millisecond)},
	{int64(500 * time.Millisecond), int64(60 * time.Millisecond)},
	{int64(5 * time.Second), int64(600 * time.Millisecond)},
	{int64(20 * time.Second), int64(2400 * time.Millisecond)},
}

func classOf(ttl int64) int {
	c := leaseClasses - 1
	for c > 0 && ttl < leaseClass[c].ttl {
		c--
	}
	return c
}
