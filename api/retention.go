package api

import (
	"context"
	"net/url"
	"time"

	provenancev1 "github.com/maestro-conductor/maestro/api/gen/mc/provenance/v1"
	"github.com/maestro-conductor/maestro/index"
)

func (s *server) listRetention(ctx context.Context, c *call, _ *provenancev1.ListRetentionRequest) (*provenancev1.ListRetentionResponse, error) {
	if s.deps.Index == nil {
		return nil, ErrServiceOff
	}
	p, err := s.deps.Index.Retention(ctx)
	if err != nil {
		return nil, err
	}
	own := p.Rules[:0:0]
	for _, r := range p.Rules {
		// A tenant sees the rules that are for it: names of other tenants are theirs.
		if c.principal.Tenant == AllTenants || r.Tenant == "" || r.Tenant == c.principal.Tenant {
			own = append(own, r)
		}
	}
	return &provenancev1.ListRetentionResponse{Rules: rulesOf(own), Version: p.Version}, nil
}

// setRetention leaves a line in the log, as removeRetention does, whoever may look at it later.
func (s *server) setRetention(ctx context.Context, c *call, r *provenancev1.SetRetentionRequest) (*provenancev1.SetRetentionResponse, error) {
	if s.deps.Index == nil {
		return nil, ErrServiceOff
	}
	if n := len(r.GetRules()); n == 0 || n > index.RetentionRulesMax {
		return nil, refuse(reasonFieldMalformed, "rules: %d rules; send 1 to %d", n, index.RetentionRulesMax)
	}
	rules := make([]index.RetentionRule, len(r.GetRules()))
	for i, rule := range r.GetRules() {
		age := rule.GetAgeSeconds()
		if age < 0 || age > int64(index.RetentionAgeMax/time.Second) {
			return nil, refuse(reasonFieldMalformed, "rules[%d].ageSeconds: %d is not between 60 seconds and 200 years; 0 is for ever", i, age)
		}
		rules[i] = index.RetentionRule{Tenant: rule.GetTenant(), Kind: rule.GetKind(), Age: time.Duration(age) * time.Second, Hold: rule.GetHold()}
		if err := rules[i].Check(); err != nil {
			return nil, refuse(reasonFieldMalformed, "rules[%d]: %v", i, err)
		}
	}
	p, err := s.deps.Index.SetRetention(ctx, rules)
	if err != nil {
		return nil, err
	}
	for _, rule := range rules {
		s.log.Warn("audit: a rule of retention was set", "rule", rule.Name(), "age", rule.Age, "version", p.Version, "principal", c.principal.ID)
	}
	return &provenancev1.SetRetentionResponse{Rules: rulesOf(p.Rules), Version: p.Version}, nil
}

func (s *server) removeRetention(ctx context.Context, c *call, r *provenancev1.RemoveRetentionRequest) (*provenancev1.RemoveRetentionResponse, error) {
	if s.deps.Index == nil {
		return nil, ErrServiceOff
	}
	if n := len(r.GetNames()); n == 0 || n > index.RetentionRulesMax {
		return nil, refuse(reasonFieldMalformed, "names: %d names; send 1 to %d", n, index.RetentionRulesMax)
	}
	p, err := s.deps.Index.RemoveRetention(ctx, r.GetNames())
	if err != nil {
		return nil, err
	}
	s.log.Warn("audit: rules of retention were removed", "rules", r.GetNames(), "version", p.Version, "principal", c.principal.ID)
	return &provenancev1.RemoveRetentionResponse{Rules: rulesOf(p.Rules), Version: p.Version}, nil
}

func rulesOf(rules []index.RetentionRule) []*provenancev1.RetentionRule {
	out := make([]*provenancev1.RetentionRule, len(rules))
	for i, r := range rules {
		out[i] = &provenancev1.RetentionRule{Tenant: r.Tenant, Kind: r.Kind, AgeSeconds: int64(r.Age / time.Second), Hold: r.Hold, Name: r.Name()}
	}
	return out
}

// parseRetention takes no parameters.
func parseRetention(query string) (*provenancev1.ListRetentionRequest, *fault) {
	values, err := url.ParseQuery(query)
	if err != nil || len(values) > 0 {
		return nil, refuse(reasonParameterMalformed, "the list of rules takes no parameters")
	}
	return &provenancev1.ListRetentionRequest{}, nil
}
