package index

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/maestro-conductor/maestro/internal/wire"
)

const (
	// RetentionRulesMax bounds the rules of a region, and RetentionAgeMin the shortest age: arrivals
	// are marked once a minute.
	RetentionRulesMax = 900
	RetentionAgeMin   = time.Minute
	// RetentionAgeMax is the longest.
	RetentionAgeMax = 200 * 365 * 24 * time.Hour
)

// RetentionRule says how long documents are kept. The one that names the tenant counts before the one
// that names the kind alone, and one that names both before either; without any, a document stays for ever.
type RetentionRule struct {
	// Tenant and Kind restrict it; empty is any. Kind is one of RetentionKinds.
	Tenant, Kind string
	// Age is how long documents are kept from their arrival on; 0 is for ever.
	Age time.Duration
	// Hold keeps all documents of the tenant, whatever the other rules say. It has neither Kind nor Age.
	Hold bool
}

// RetentionKinds are the kinds that rules can name. Records of dispositions are kept for ever.
var RetentionKinds = []string{KindReceipt, KindEvent, KindDecision}

var (
	// ErrRetention means that a rule cannot be, or that there is none of a name.
	ErrRetention = errors.New("index: rule of retention refused")
	// ErrRetentionKey means that the node has no key to sign records of dispositions with.
	ErrRetentionKey = errors.New("index: the node has no key for records of dispositions")
)

// Name is TENANT/KIND, with * for any.
func (r RetentionRule) Name() string {
	if r.Hold {
		return r.Tenant + "/hold"
	}
	return cmp.Or(r.Tenant, "*") + "/" + cmp.Or(r.Kind, "*")
}

// Check tells what is wrong with a rule.
func (r RetentionRule) Check() error {
	if r.Tenant != "" && !ValidTenant(r.Tenant) {
		return fmt.Errorf("%w: %q cannot name a tenant", ErrRetention, r.Tenant)
	}
	if r.Kind != "" && !slices.Contains(RetentionKinds, r.Kind) {
		return fmt.Errorf("%w: %q is no kind; use receipt, event or decision", ErrRetention, r.Kind)
	}
	if r.Hold && (r.Tenant == "" || r.Kind != "" || r.Age != 0) {
		return fmt.Errorf("%w: a hold is of one tenant, whatever the kind and age", ErrRetention)
	}
	if r.Age != 0 && (r.Age < RetentionAgeMin || r.Age > RetentionAgeMax || r.Age%time.Second != 0) {
		return fmt.Errorf("%w: the age %v is not between %v and 200 years, in whole seconds; 0 is for ever", ErrRetention, r.Age, RetentionAgeMin)
	}
	return nil
}

// RetentionPolicy is the rules in force.
type RetentionPolicy struct {
	// Version grows with each change of the rules.
	Version uint64
	Rules   []RetentionRule // by Name
}

// disposes tells whether anything can expire.
func (p *RetentionPolicy) disposes() bool {
	return slices.ContainsFunc(p.Rules, func(r RetentionRule) bool { return r.Age > 0 })
}

// boundRule is a rule and how far it reaches.
type boundRule struct {
	RetentionRule
	// cutoff is the retention time before which documents must have arrived, in microseconds.
	cutoff int64
	// bound is the number below which documents had arrived then, and wall the time of that mark; Apply
	// takes both from the state.
	bound uint64
	wall  int64
}

// boundPolicy is the rules by which something is disposed of.
type boundPolicy struct {
	version uint64
	rules   []boundRule
}

// retentionSlack is how long after its age a document may stay at most, but for the work itself: with it
// the cutoffs of a rule are multiples of each other, so that a segment is written again once in that time and not for each
// document that expires.
func retentionSlack(age time.Duration) int64 {
	return min(max(age/16, time.Minute), 24*time.Hour).Microseconds()
}

// bind computes the cutoffs at a retention time.
func (p *RetentionPolicy) bind(now int64) boundPolicy {
	out := boundPolicy{version: p.Version}
	for _, r := range p.Rules {
		b := boundRule{RetentionRule: r}
		if r.Age > 0 {
			slack := retentionSlack(r.Age)
			b.cutoff = now - r.Age.Microseconds()
			b.cutoff -= ((b.cutoff % slack) + slack) % slack
		}
		out.rules = append(out.rules, b)
	}
	return out
}

// allowed tells whether all documents behind the cutoffs have the age of their rule.
func (p *boundPolicy) allowed(now int64) bool {
	for _, r := range p.rules {
		if r.Check() != nil || r.Age > 0 && r.cutoff > now-r.Age.Microseconds() {
			return false
		}
	}
	return true
}

// number takes the bounds from the marks, and returns the greatest.
func (p *boundPolicy) number(s iterating) (most uint64, err error) {
	for i := range p.rules {
		r := &p.rules[i]
		r.bound, r.wall = 0, 0
		if r.Age == 0 {
			continue
		}
		k, err := markAt(s, r.cutoff)
		if err != nil {
			return 0, err
		}
		r.bound, r.wall = k.number, k.wall
		most = max(most, k.number)
	}
	return most, nil
}

// rule is the one for a kind of a tenant, the empty tenant being one that no rule names; nil when there is none.
func (p *boundPolicy) rule(tenant, kind string) *boundRule {
	var best *boundRule
	rank := -1
	for i := range p.rules {
		r := &p.rules[i]
		if r.Tenant != "" && r.Tenant != tenant || r.Kind != "" && r.Kind != kind {
			continue
		}
		if r.Hold {
			return nil
		}
		n := 0
		if r.Tenant != "" {
			n += 2
		}
		if r.Kind != "" {
			n++
		}
		if n > rank {
			best, rank = r, n
		}
	}
	return best
}

// tenants are those that rules name, in order.
func (p *boundPolicy) tenants() (all []string) {
	for _, r := range p.rules {
		if r.Tenant != "" {
			all = append(all, r.Tenant)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

func (p *boundPolicy) append(b []byte) []byte {
	b = binary.AppendUvarint(b, p.version)
	b = binary.AppendUvarint(b, uint64(len(p.rules)))
	for _, r := range p.rules {
		b = append(wire.AppendString(wire.AppendString(b, r.Tenant), r.Kind), boolByte(r.Hold))
		b = binary.AppendUvarint(b, uint64(r.Age/time.Second))
		b = binary.BigEndian.AppendUint64(b, uint64(r.cutoff))
	}
	return b
}

func readBoundPolicy(r *wire.Reader) boundPolicy {
	p := boundPolicy{version: r.Uvarint(1 << 62)}
	for n := r.Count(RetentionRulesMax); n > 0 && !r.Failed(); n-- {
		var b boundRule
		b.Tenant, b.Kind, b.Hold = r.String(MaxTenantBytes), r.String(MaxTextBytes), r.Byte(1) == 1
		b.Age = time.Duration(r.Uvarint(uint64(RetentionAgeMax/time.Second))) * time.Second
		if b.cutoff = int64(binary.BigEndian.Uint64(r.Fixed(8))); b.cutoff > latest || b.cutoff < -latest {
			r.Fail()
		}
		p.rules = append(p.rules, b)
	}
	return p
}
