package meta

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/maestro-conductor/maestro/api"
	"github.com/maestro-conductor/maestro/limiter"
	"github.com/maestro-conductor/maestro/raftfsm"
)

// Authenticate implements api.Authenticator from this node's replica; only a token that the
// replica does not know is looked up in the group. Whoever does not know the secret learns
// nothing but that the token is unknown.
func (s *Service) Authenticate(ctx context.Context, text string) (api.Principal, error) {
	id, secret, ok := splitToken(text)
	if !ok {
		return api.Principal{}, api.ErrTokenUnknown
	}
	t, ok := s.machine.views.token(id)
	if !ok {
		var err error
		if t, ok, err = s.lookup(ctx, id); err != nil {
			return api.Principal{}, err
		}
	}
	if !ok || !t.matches(secret) {
		return api.Principal{}, api.ErrTokenUnknown
	}
	switch {
	case t.revoked:
		return api.Principal{}, fmt.Errorf("token %s: %w", id, api.ErrTokenRevoked)
	case t.expires != 0 && s.clock().UnixNano() >= t.expires:
		return api.Principal{}, fmt.Errorf("token %s: %w", id, api.ErrTokenExpired)
	}
	return api.Principal{ID: id, Tenant: t.tenant, Role: t.role}, nil
}

// CreateToken implements api.TokenAdmin: it uses the tenant, role, expiry and description of
// t and fills in the rest. It returns *limiter.InvalidError for fields that are not valid, or
// when the region would have more than TokensMax tokens that admit.
func (s *Service) CreateToken(ctx context.Context, t api.Token) (secret string, created api.Token, err error) {
	now := s.clock()
	if err := validNewToken(t, now); err != nil {
		return "", api.Token{}, err
	}
	id, secret, hash := mintToken()
	stored := token{tenant: t.Tenant, role: t.Role, created: now.UnixNano(), hash: hash, description: t.Description}
	if !t.Expires.IsZero() {
		stored.expires = t.Expires.UnixNano()
	}
	res, err := s.change(ctx, change{table: tableTokens, actor: anyOwner, steps: []step{
		{kind: kindCreate, key: id, owner: t.Tenant, value: encodeToken(stored)},
	}}, raftfsm.NewRequestID("meta.tokens.create", id))
	if err != nil {
		return "", api.Token{}, fmt.Errorf("meta.tokens.create: %w", err)
	}
	switch res.outcome {
	case outcomeDone:
		return secret, stored.public(id), nil
	case outcomeFull:
		return "", api.Token{}, &limiter.InvalidError{Field: "token", Message: fmt.Sprintf(
			"a region holds at most %d tokens; revoke some first", TokensMax)}
	}
	return "", api.Token{}, unexpected(res)
}

// ListTokens implements api.TokenAdmin.
func (s *Service) ListTokens(ctx context.Context) ([]api.Token, error) {
	f, err := s.read(ctx, tableTokens, 0)
	if err != nil {
		return nil, fmt.Errorf("meta.tokens.list: %w", err)
	}
	out := make([]api.Token, 0, len(f.records))
	for id, r := range f.records {
		if r.deleted {
			continue
		}
		t, err := decodeToken(r)
		if err != nil {
			return nil, err
		}
		out = append(out, t.public(id))
	}
	slices.SortFunc(out, func(a, b api.Token) int {
		return cmp.Or(b.Created.Compare(a.Created), cmp.Compare(a.ID, b.ID))
	})
	return out, nil
}

// RevokeToken implements api.TokenAdmin. Revoking twice is no error; nothing undoes it.
func (s *Service) RevokeToken(ctx context.Context, id string) error {
	if !isHex(id, tokenIDBytes) {
		return fmt.Errorf("token %.32q: %w", id, api.ErrTokenUnknown)
	}
	res, err := s.change(ctx, change{table: tableTokens, actor: anyOwner, steps: []step{
		{kind: kindSeal, key: id},
	}}, raftfsm.RequestID{})
	switch {
	case err != nil:
		return fmt.Errorf("meta.tokens.revoke %s: %w", id, err)
	case res.outcome == outcomeUnknown:
		return fmt.Errorf("token %s: %w", id, api.ErrTokenUnknown)
	case res.outcome != outcomeDone:
		return unexpected(res)
	}
	return nil
}

// public is the token as the API shows it.
func (t token) public(id string) api.Token {
	out := api.Token{
		ID:          id,
		Tenant:      t.tenant,
		Role:        t.role,
		Created:     time.Unix(0, t.created).UTC(),
		Revoked:     t.revoked,
		Description: t.description,
	}
	if t.expires != 0 {
		out.Expires = time.Unix(0, t.expires).UTC()
	}
	return out
}

func validNewToken(t api.Token, now time.Time) error {
	roles := []string{api.RoleReader, api.RoleRunner, api.RolePublisher, api.RoleOperator, api.RoleAdmin}
	switch {
	case t.Tenant != api.AllTenants && !limiter.ValidName(t.Tenant):
		return &limiter.InvalidError{Field: "tenant", Message: "must be 1 to 63 of the characters a-z 0-9 . _ - or * for every tenant"}
	case !slices.Contains(roles, t.Role):
		return &limiter.InvalidError{Field: "role", Message: fmt.Sprintf("must be one of %v", roles)}
	case !t.Expires.IsZero() && !t.Expires.After(now):
		return &limiter.InvalidError{Field: "expires", Message: "must be in the future"}
	case t.Expires.Year() > 2261:
		return &limiter.InvalidError{Field: "expires", Message: "must be before the year 2262"}
	case len(t.Description) > descriptionMax || !utf8.ValidString(t.Description):
		return &limiter.InvalidError{Field: "description", Message: fmt.Sprintf("must be UTF-8 of at most %d bytes", descriptionMax)}
	}
	return nil
}
