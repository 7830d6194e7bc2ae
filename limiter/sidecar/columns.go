package sidecar

import (
	"errors"
	"fmt"
	"unicode/utf8"

	"connectrpc.com/connect"

	limiterv1 "github.com/maestro-conductor/maestro/api/gen/mc/limiter/v1"
	"github.com/maestro-conductor/maestro/limiter/client"
)

// refused is what is wrong with a message, with a reason as nodes give it.
func refused(reason, format string, args ...any) *client.Error {
	return &client.Error{Code: connect.CodeInvalidArgument, Reason: reason, Message: fmt.Sprintf(format, args...), Outcome: client.OutcomeDefinite}
}

// requests takes the columns of a message apart.
func (s *server) requests(m *limiterv1.CheckStreamRequest) ([]client.Request, error) {
	n := int(m.GetChecks())
	if n > client.MaxChecks {
		return nil, refused("batch_too_large", "checks has %d items, more than the %d allowed", n, client.MaxChecks)
	}
	for _, c := range []struct {
		name string
		have int
	}{{"tenant_at", len(m.GetTenantAt())}, {"token_at", len(m.GetTokenAt())}, {"key_bytes", len(m.GetKeyBytes())}, {"costs", len(m.GetCosts())}} {
		if c.have != 0 && c.have != n {
			return nil, refused("field_malformed", "%s has %d entries for %d checks; give one for each, or leave it out", c.name, c.have, n)
		}
	}
	all := make([]client.Request, n)
	keys := m.GetKeys()
	for i := range all {
		r := &all[i]
		var ok, also bool
		if r.Tenant, ok = entry(m.GetTenants(), m.GetTenantAt(), i); ok {
			r.Token, also = entry(m.GetTokens(), m.GetTokenAt(), i)
		}
		if !ok || !also {
			return nil, refused("field_malformed", "check %d is for a tenant or token that the message does not have", i)
		}
		if r.Tenant == "" {
			r.Tenant = s.tenant
		}
		if r.Cost = 1; m.GetCosts() != nil {
			r.Cost = m.GetCosts()[i]
		}
		if m.GetKeyBytes() != nil {
			size := uint64(m.GetKeyBytes()[i])
			if size > uint64(len(keys)) || size < uint64(len(keys)) && !utf8.RuneStart(keys[size]) {
				return nil, refused("field_malformed", "key_bytes[%d] is %d, where keys has no character's end", i, size)
			}
			r.Key, keys = keys[:size], keys[size:]
		}
	}
	if keys != "" {
		return nil, refused("field_malformed", "keys has %d bytes more than key_bytes tells of", len(keys))
	}
	return all, nil
}

// entry is the text of check i in a column; a column that is left out has the empty text alone.
func entry(texts []string, at []uint32, i int) (string, bool) {
	place := uint32(0)
	if at != nil {
		place = at[i]
	}
	if len(texts) == 0 && place == 0 {
		return "", true
	}
	if int64(place) >= int64(len(texts)) {
		return "", false
	}
	return texts[place], true
}

// columns puts outcomes into the columns of an answer.
func columns(all []client.Outcome, levels bool) *limiterv1.CheckStreamResponse {
	res := &limiterv1.CheckStreamResponse{Checks: uint32(len(all)), Allowed: make([]byte, (len(all)+7)/8)}
	type denial struct{ reason, limitID, kind string }
	places := map[denial]uint32{}
	for i := range all {
		d := &all[i].Decision
		if levels {
			res.Levels = append(res.Levels, &limiterv1.CheckLevels{Levels: levelMessages(d.Levels)})
		}
		if all[i].Err != nil {
			res.Failed = append(res.Failed, &limiterv1.FailedCheck{Check: uint32(i), Error: detail(all[i].Err)})
			continue
		}
		if d.Version != 0 && (res.LimitsVersion == 0 || d.Version < res.LimitsVersion) {
			res.LimitsVersion = d.Version
		}
		if d.Source == client.SourceFailure {
			res.OnFailure = append(res.OnFailure, uint32(i))
		}
		if d.WouldDeny {
			res.WouldDeny = append(res.WouldDeny, uint32(i))
		}
		if d.Allow {
			res.Allowed[i/8] |= 1 << (i % 8)
			continue
		}
		why := denial{d.Reason, d.LimitID, d.Kind}
		place, known := places[why]
		if !known {
			place = uint32(len(places))
			places[why] = place
			res.Denials = append(res.Denials, &limiterv1.Denial{Reason: d.Reason, LimitId: d.LimitID, Kind: d.Kind})
		}
		res.RetryAfterMs, res.DenialAt = append(res.RetryAfterMs, d.RetryAfterMs), append(res.DenialAt, place)
	}
	if len(res.Denials) < 2 {
		res.DenialAt = nil
	}
	return res
}

// refusedChecks answers a message of which nothing was done.
func refusedChecks(err error) *limiterv1.CheckStreamResponse {
	code := connect.CodeInternal
	var e *client.Error
	if errors.As(err, &e) {
		code = e.Code
	}
	return &limiterv1.CheckStreamResponse{Refused: &limiterv1.RefusedChecks{Code: code.String(), Message: err.Error(), Error: detail(err)}}
}
