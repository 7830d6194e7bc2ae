package limiter

import (
	"fmt"
	"time"
)

const (
	// SlotTTLUsual is the TTL of a concurrency that names none.
	SlotTTLUsual = "60s"
	// HoldMin and HoldMax bound for how long a slot or a reservation is held at once; HoldUsual is
	// for how long when nobody says.
	HoldMin   = time.Second
	HoldMax   = time.Hour
	HoldUsual = time.Minute
	// concurrencyMax bounds the slots of one counter, and so the rows that a denied request looks
	// at for its advice, once: see slotMemo.
	concurrencyMax = 10_000
)

// Concurrency admits as many slots at the same time as its limit. A slot is given back by its
// holder, or frees itself.
type Concurrency struct {
	// Limit is at most 10,000; 0 admits nothing.
	Limit uint32
	// TTL is for how long a slot is held unless it is renewed: a period from 1s to 1h.
	TTL string
}

// micros is the TTL; 0 without one.
func (c Concurrency) micros() int64 {
	micros, err := parsePeriod(c.TTL)
	if c.TTL == "" || err != nil {
		return 0
	}
	return int64(micros)
}

func concurrencyProblems(c Concurrency) []problem {
	if c == (Concurrency{}) {
		return nil
	}
	var out []problem
	if c.Limit > concurrencyMax {
		out = append(out, problem{"concurrency.limit", fmt.Sprintf("must be at most %d", concurrencyMax)})
	}
	if t := c.micros(); t < HoldMin.Microseconds() || t > HoldMax.Microseconds() {
		out = append(out, problem{"concurrency.ttl", `must be a period from "1s" to "1h", with a whole number and one of the units ms, s, m, h`})
	}
	return out
}
