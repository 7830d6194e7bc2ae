package api

import (
	"sync"
	"unicode/utf8"

	limiterv1 "github.com/maestro-conductor/maestro/api/gen/mc/limiter/v1"
	"github.com/maestro-conductor/maestro/limiter"
)

// checkBuffer holds the checks of one message of a stream and what became of them. Buffers are
// used again: a message costs no allocation for each of its checks.
type checkBuffer struct {
	requests []limiter.Request
	outcomes []limiter.Outcome
}

var checkBuffers = sync.Pool{New: func() any { return &checkBuffer{} }}

// free lets go of the message's texts, and keeps the outcomes' levels for the next message.
func (b *checkBuffer) free() {
	clear(b.requests)
	for i := range b.outcomes {
		b.outcomes[i] = limiter.Outcome{Decision: limiter.Decision{Levels: b.outcomes[i].Decision.Levels[:0]}}
	}
	checkBuffers.Put(b)
}

// size makes room for n checks.
func (b *checkBuffer) size(n int) {
	if cap(b.requests) < n {
		b.requests = make([]limiter.Request, MaxBatchChecks)
		b.outcomes = make([]limiter.Outcome, MaxBatchChecks)
	}
	b.requests, b.outcomes = b.requests[:n], b.outcomes[:n]
}

// read takes the columns of a message apart. The texts of the requests are parts of the
// message's: who keeps one longer than a call copies it.
func (b *checkBuffer) read(who Principal, m *limiterv1.CheckStreamRequest) *fault {
	n := int(m.GetChecks())
	if f := withinItems("checks", n, MaxBatchChecks); f != nil {
		return f
	}
	tenants, f := tenantColumn(who, m.GetTenants())
	if f == nil {
		f = firstFault(column("tenant_at", len(m.GetTenantAt()), n), column("token_at", len(m.GetTokenAt()), n),
			column("key_bytes", len(m.GetKeyBytes()), n), column("costs", len(m.GetCosts()), n),
			withinItems("tenants", len(m.GetTenants()), n), withinItems("tokens", len(m.GetTokens()), n))
	}
	if f != nil {
		return f
	}
	for i, token := range m.GetTokens() {
		if len(token) > MaxTokenBytes {
			return refuse(reasonFieldTooLong, "tokens[%d] has %d bytes, more than the %d allowed", i, len(token), MaxTokenBytes)
		}
	}
	tokens := m.GetTokens()
	if len(tokens) == 0 {
		tokens = noText
	}
	b.size(n)
	keys, keyBytes, costs := m.GetKeys(), m.GetKeyBytes(), m.GetCosts()
	tenantAt, tokenAt := m.GetTenantAt(), m.GetTokenAt()
	for i := range b.requests {
		r := &b.requests[i]
		tenant, token := uint32(0), uint32(0)
		if tenantAt != nil {
			tenant = tenantAt[i]
		}
		if tokenAt != nil {
			token = tokenAt[i]
		}
		if int64(tenant) >= int64(len(tenants)) || int64(token) >= int64(len(tokens)) {
			return refuse(reasonFieldMalformed, "check %d is for tenant %d of %d and token %d of %d, counted from 0", i, tenant, len(tenants), token, len(tokens))
		}
		r.Tenant, r.Token, r.Cost, r.Brief = tenants[tenant], tokens[token], 1, !m.GetLevels()
		if keyBytes != nil {
			size := keyBytes[i]
			if size > MaxKeyBytes {
				return refuse(reasonFieldTooLong, "the key of check %d has %d bytes, more than the %d allowed", i, size, MaxKeyBytes)
			}
			if int(size) > len(keys) || int(size) < len(keys) && !utf8.RuneStart(keys[size]) {
				return refuse(reasonFieldMalformed, "key_bytes[%d] is %d, where keys has no character's end", i, size)
			}
			r.Key, keys = keys[:size], keys[size:]
		}
		if costs != nil {
			r.Cost = costs[i]
		}
	}
	if keys != "" {
		return refuse(reasonFieldMalformed, "keys has %d bytes more than key_bytes tells of", len(keys))
	}
	return nil
}

var noText = []string{""}

// tenantColumn are the tenants of a message, once the caller may reach them all.
func tenantColumn(who Principal, named []string) ([]string, *fault) {
	if len(named) == 0 {
		named = []string{""}
	}
	for i, name := range named {
		tenant, f := oneTenant(who, name)
		if f != nil {
			return nil, refuse(f.reason, "tenants[%d]: %s", i, f.message)
		}
		named[i] = tenant
	}
	return named, nil
}

func column(name string, have, checks int) *fault {
	if have != 0 && have != checks {
		return refuse(reasonFieldMalformed, "%s has %d entries for %d checks; give one for each, or leave it out", name, have, checks)
	}
	return nil
}

// What parts of an answer take in memory until it is sent, roughly.
const (
	checkAnswerBytes  = 16  // a denial's time and place
	failedAnswerBytes = 512 // its message is a text of its own
	levelsAnswerBytes = 96  // the list of a check's levels
	levelAnswerBytes  = 144
	// levelsUsual is for how many levels of a check there must be room before it is decided. More are
	// counted once they are known.
	levelsUsual = 4
)

// answerRoom is what the answer to a message must find room for before its checks are decided.
func answerRoom(checks int, levels bool) int64 {
	if levels {
		return int64(checks) * (checkAnswerBytes + levelsAnswerBytes + levelsUsual*levelAnswerBytes)
	}
	return int64(checks) * checkAnswerBytes
}

// answerBytes is what the answer about the outcomes takes.
func (b *checkBuffer) answerBytes(levels bool) int64 {
	n := len(b.outcomes) * checkAnswerBytes
	for i := range b.outcomes {
		o := &b.outcomes[i]
		if o.Err != nil {
			n += failedAnswerBytes
		} else if levels {
			n += len(o.Decision.Levels) * levelAnswerBytes
		}
		if levels {
			n += levelsAnswerBytes
		}
	}
	return int64(n)
}

// answer puts the outcomes into columns. explain finds the fault of a check that failed.
func (b *checkBuffer) answer(levels bool, explain func(error) *fault) *limiterv1.CheckStreamResponse {
	n := len(b.outcomes)
	res := &limiterv1.CheckStreamResponse{Checks: uint32(n), Allowed: make([]byte, (n+7)/8)}
	var denials denialColumn
	for i := range b.outcomes {
		o := &b.outcomes[i]
		if o.Err != nil {
			res.Failed = append(res.Failed, &limiterv1.FailedCheck{Check: uint32(i), Error: explain(o.Err).detail()})
			continue
		}
		d := &o.Decision
		if res.LimitsVersion == 0 || d.Version < res.LimitsVersion {
			res.LimitsVersion = d.Version
		}
		if d.Source == limiter.SourceFailure {
			res.OnFailure = append(res.OnFailure, uint32(i))
		}
		if d.WouldDeny() {
			res.WouldDeny = append(res.WouldDeny, uint32(i))
		}
		if d.Allow {
			res.Allowed[i/8] |= 1 << (i % 8)
			continue
		}
		res.RetryAfterMs = append(res.RetryAfterMs, d.RetryAfterMs)
		denials.add(denial{d.Reason, d.LimitID, d.Kind})
	}
	res.Denials = denials.different
	if len(res.Denials) > 1 {
		res.DenialAt = denials.at
	}
	if levels {
		res.Levels = make([]*limiterv1.CheckLevels, n)
		for i := range b.outcomes {
			if o := &b.outcomes[i]; o.Err == nil {
				res.Levels[i] = &limiterv1.CheckLevels{Levels: levelMessages(o.Decision.Levels)}
			} else {
				res.Levels[i] = &limiterv1.CheckLevels{}
			}
		}
	}
	return res
}

// denialColumn says the same denial once, and for each denied check which it is.
type denialColumn struct {
	different []*limiterv1.Denial
	at        []uint32
	places    map[denial]uint32
	last      denial
}

type denial struct{ reason, limitID, kind string }

func (c *denialColumn) add(d denial) {
	if len(c.different) > 0 && d == c.last { // mostly one limit denies
		c.at = append(c.at, c.at[len(c.at)-1])
		return
	}
	c.last = d
	place, ok := c.places[d]
	if !ok {
		if c.places == nil {
			c.places = map[denial]uint32{}
		}
		place = uint32(len(c.different))
		c.places[d] = place
		c.different = append(c.different, &limiterv1.Denial{Reason: d.reason, LimitId: d.limitID, Kind: d.kind})
	}
	c.at = append(c.at, place)
}
