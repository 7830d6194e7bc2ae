package policies

import (
	"strconv"

	"github.com/open-policy-agent/opa/v1/ast"
)

// builder makes the value of an input for the evaluator, which is what the evaluator would make of
// its record, without going through JSON. It counts what it makes.
type builder struct {
	size int
	// terms are made many at a time.
	terms []ast.Term
}

const termsAtOnce = 48

func (b *builder) term(v ast.Value) *ast.Term {
	if len(b.terms) == 0 {
		b.terms = make([]ast.Term, termsAtOnce)
	}
	t := &b.terms[0]
	b.terms = b.terms[1:]
	t.Value = v
	return t
}

// Names of fields are made once.
var (
	nameTenant       = ast.InternedTerm("tenant")
	nameSubject      = ast.InternedTerm("subject")
	nameAction       = ast.InternedTerm("action")
	nameResource     = ast.InternedTerm("resource")
	nameExecution    = ast.InternedTerm("executionId")
	nameToken        = ast.InternedTerm("token")
	nameKey          = ast.InternedTerm("key")
	nameCost         = ast.InternedTerm("cost")
	nameLimits       = ast.InternedTerm("limits")
	nameQuotas       = ast.InternedTerm("quotas")
	namePackage      = ast.InternedTerm("package")
	nameTenantPolicy = ast.InternedTerm("tenantPolicy")
	nameID           = ast.InternedTerm("id")
	nameRoles        = ast.InternedTerm("roles")
	nameAttributes   = ast.InternedTerm("attributes")
	nameKind         = ast.InternedTerm("kind")
	nameLimit        = ast.InternedTerm("limit")
	nameUsed         = ast.InternedTerm("used")
	nameRetry        = ast.InternedTerm("retryAfterMs")
	nameName         = ast.InternedTerm("name")
	nameVersion      = ast.InternedTerm("version")
	nameDigest       = ast.InternedTerm("digest")
	namePublisher    = ast.InternedTerm("publisher")
	nameStatus       = ast.InternedTerm("status")
	nameSigners      = ast.InternedTerm("signers")
	nameCapabilities = ast.InternedTerm("capabilities")
	nameEgress       = ast.InternedTerm("egress")
	nameMinSigners   = ast.InternedTerm("minSigners")
	namePublishers   = ast.InternedTerm("publishers")
)

// value is in for the evaluator. It may be shared by evaluations, which do not change it.
func (in *Input) value() (*ast.Term, error) {
	var b builder
	o := make([][2]*ast.Term, 0, 12)
	o = append(o,
		ast.Item(nameTenant, b.text(in.Tenant)),
		ast.Item(nameSubject, b.subject(&in.Subject)),
		ast.Item(nameAction, b.text(in.Action)),
		ast.Item(nameResource, b.resource(&in.Resource)),
		ast.Item(nameCost, b.number(in.Cost)),
	)
	o = b.optional(o, nameExecution, in.ExecutionID)
	o = b.optional(o, nameToken, in.Token)
	o = b.optional(o, nameKey, in.Key)
	if len(in.Limits) > 0 {
		o = append(o, ast.Item(nameLimits, b.limits(in.Limits)))
	}
	if len(in.Quotas) > 0 {
		o = append(o, ast.Item(nameQuotas, b.quotas(in.Quotas)))
	}
	if in.Package != nil {
		o = append(o, ast.Item(namePackage, b.pkg(in.Package)))
	}
	if in.TenantPolicy != nil {
		o = append(o, ast.Item(nameTenantPolicy, b.policy(in.TenantPolicy)))
	}
	if b.size > MaxInput {
		return nil, refuse(CodeInput, "", "the input has a size of %d; at most %d are evaluated", b.size, MaxInput)
	}
	return b.object(o), nil
}

func (b *builder) text(s string) *ast.Term {
	b.size += 16 + len(s)
	if t, ok := usualTexts[s]; ok {
		return t
	}
	return b.term(ast.String(s))
}

// usualTexts are texts of most inputs, which are made once.
var usualTexts = func() map[string]*ast.Term {
	terms := map[string]*ast.Term{}
	for _, s := range []string{
		"", "*", KindRate, KindConcurrency, KindBanned, "global", "tenant", "token", "key", "reader", "runner", "publisher", "operator", "admin",
	} {
		terms[s] = ast.StringTerm(s)
	}
	return terms
}()

func (b *builder) number(n uint64) *ast.Term {
	b.size += 16
	if n <= 512 {
		return ast.InternedTerm(int(n))
	}
	return b.term(ast.Number(strconv.FormatUint(n, 10)))
}

func (b *builder) object(items [][2]*ast.Term) *ast.Term {
	b.size += 16
	return b.term(ast.NewObject(items...))
}

func (b *builder) optional(items [][2]*ast.Term, name *ast.Term, s string) [][2]*ast.Term {
	if s == "" {
		return items
	}
	return append(items, ast.Item(name, b.text(s)))
}

// list is empty for nil: rules count and walk it without asking whether it is there.
func (b *builder) list(list []string) *ast.Term {
	b.size += 16
	terms := make([]*ast.Term, len(list))
	for i, s := range list {
		terms[i] = b.text(s)
	}
	return b.term(ast.NewArray(terms...))
}

func (b *builder) texts(m map[string]string) *ast.Term {
	items := make([][2]*ast.Term, 0, len(m))
	for k, v := range m {
		items = append(items, ast.Item(b.text(k), b.text(v)))
	}
	return b.object(items)
}

func (b *builder) attributes(items [][2]*ast.Term, m map[string]string) [][2]*ast.Term {
	if len(m) == 0 {
		return items
	}
	return append(items, ast.Item(nameAttributes, b.texts(m)))
}

func (b *builder) subject(s *Subject) *ast.Term {
	items := make([][2]*ast.Term, 0, 4)
	items = append(items, ast.Item(nameID, b.text(s.ID)), ast.Item(nameTenant, b.text(s.Tenant)), ast.Item(nameRoles, b.list(s.Roles)))
	return b.object(b.attributes(items, s.Attributes))
}

func (b *builder) resource(r *Resource) *ast.Term {
	items := make([][2]*ast.Term, 0, 3)
	items = b.optional(items, nameKind, r.Kind)
	items = b.optional(items, nameID, r.ID)
	return b.object(b.attributes(items, r.Attributes))
}

func (b *builder) limits(levels map[string]map[string]Limit) *ast.Term {
	items := make([][2]*ast.Term, 0, len(levels))
	for level, limits := range levels {
		of := make([][2]*ast.Term, 0, len(limits))
		for id, l := range limits {
			fields := make([][2]*ast.Term, 0, 4)
			fields = append(fields, ast.Item(nameKind, b.text(l.Kind)))
			of = append(of, ast.Item(b.text(id), b.used(fields, l.Limit, l.Used, l.RetryAfterMs)))
		}
		items = append(items, ast.Item(b.text(level), b.object(of)))
	}
	return b.object(items)
}

func (b *builder) quotas(quotas map[string]Quota) *ast.Term {
	items := make([][2]*ast.Term, 0, len(quotas))
	for name, q := range quotas {
		items = append(items, ast.Item(b.text(name), b.used(nil, q.Limit, q.Used, q.RetryAfterMs)))
	}
	return b.object(items)
}

func (b *builder) used(items [][2]*ast.Term, limit, used, retry uint64) *ast.Term {
	items = append(items, ast.Item(nameLimit, b.number(limit)), ast.Item(nameUsed, b.number(used)))
	if retry > 0 {
		items = append(items, ast.Item(nameRetry, b.number(retry)))
	}
	return b.object(items)
}

func (b *builder) pkg(p *PackageFacts) *ast.Term {
	items := make([][2]*ast.Term, 0, 8)
	items = append(items,
		ast.Item(nameName, b.text(p.Name)), ast.Item(nameVersion, b.text(p.Version)), ast.Item(namePublisher, b.text(p.Publisher)),
		ast.Item(nameStatus, b.text(p.Status)), ast.Item(nameSigners, b.list(p.Signers)),
		ast.Item(nameCapabilities, b.list(p.Capabilities)), ast.Item(nameEgress, b.list(p.Egress)),
	)
	return b.object(b.optional(items, nameDigest, p.Digest))
}

func (b *builder) policy(p *TenantPolicy) *ast.Term {
	items := make([][2]*ast.Term, 0, 5)
	if p.MinSigners > 0 {
		items = append(items, ast.Item(nameMinSigners, b.number(p.MinSigners)))
	}
	for _, l := range []struct {
		name *ast.Term
		list []string
	}{{nameSigners, p.Signers}, {namePublishers, p.Publishers}, {nameCapabilities, p.Capabilities}, {nameEgress, p.Egress}} {
		if l.list != nil {
			items = append(items, ast.Item(l.name, b.list(l.list)))
		}
	}
	return b.object(items)
}
