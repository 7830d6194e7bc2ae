package busiest

import (
	"fmt"
	"math"
	"testing"
	"time"
)

// A busy key is found among ten times as many others as there is room for, with its rates.
func TestBusyKeysAreFound(t *testing.T) {
	var now time.Duration
	s := New(50, func() time.Duration { return now })
	busy, denied := Key{"acme", "ana", "export"}, Key{"globex", "bob", ""}
	for second := range 300 { // long enough that the rates are steady
		for i := range 20 {
			now = time.Duration(second)*time.Second + time.Duration(i)*50*time.Millisecond
			s.Add(busy, "")
			s.Add(Key{"acme", "", fmt.Sprint(second*20+i, "-of-many")}, "")
			if i%2 == 0 {
				s.Add(denied, "small")
			}
		}
	}
	got := s.Top("", 2, false)
	if len(got) != 2 || got[0].Key != busy || got[1].Key != denied {
		t.Fatalf("top %+v", got)
	}
	if e := got[0]; math.Abs(e.Checks-20) > 1 || e.Denies != 0 || e.Error != 0 {
		t.Errorf("the busiest %+v, want 20 a second", e)
	}
	if e := got[1]; math.Abs(e.Checks-10) > 1 || e.Checks != e.Denies || e.Limit != "small" {
		t.Errorf("the denied one %+v, want 10 a second", e)
	}
	if got := s.Top("", 10, true); len(got) != 1 || got[0].Key != denied {
		t.Errorf("by denials %+v", got)
	}
	if got := s.Top("globex", 10, false); len(got) != 1 || got[0].Key != denied {
		t.Errorf("of one tenant %+v", got)
	}
	// What is over is forgotten, however long nothing came.
	now += 24 * time.Hour
	s.Add(busy, "")
	if got := s.Top("", 10, false); len(got) != 1 || got[0].Key != busy || got[0].Checks > 1 {
		t.Errorf("a day later %+v", got)
	}
}

// Of very many observations a share is counted, and the rates stay right.
func TestHotKeysAreSampled(t *testing.T) {
	var now time.Duration
	s := New(10, func() time.Duration { return now })
	const perSecond = 200_000
	for i := range 60 * perSecond / 4 { // a quarter of the time at that rate
		now = time.Duration(i) * time.Second / perSecond
		s.Add(Key{Tenant: "acme"}, "")
	}
	if s.mask.Load() == 0 {
		t.Error("everything was counted")
	}
	want := perSecond * (1 - math.Exp2(-float64(now)/float64(halfLife)))
	if got := s.Top("", 1, false); len(got) != 1 || math.Abs(got[0].Checks-want) > want/10 {
		t.Errorf("%+v, want %.0f a second", got, want)
	}
	for i := 0; i < 10_000 && s.mask.Load() != 0; i++ {
		now += 2 * time.Second
		s.Add(Key{Tenant: "acme"}, "")
	}
	if s.mask.Load() != 0 {
		t.Error("a quiet sketch still leaves some out")
	}
}

func TestMerge(t *testing.T) {
	a, b := Key{Tenant: "a"}, Key{Tenant: "b"}
	got := First(Merge([]Entry{{Key: a, Checks: 1, Denies: 1, Limit: "x"}, {Key: b, Checks: 5}}, []Entry{{Key: a, Checks: 6, Error: 2}}), 5, false)
	want := []Entry{{Key: a, Checks: 7, Denies: 1, Error: 2, Limit: "x"}, {Key: b, Checks: 5}}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}
