package meta

import (
	"sync"
)

// views are the records that every node needs at hand, decoded. The machine writes them when
// a commit has become visible; anyone reads them.
type views struct {
	mu       sync.RWMutex
	tokens   map[string]token
	settings map[string][]byte
	// limits is closed, and replaced, when the limits have changed.
	limits chan struct{}
}

func (v *views) init() {
	v.tokens, v.settings, v.limits = map[string]token{}, map[string][]byte{}, make(chan struct{})
}

// reset rebuilds the views from whole tables.
func (v *views) reset(tokens, settings []record) error {
	fresh := make(map[string]token, len(tokens))
	for _, r := range tokens {
		if r.deleted {
			continue
		}
		t, err := decodeToken(r)
		if err != nil {
			return err
		}
		fresh[r.key] = t
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.tokens = fresh
	v.settings = make(map[string][]byte, len(settings))
	for _, r := range settings {
		v.setSetting(r)
	}
	v.signalLimits()
	return nil
}

// update takes over committed changes in their order.
func (v *views) update(all []published) {
	v.mu.Lock()
	defer v.mu.Unlock()
	limits := false
	for _, p := range all {
		switch p.table {
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
		return
	}
	v.settings[r.key] = r.value
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
