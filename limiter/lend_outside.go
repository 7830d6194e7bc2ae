package limiter

import (
	"context"
	"slices"
	"sync"
)

// outsideEventsMax bounds the recalls that wait for one holder outside; those that find no room wait
// for the holder's own pace, as those of one that is gone.
const outsideEventsMax = 1000

// OutsideEvents are what a holder outside is told.
type OutsideEvents struct {
	// Changed means that routes are void.
	Changed bool
	Recalls []OutsideRecall
}

// OutsideRecall names a counter of which others need the tokens.
type OutsideRecall struct {
	Tenant  string
	Limit   uint64
	Subject string
}

// Outside is a holder outside the nodes that is connected to this one.
type Outside struct {
	outside *outside
	holder  Holder
	// Ready gets a word when there are events.
	Ready chan struct{}

	mu     sync.Mutex
	events OutsideEvents
}

// outside are the holders outside that are connected here.
type outside struct {
	mu      sync.Mutex
	holders map[Holder][]*Outside
	waits   map[outsideKey][]chan struct{}
	sets    map[limitSource]*limitSet
	mode    Mode
}

type outsideKey struct {
	holder Holder
	recall OutsideRecall
}

// Attend connects a holder outside until Leave; nil without leases.
func (s *Service) Attend(h Holder) *Outside {
	l := s.leases
	if l == nil {
		return nil
	}
	o := &Outside{outside: &l.outside, holder: h, Ready: make(chan struct{}, 1)}
	l.outside.mu.Lock()
	defer l.outside.mu.Unlock()
	if l.outside.holders == nil {
		l.outside.holders = map[Holder][]*Outside{}
	}
	l.outside.holders[h] = append(l.outside.holders[h], o)
	return o
}

// Leave ends the connection.
func (o *Outside) Leave() {
	all := o.outside
	all.mu.Lock()
	defer all.mu.Unlock()
	left := slices.DeleteFunc(all.holders[o.holder], func(other *Outside) bool { return other == o })
	if all.holders[o.holder] = left; len(left) == 0 {
		delete(all.holders, o.holder)
	}
}

// Take is all events since the last call.
func (o *Outside) Take() OutsideEvents {
	o.mu.Lock()
	defer o.mu.Unlock()
	e := o.events
	o.events = OutsideEvents{}
	return e
}

// tell adds events.
func (o *Outside) tell(e OutsideEvents) {
	o.mu.Lock()
	o.events.Changed = o.events.Changed || e.Changed
	if len(o.events.Recalls)+len(e.Recalls) <= outsideEventsMax {
		o.events.Recalls = append(o.events.Recalls, e.Recalls...)
	}
	o.mu.Unlock()
	select {
	case o.Ready <- struct{}{}:
	default:
	}
}

// look tells all when limits, or how they act, have changed since the last look, or what is known of them has
// become better.
func (a *outside) look(groups map[limitSource]*limitSet, mode Mode, better bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	changed := better || a.mode != mode || len(groups) != len(a.sets)
	for source, set := range groups { // any order
		changed = changed || a.sets[source] != set
	}
	a.sets, a.mode = groups, mode
	if changed {
		for _, all := range a.holders { // any order
			for _, o := range all {
				o.tell(OutsideEvents{Changed: true})
			}
		}
	}
}

// recall asks the holders that are connected here for what they have of counters, and waits until the
// group has heard of them, or ctx ends.
func (a *outside) recall(ctx context.Context, tenant string, all []Recall) {
	for _, done := range a.send(tenant, all) {
		select {
		case <-done:
		case <-ctx.Done():
		}
	}
	a.forget(tenant, all)
}

func (a *outside) send(tenant string, all []Recall) (waits []chan struct{}) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.holders) == 0 {
		return nil
	}
	for _, r := range all {
		one := OutsideRecall{Tenant: tenant, Limit: r.Limit, Subject: r.Subject}
		for _, h := range r.Holders {
			here := a.holders[h]
			if len(here) == 0 {
				continue
			}
			done := make(chan struct{})
			if a.waits == nil {
				a.waits = map[outsideKey][]chan struct{}{}
			}
			key := outsideKey{h, one}
			a.waits[key] = append(a.waits[key], done)
			waits = append(waits, done)
			for _, o := range here {
				o.tell(OutsideEvents{Recalls: []OutsideRecall{one}})
			}
		}
	}
	return waits
}

// forget drops what nobody waits for any more.
func (a *outside) forget(tenant string, all []Recall) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, r := range all {
		for _, h := range r.Holders {
			delete(a.waits, outsideKey{h, OutsideRecall{Tenant: tenant, Limit: r.Limit, Subject: r.Subject}})
		}
	}
}

// heard wakes who waits for reports of a holder.
func (a *outside) heard(h Holder, all []Renewal) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.waits) == 0 {
		return
	}
	for _, r := range all {
		key := outsideKey{h, OutsideRecall{Tenant: r.Tenant, Limit: r.Limit, Subject: r.Subject}}
		for _, done := range a.waits[key] {
			close(done)
		}
		delete(a.waits, key)
	}
}
