package meta

import (
	"sync"
	"sync/atomic"
)

// views are the records that every node needs at hand, decoded. The machine writes them when
// a commit has become visible; anyone reads them.
type views struct {
	mu       sync.RWMutex
	tokens   map[string]token
	settings map[string][]byte
	// mode is the limiter.Mode in force, which every check asks for.
	mode atomic.Uint32
	// indexMode is the index.Mode in force.
	indexMode atomic.Uint32
	// limits is closed, and replaced, when the limits have changed.
	limits chan struct{}
	// membership is replaced as a whole, so that readers keep what they have got; changed is
	// closed, and replaced, when it has.
	membership Membership
	changed    chan struct{}
}

func (v *views) init() {
	v.tokens, v.settings, v.limits = map[string]token{}, map[string][]byte{}, make(chan struct{})
	v.membership, v.changed = newMembership(), make(chan struct{})
}

// reset rebuilds the views from whole tables.
func (v *views) reset(tables map[table][]record) error {
	fresh := make(map[string]token, len(tables[tableTokens]))
	for _, r := range tables[tableTokens] {
		if r.deleted {
			continue
		}
		t, err := decodeToken(r)
		if err != nil {
			return err
		}
		fresh[r.key] = t
	}
	members := newMembership()
	for _, r := range tables[tableNodes] {
		if err := members.setNode(r); err != nil {
			return err
		}
	}
	for _, r := range tables[tablePlacement] {
		if err := members.setPlacement(r); err != nil {
			return err
		}
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.tokens = fresh
	v.settings = make(map[string][]byte, len(tables[tableSettings]))
	for _, r := range tables[tableSettings] {
		if !r.deleted {
			v.settings[r.key] = r.value
		}
	}
	v.followMode()
	v.signalLimits()
	v.setMembership(members)
	return nil
}

// update takes over committed changes in their order.
func (v *views) update(all []published) {
	v.mu.Lock()
	defer v.mu.Unlock()
	limits := false
	members := Membership{} // its maps are nil until something changes
	for _, p := range all {
		if p.table.codec() >= codecMembers && members.Nodes == nil {
			members = v.membership.clone()
		}
		switch p.table {
		// Values were judged before they were written, so these cannot fail.
		case tableNodes:
			_ = members.setNode(p.record)
		case tablePlacement:
			_ = members.setPlacement(p.record)
		case tableTokens:
			v.setToken(p.record)
		case tableSettings:
			v.setSetting(p.record)
		case tableLimits:
			limits = true
		}
	}
	if limits {
		v.signalLimits()
	}
	if members.Nodes != nil {
		v.setMembership(members)
	}
}

func (v *views) setMembership(m Membership) {
	v.membership = m
	close(v.changed)
	v.changed = make(chan struct{})
}

func (v *views) members() Membership {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.membership
}

func (v *views) membersChanged() <-chan struct{} {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.changed
}

// setToken drops a token that cannot be decoded: it must not admit anyone.
func (v *views) setToken(r record) {
	t, err := decodeToken(r)
	if r.deleted || err != nil {
		delete(v.tokens, r.key)
		return
	}
	v.tokens[r.key] = t
}

func (v *views) setSetting(r record) {
	if r.deleted {
		delete(v.settings, r.key)
	} else {
		v.settings[r.key] = r.value
	}
	v.followMode()
}

// followMode takes over the modes: without settings limits are enforced, and the index takes all.
func (v *views) followMode() {
	v.mode.Store(limiterMode.inForce(v.settings[settingLimiterMode]))
	v.indexMode.Store(indexMode.inForce(v.settings[settingIndexMode]))
}

func (v *views) signalLimits() {
	close(v.limits)
	v.limits = make(chan struct{})
}

func (v *views) token(id string) (token, bool) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	t, ok := v.tokens[id]
	return t, ok
}

func (v *views) setting(key string) ([]byte, bool) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	value, ok := v.settings[key]
	return value, ok
}

func (v *views) limitsChanged() <-chan struct{} {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.limits
}
