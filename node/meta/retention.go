package meta

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/maestro-conductor/maestro/api"
	"github.com/maestro-conductor/maestro/index"
	"github.com/maestro-conductor/maestro/internal/wire"
	"github.com/maestro-conductor/maestro/raftfsm"
)

// Rules of retention are settings, one each, behind the others' keys: the key is the rule's name.
const settingRetention = "retention/"

const retentionValueVersion = 1

func encodeRetention(r index.RetentionRule) []byte {
	hold := byte(0)
	if r.Hold {
		hold = 1
	}
	b := wire.AppendString(wire.AppendString([]byte{retentionValueVersion}, r.Tenant), r.Kind)
	return append(binary.AppendUvarint(b, uint64(r.Age/time.Second)), hold)
}

func decodeRetention(key string, b []byte) (index.RetentionRule, error) {
	r := wire.NewReader(b)
	v := r.Byte(retentionValueVersion)
	rule := index.RetentionRule{Tenant: r.String(index.MaxTenantBytes), Kind: r.String(keyBytesMax)}
	rule.Age = time.Duration(r.Uvarint(uint64(index.RetentionAgeMax/time.Second))) * time.Second
	rule.Hold = r.Byte(1) == 1
	err := r.Done()
	if err == nil {
		err = rule.Check()
	}
	if err != nil || v != retentionValueVersion || key != settingRetention+rule.Name() {
		return rule, errRow("setting " + key)
	}
	return rule, nil
}

// Retention is the policy of retention, linearizably.
func (s *Service) Retention(ctx context.Context) (index.RetentionPolicy, error) {
	f, err := s.read(ctx, tableSettings, 0)
	if err != nil {
		return index.RetentionPolicy{}, fmt.Errorf("meta: retention: %w", err)
	}
	var p index.RetentionPolicy
	for key, r := range f.records { // any order: they are sorted below
		if !strings.HasPrefix(key, settingRetention) {
			continue
		}
		p.Version = max(p.Version, uint64(r.tableVersion))
		if r.deleted {
			continue
		}
		rule, err := decodeRetention(key, r.value)
		if err != nil {
			return index.RetentionPolicy{}, err
		}
		p.Rules = append(p.Rules, rule)
	}
	slices.SortFunc(p.Rules, func(a, b index.RetentionRule) int { return strings.Compare(a.Name(), b.Name()) })
	return p, nil
}

// SetRetention makes or replaces rules; others stay. It returns api.ErrLevel while a member does not know
// them.
func (s *Service) SetRetention(ctx context.Context, rules []index.RetentionRule) (index.RetentionPolicy, error) {
	steps := make([]step, len(rules))
	for i, r := range rules {
		if err := r.Check(); err != nil {
			return index.RetentionPolicy{}, err
		}
		steps[i] = step{kind: kindPut, key: settingRetention + r.Name(), owner: anyOwner, value: encodeRetention(r)}
	}
	return s.changeRetention(ctx, steps)
}

// RemoveRetention removes rules by name; index.ErrRetention when there is none of that name.
func (s *Service) RemoveRetention(ctx context.Context, names []string) (index.RetentionPolicy, error) {
	steps := make([]step, len(names))
	for i, name := range names {
		if settingRetention+name == settingRetention || len(settingRetention+name) > keyBytesMax {
			return index.RetentionPolicy{}, fmt.Errorf("%w: %q", index.ErrRetention, name)
		}
		steps[i] = step{kind: kindDelete, key: settingRetention + name}
	}
	return s.changeRetention(ctx, steps)
}

func (s *Service) changeRetention(ctx context.Context, steps []step) (index.RetentionPolicy, error) {
	if s.groups.Level() < raftfsm.LevelRetention {
		return index.RetentionPolicy{}, fmt.Errorf("meta: retention: %w", api.ErrLevel)
	}
	seen := map[string]bool{}
	for _, st := range steps {
		if seen[st.key] {
			return index.RetentionPolicy{}, fmt.Errorf("%w: %s is named twice", index.ErrRetention, strings.TrimPrefix(st.key, settingRetention))
		}
		seen[st.key] = true
	}
	res, err := s.change(ctx, change{table: tableSettings, actor: anyOwner, steps: steps}, raftfsm.RequestID{})
	switch {
	case err != nil:
	case res.outcome == outcomeUnknown:
		err = fmt.Errorf("%w: %s", index.ErrRetention, strings.TrimPrefix(steps[res.step].key, settingRetention))
	case res.outcome == outcomeFull:
		err = fmt.Errorf("%w: there are %d already, no more fit", index.ErrRetention, index.RetentionRulesMax)
	case res.outcome != outcomeDone:
		err = unexpected(res)
	}
	if err != nil {
		if errors.Is(err, index.ErrRetention) {
			return index.RetentionPolicy{}, err
		}
		return index.RetentionPolicy{}, fmt.Errorf("meta: retention: %w", err)
	}
	return s.Retention(ctx)
}

func isRetention(key string) bool { return strings.HasPrefix(key, settingRetention) }
