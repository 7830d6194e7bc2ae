package api

import (
	"context"
	"errors"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	clusterv1 "github.com/maestro-conductor/maestro/api/gen/mc/cluster/v1"
)

func (s *server) createToken(ctx context.Context, c *call, r *clusterv1.CreateTokenRequest) (*clusterv1.CreateTokenResponse, error) {
	if s.deps.Tokens == nil {
		return nil, ErrServiceOff
	}
	tenant, f := tokenTenant(c.principal, r.GetTenant())
	if f != nil {
		return nil, f
	}
	if _, ok := roleRank[r.GetRole()]; !ok {
		return nil, refuse(reasonFieldMalformed, "role: %q is not a role; use reader, runner, publisher, operator or admin", r.GetRole())
	}
	if f := withinBytes("description", r.GetDescription(), MaxDescriptionBytes); f != nil {
		return nil, f
	}
	t := Token{Tenant: tenant, Role: r.GetRole(), Created: s.now().UTC(), Description: r.GetDescription()}
	if r.GetTtlSeconds() > 0 {
		t.Expires = t.Created.Add(time.Duration(r.GetTtlSeconds()) * time.Second)
	}
	secret, created, err := s.deps.Tokens.CreateToken(ctx, t)
	if err != nil {
		return nil, err
	}
	return &clusterv1.CreateTokenResponse{Token: secret, Info: tokenMessage(created)}, nil
}

// tokenTenant is oneTenant, where the platform may also name itself.
func tokenTenant(who Principal, named string) (string, *fault) {
	if who.Tenant == AllTenants && named == AllTenants {
		return AllTenants, nil
	}
	return oneTenant(who, named)
}

func (s *server) listTokens(ctx context.Context, c *call, r *clusterv1.ListTokensRequest) (*clusterv1.ListTokensResponse, error) {
	if s.deps.Tokens == nil {
		return nil, ErrServiceOff
	}
	tenant := r.GetTenant()
	if tenant != "" || c.principal.Tenant != AllTenants {
		var f *fault
		if tenant, f = tokenTenant(c.principal, tenant); f != nil {
			return nil, f
		}
	}
	tokens, err := s.deps.Tokens.ListTokens(ctx)
	if err != nil {
		return nil, err
	}
	res := &clusterv1.ListTokensResponse{Tokens: []*clusterv1.Token{}}
	for _, t := range tokens {
		if tenant == "" || t.Tenant == tenant {
			res.Tokens = append(res.Tokens, tokenMessage(t))
		}
	}
	return res, nil
}

// revokeToken treats a token of another tenant like one that does not exist.
func (s *server) revokeToken(ctx context.Context, c *call, r *clusterv1.RevokeTokenRequest) (*clusterv1.RevokeTokenResponse, error) {
	if s.deps.Tokens == nil {
		return nil, ErrServiceOff
	}
	tokens, err := s.deps.Tokens.ListTokens(ctx)
	if err != nil {
		return nil, err
	}
	known := slices.ContainsFunc(tokens, func(t Token) bool {
		return t.ID == r.GetId() && (c.principal.Tenant == AllTenants || c.principal.Tenant == t.Tenant)
	})
	if known {
		err = s.deps.Tokens.RevokeToken(ctx, r.GetId())
	}
	if !known || errors.Is(err, ErrTokenUnknown) {
		return nil, refuse(reasonTokenIDUnknown, "there is no token with the id %q", r.GetId())
	}
	if err != nil {
		return nil, err
	}
	return &clusterv1.RevokeTokenResponse{}, nil
}

func tokenMessage(t Token) *clusterv1.Token {
	m := &clusterv1.Token{
		Id: t.ID, Tenant: t.Tenant, Role: t.Role, Created: timestamppb.New(t.Created),
		Revoked: t.Revoked, Description: t.Description,
	}
	if !t.Expires.IsZero() {
		m.Expires = timestamppb.New(t.Expires)
	}
	return m
}
