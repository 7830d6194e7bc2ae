package main

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"time"

	limiterv1 "github.com/maestro-conductor/maestro/api/gen/mc/limiter/v1"
	provenancev1 "github.com/maestro-conductor/maestro/api/gen/mc/provenance/v1"
)

// documentTenant owns all documents of a run.
const documentTenant = "jepsen"

// LimitModel is a limit as the checkers know it, for each counter of its scope: a token bucket of
// Tokens per Period, and Burst at once; or, without a burst, a window of Tokens in any Period.
type LimitModel struct {
	ID       string        `json:"id"`
	Scope    string        `json:"scope"`
	Tenant   string        `json:"tenant"`
	Tokens   int64         `json:"tokens"`
	PeriodNs time.Duration `json:"period_ns"`
	Burst    int64         `json:"burst,omitempty"`
	// Binding says that no other limit keeps the traffic from using this one up, so that the
	// utilisation floor holds for it.
	Binding bool `json:"binding"`
}

// counter names the counter that a check debits, and false when the limit does not match.
func (l LimitModel) counter(c *CheckOp) (string, bool) {
	if c.Tenant != l.Tenant {
		return "", false
	}
	switch l.Scope {
	case "token":
		return l.ID + "/" + c.Token, true
	case "key":
		return l.ID + "/" + c.Key, true
	}
	return l.ID, true
}

func (l LimitModel) message() *limiterv1.Limit {
	selector := l.Tenant
	if l.Scope != "tenant" {
		selector += "/*"
	}
	m := &limiterv1.Limit{Id: l.ID, Scope: l.Scope, Selector: selector}
	if l.isWindow() {
		m.Window = &limiterv1.Window{Limit: uint32(l.Tokens), Length: fmt.Sprintf("%dms", l.PeriodNs.Milliseconds())}
	} else {
		m.TokenBucket = &limiterv1.TokenBucket{Rate: fmt.Sprintf("%d/%dms", l.Tokens, l.PeriodNs.Milliseconds()), Burst: uint32(l.Burst)}
	}
	return m
}

func (l LimitModel) isWindow() bool { return l.Burst == 0 }

const (
	// checkTenants is enough tenants for every limiter group to hold some. Their limits are too small
	// to be lent out: each check is decided by its group.
	checkTenants = 12
	// lentTenants have limits of which nodes hold leases; lentWorkers check each of them, beginning
	// with different nodes.
	lentTenants = 4
	lentWorkers = 3
	// lentCostMax is the largest cost of their checks.
	lentCostMax = 8
)

// limitModels are the limits of a run: a third of the small tenants is limited as a whole, a third
// by token, and a third by key and as a whole at the same time.
func limitModels() []LimitModel {
	var out []LimitModel
	add := func(kind, scope, tenant string, tokens, burst int64, binding bool) {
		out = append(out, LimitModel{
			ID: tenant + "-" + kind, Scope: scope, Tenant: tenant, Tokens: tokens, PeriodNs: time.Second, Burst: burst, Binding: binding,
		})
	}
	for i := range lentTenants {
		tenant := lentTenant(i)
		switch i % 4 {
		case 0:
			add("total", "tenant", tenant, 100, 100, true)
		case 1:
			out = append(out, LimitModel{ID: tenant + "-window", Scope: "tenant", Tenant: tenant, Tokens: 300, PeriodNs: 3 * time.Second, Binding: true})
		case 2: // two keys of 80/s share 100/s
			add("total", "tenant", tenant, 100, 100, true)
			add("key", "key", tenant, 80, 80, false)
		case 3: // one level is lent, the other one is not
			add("total", "tenant", tenant, 100, 100, false)
			add("token", "token", tenant, 20, 10, true)
		}
	}
	for i := range checkTenants {
		tenant := checkTenant(i)
		switch i % 3 {
		case 0:
			add("total", "tenant", tenant, 10, 5, true)
		case 1:
			add("token", "token", tenant, 5, 3, true)
		case 2: // two keys of 8/s share 10/s
			add("total", "tenant", tenant, 10, 5, true)
			add("key", "key", tenant, 8, 4, false)
		}
	}
	return out
}

func checkTenant(i int) string { return fmt.Sprintf("tenant-%d", i) }

func lentTenant(i int) string { return fmt.Sprintf("lent-%d", i) }

// register is the limit that carries a value for the register checks.
func register(name string, value uint32) *limiterv1.Limit {
	return &limiterv1.Limit{
		Id: name, Scope: "tenant", Selector: name,
		TokenBucket: &limiterv1.TokenBucket{Rate: "1/s", Burst: value},
	}
}

// content is what a document says, a pure function of the run and its id, so that a checker
// can tell a document from any other.
func content(seed uint64, id string) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%d %s", seed, id))
	return hex.EncodeToString(sum[:8])
}

// document builds the document with an id. Another content makes it conflict with the right
// one.
func document(id, execution, content string) *provenancev1.Document {
	sum := sha256.Sum256([]byte(content))
	return &provenancev1.Document{
		Id: id, Kind: "receipt", Tenant: documentTenant, Execution: execution, Task: "t-" + id,
		Digests:    []*provenancev1.Digest{{Digest: "sha256:" + hex.EncodeToString(sum[:]), Direction: "output"}},
		Attributes: map[string]string{"content": content},
	}
}
