package limiter

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/maestro-conductor/maestro/raftfsm"
)

// hold runs a line of a script: reserve or acquire, TENANT TOKEN KEY N NAME [TTL].
func (d *driven) hold(words []string, ids map[string]string) string {
	d.t.Helper()
	text := strings.NewReplacer("-", "")
	r := Request{Tenant: words[1], Token: text.Replace(words[2]), Key: text.Replace(words[3]), Cost: number(d.t, words[4]), RequestID: words[5]}
	var ttl time.Duration
	if len(words) > 6 {
		var err error
		if ttl, err = time.ParseDuration(words[6]); err != nil {
			d.t.Fatal(err)
		}
	}
	ask := d.service().Acquire
	if words[0] == "reserve" {
		ask = d.service().Reserve
	}
	h, err := ask(d.t.Context(), r, ttl)
	if err != nil {
		return err.Error()
	}
	if h.ID != "" {
		ids[words[5]] = h.ID
		return fmt.Sprintf("for %v: %v", h.TTL, h.Decision)
	}
	return h.Decision.String()
}

// held runs a line of a script about what is there: commit NAME N and so on, of acme or of the tenant
// that ends the line with @.
func (d *driven) held(words []string, ids map[string]string) string {
	d.t.Helper()
	ctx, s, tenant := d.t.Context(), d.service(), "acme"
	if last := words[len(words)-1]; last[0] == '@' {
		tenant, words = last[1:], words[:len(words)-1]
	}
	id := words[1]
	if known := ids[id]; known != "" {
		id = known
	}
	switch words[0] {
	case "refund":
		var cost uint32
		if len(words) > 2 {
			cost = number(d.t, words[2])
		}
		n, err := s.Refund(ctx, tenant, words[1], cost)
		return fmt.Sprint(n, " refunded", errorLine(err))
	case "release":
		was, err := s.Release(ctx, tenant, id)
		return fmt.Sprint("held: ", was, errorLine(err))
	case "renew":
		h, err := s.Renew(ctx, tenant, id, 0)
		return fmt.Sprint("for ", h.TTL, errorLine(err))
	case "cancel":
		words = append(words, "0")
	}
	got, err := s.Commit(ctx, tenant, id, number(d.t, words[2]))
	if err != nil {
		return hideIDs(err.Error(), ids)
	}
	return fmt.Sprintf("%d spent, %d refunded, %d overdrawn, late: %v", got.Actual, got.Refunded, got.Overdrawn, got.Late)
}

func hideIDs(s string, ids map[string]string) string {
	for name, id := range ids {
		s = strings.ReplaceAll(s, id, name)
	}
	return s
}

func errorLine(err error) string {
	if err == nil {
		return ""
	}
	return "; " + err.Error()[max(0, strings.LastIndex(err.Error(), "limiter: ")):]
}

func number(t testing.TB, s string) uint32 {
	t.Helper()
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	return uint32(n)
}

// rowsOf counts the rows of tables.
func (d *driven) rowsOf(tables ...byte) int {
	d.t.Helper()
	n := 0
	for _, table := range tables {
		it, err := d.Machine().(*Machine).store.NewIter([]byte{table}, []byte{table + 1})
		if err != nil {
			d.t.Fatal(err)
		}
		for ok := it.First(); ok; ok = it.Next() {
			n++
		}
		if err := it.Close(); err != nil {
			d.t.Fatal(err)
		}
	}
	return n
}

// Whatever became of reservations, slots and debits, nothing of them stays.
func TestWhatIsHeldIsForgotten(t *testing.T) {
	d := drive(t, 16)
	d.set(limit("a", ScopeTenant, "acme", "10/s", 100), running("c", 50))
	s := d.service()
	for i := range 10 {
		r := Request{Tenant: "acme", Cost: 2, RequestID: fmt.Sprint(i)}
		if _, err := s.Check(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		res, err := s.Reserve(t.Context(), r, 0)
		if err != nil || res.ID == "" {
			t.Fatalf("%+v, %v", res, err)
		}
		slot, err := s.Acquire(t.Context(), r, 0)
		if err != nil || slot.ID == "" {
			t.Fatalf("%+v, %v", slot, err)
		}
		switch i % 3 {
		case 0:
			_, err = s.Commit(t.Context(), "acme", res.ID, 1)
		case 1:
			_, err = s.Release(t.Context(), "acme", slot.ID)
		case 2:
			_, err = s.Renew(t.Context(), "acme", slot.ID, 0)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	tables := []byte{tableSlot, tableHeld, tableTaken, tableReserve, tableTenant, tableDue}
	if n := d.rowsOf(tables...); n == 0 {
		t.Fatal("there are no rows")
	}
	d.Time = time.Hour
	for d.sweep() {
	}
	if n := d.rowsOf(tables...); n != 0 {
		t.Errorf("%d rows are left", n)
	}
}

// A retry gets the first answer and takes nothing more.
func TestRetriedHoldsAreOne(t *testing.T) {
	d := drive(t, 16)
	d.set(limit("a", ScopeTenant, "acme", "1/h", 10), running("c", 5))
	s, r := d.service(), Request{Tenant: "acme", Cost: 3, RequestID: "r"}
	for what, ask := range map[string]func() (Hold, error){
		"reserve": func() (Hold, error) { return s.Reserve(t.Context(), r, 0) },
		"acquire": func() (Hold, error) { return s.Acquire(t.Context(), r, 0) },
	} {
		first, err := ask()
		if err != nil || first.ID == "" {
			t.Fatalf("%s: %+v, %v", what, first, err)
		}
		if again, err := ask(); err != nil || fmt.Sprint(again) != fmt.Sprint(first) {
			t.Errorf("%s again: %+v, %v; want %+v", what, again, err, first)
		}
		// A forgotten request id is another request.
		d.Time += raftfsm.RequestMemory
		if later, err := ask(); err != nil || later.ID == first.ID {
			t.Errorf("%s much later: %+v, %v", what, later, err)
		}
	}
}

// What a check took under a request id of an older level is found by its retry.
func TestRequestIDsSurviveAnUpgrade(t *testing.T) {
	d := drive(t, 16)
	d.set(limit("a", ScopeTenant, "acme", "1/h", 10))
	r := Request{Tenant: "acme", Cost: 3, RequestID: "r"}
	old := NewService(atLevel{d, raftfsm.LevelLimits}, []raftfsm.GroupID{testGroup})
	first, err := old.Check(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := old.Refund(t.Context(), "acme", "r", 0); !errors.Is(err, ErrLevel) {
		t.Errorf("a refund at the older level: %v", err)
	}
	again, err := d.service().Check(t.Context(), r)
	if err != nil || fmt.Sprint(again) != fmt.Sprint(first) {
		t.Errorf("the retry at this level: %v, %v; want %v", again, err, first)
	}
	if _, err := d.service().Refund(t.Context(), "acme", "r", 0); !errors.Is(err, ErrRequestUnknown) {
		t.Errorf("a refund of what was not remembered: %v", err)
	}
}

type atLevel struct {
	*driven
	level int
}

func (a atLevel) Level() int { return a.level }

// Commits above what was reserved are counted, however many and however much, and rows stay readable.
func TestDebtHasNoEnd(t *testing.T) {
	d := drive(t, 2)
	l := Limit{
		ID: "a", Scope: ScopeTenant, Selector: "acme", TokenBucket: TokenBucket{"1000000/s", 600},
		Window: Window{Limit: 600, Length: "1h"}, Calendar: Calendar{Limit: 600, Period: PeriodDay},
	}
	d.set(l)
	s := d.service()
	var ids []string
	for range slotsMax + 10 {
		d.Time += time.Second
		h, err := s.Reserve(t.Context(), Request{Tenant: "acme", Cost: 1}, time.Hour)
		if err != nil || h.ID == "" {
			t.Fatalf("%+v, %v", h, err)
		}
		ids = append(ids, h.ID)
	}
	l.Window.Limit = logMax // from here on each commit has a slot of its own
	d.set(l)
	for _, id := range ids {
		d.Time += time.Microsecond
		if _, err := s.Commit(t.Context(), "acme", id, 4_000_000_000); err != nil {
			t.Fatal(err)
		}
		d.Restart()
		if got := d.check(d.Time, Request{Tenant: "acme", Cost: 1}); got.Allow {
			t.Fatalf("passed after debt: %v", got)
		}
	}
	for _, l := range d.check(d.Time+59*time.Minute, Request{Tenant: "acme"}).Levels {
		if l.Remaining != 0 {
			t.Errorf("an hour's debt is forgotten after less: %+v", l)
		}
	}
}

// A check that comes again once its request id is forgotten is another one, with a refund of its own.
func TestRefundIsOfTheLastCheck(t *testing.T) {
	d := drive(t, 2)
	d.set(windowed("w", "acme", 100, "1d"))
	s, r := d.service(), Request{Tenant: "acme", Cost: 30, RequestID: "r"}
	for i, want := range []uint32{70, 40} {
		d.Time = time.Duration(i) * raftfsm.RequestMemory
		if got, err := s.Check(t.Context(), r); err != nil || got.Levels[0].Remaining != want {
			t.Fatalf("check %d: %v, %v", i, got, err)
		}
	}
	d.Time += time.Minute
	d.sweep()
	if n, err := s.Refund(t.Context(), "acme", "r", 0); err != nil || n != 30 {
		t.Errorf("%d refunded, %v", n, err)
	}
	if got := d.check(d.Time, Request{Tenant: "acme"}); got.Levels[0].Remaining != 70 {
		t.Errorf("after one refund of two checks: %v", got)
	}
}

func TestHoldsAreBounded(t *testing.T) {
	d := drive(t, 16)
	d.Machine().(*Machine).heldMax = 2
	s := d.service()
	var last Hold
	reserve := func(tenant string) (err error) {
		last, err = s.Reserve(t.Context(), Request{Tenant: tenant, Cost: 1}, 0)
		return err
	}
	slot, err := s.Acquire(t.Context(), Request{Tenant: "acme"}, 0)
	if err := errors.Join(err, reserve("acme")); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Acquire(t.Context(), Request{Tenant: "acme"}, 0); !errors.Is(err, ErrTooManyHeld) {
		t.Errorf("a third one: %v, want ErrTooManyHeld", err)
	}
	if err := reserve("acme"); !errors.Is(err, ErrTooManyHeld) {
		t.Errorf("a third one: %v, want ErrTooManyHeld", err)
	}
	if err := reserve("globex"); err != nil {
		t.Errorf("another tenant: %v", err)
	}
	if _, err := s.Release(t.Context(), "acme", slot.ID); err != nil {
		t.Fatal(err)
	}
	if err := reserve("acme"); err != nil {
		t.Errorf("after a release: %v", err)
	}
	// What is settled is remembered, and does not count.
	for i := range 3 {
		if _, err := s.Commit(t.Context(), "acme", last.ID, 1); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Cancel(t.Context(), "acme", last.ID); err != nil {
			t.Fatal(err)
		}
		if err := reserve("acme"); err != nil {
			t.Errorf("after %d settlements: %v", i+1, err)
		}
	}
	if err := reserve("acme"); !errors.Is(err, ErrTooManyHeld) {
		t.Errorf("a third one: %v, want ErrTooManyHeld", err)
	}
}

// Everything that callers can get wrong is told before anything is proposed.
func TestHoldsRefuseOddInput(t *testing.T) {
	d := drive(t, 16)
	s := NewService(readOnly{d}, []raftfsm.GroupID{testGroup})
	ctx, ok := t.Context(), Request{Tenant: "acme", Cost: 1}
	for what, ask := range map[string]func() error{
		"reserve nothing":      func() error { _, err := s.Reserve(ctx, Request{Tenant: "acme"}, 0); return err },
		"reserve too shortly":  func() error { _, err := s.Reserve(ctx, ok, time.Second-1); return err },
		"reserve for too long": func() error { _, err := s.Reserve(ctx, ok, time.Hour+time.Millisecond); return err },
		"acquire for nobody":   func() error { _, err := s.Acquire(ctx, Request{Tenant: "Acme"}, 0); return err },
		"renew for too long":   func() error { _, err := s.Renew(ctx, "acme", holdID{}.String(), 2*time.Hour); return err },
		"commit of no id":      func() error { _, err := s.Commit(ctx, "acme", "", 1); return err },
		"commit of a long id":  func() error { _, err := s.Commit(ctx, "acme", holdID{}.String()+"00", 1); return err },
		"commit in capitals":   func() error { _, err := s.Commit(ctx, "acme", strings.Repeat("A", 32), 1); return err },
		"release for nobody":   func() error { _, err := s.Release(ctx, "", holdID{}.String()); return err },
		"refund of nothing":    func() error { _, err := s.Refund(ctx, "acme", "", 0); return err },
	} {
		if err := ask(); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v, want ErrInvalid", what, err)
		}
	}
}

// After a restore slots are full for their TTL, and what was reserved is not known.
func TestRestoreFillsSlots(t *testing.T) {
	from := drive(t, 16)
	from.set(limit("a", ScopeTenant, "acme", "10/s", 10), running("c", 5))
	s := from.service()
	res, err := s.Reserve(t.Context(), Request{Tenant: "acme", Cost: 2, RequestID: "r"}, 0)
	if err != nil {
		t.Fatal(err)
	}
	slot, err := s.Acquire(t.Context(), Request{Tenant: "acme"}, 0)
	if err != nil {
		t.Fatal(err)
	}
	to := drive(t, 16)
	to.Time = time.Hour
	if err := to.Restore(from.Backup(2)...); err != nil {
		t.Fatal(err)
	}
	s = to.service()
	if _, err := s.Commit(t.Context(), "acme", res.ID, 1); !errors.Is(err, ErrReservationUnknown) {
		t.Errorf("commit: %v", err)
	}
	if was, err := s.Release(t.Context(), "acme", slot.ID); err != nil || was {
		t.Errorf("release: %v, %v", was, err)
	}
	peek, err := s.Peek(t.Context(), Request{Tenant: "acme"})
	if i := slices.IndexFunc(peek.Levels, func(l Level) bool { return l.Kind == KindConcurrency }); err != nil || i < 0 || peek.Levels[i].Used != 5 {
		t.Errorf("peek: %+v, %v; want 5 slots used", peek, err)
	}
	h, err := s.Acquire(t.Context(), Request{Tenant: "acme"}, 0)
	if err != nil || h.Allow || h.RetryAfterMs != 60_061 {
		t.Errorf("at once: %+v, %v; want a minute to wait", h, err)
	}
	to.Restart()
	to.Time += time.Minute
	if h, err := to.service().Acquire(t.Context(), Request{Tenant: "acme", Cost: 5}, 0); err != nil || !h.Allow {
		t.Errorf("a minute later: %+v, %v", h, err)
	}
}
