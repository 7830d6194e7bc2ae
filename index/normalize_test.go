package index

import (
	"encoding/hex"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

const (
	helloHex    = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03"
	helloBase64 = "WJG1tSLV3whtD/CxEPvZ0hu0/HFjrzTQgoai6Eb2vgM="
)

func receipt() Document {
	return Document{
		ID: "r-1", Kind: KindReceipt, Tenant: "acme", Region: "us-west",
		Time:      time.Date(2026, 3, 4, 5, 6, 7, 8, time.UTC).UnixNano(),
		Execution: "exec-7", Task: "align", Pack: "genomics@1.2.0", Rule: "budget", Decision: "allow",
		Reason: "within budget", Runner: "pool-a/3",
		Digests: []Digest{
			{"sha256", helloHex, DirectionInput, "reads.fq"},
			{"gitcommit", helloHex[:40], DirectionInput, ""},
		},
		CostMicros: 1_250_000, Currency: "USD", DurationMs: 90_000,
		Attributes: []Attribute{{"attempt", "2"}, {"queue", "spot"}},
	}
}

func TestNormalizeBringsOneFormForAllSpellings(t *testing.T) {
	d := receipt()
	d.Digests = []Digest{
		{"", "sha256-" + helloBase64, DirectionInput, "reads.fq"},
		{"SHA256", strings.ToUpper(helloHex), DirectionInput, "reads.fq"}, // a repeat
		{"gitCommit", helloHex[:40], DirectionInput, ""},
	}
	slices.Reverse(d.Attributes)
	if err := Normalize(&d); err != nil {
		t.Fatal(err)
	}
	if want := receipt(); !reflect.DeepEqual(d, want) {
		t.Errorf("got  %+v\nwant %+v", d, want)
	}
}

func TestNormalizeNamesDocumentWithoutIDByItsContent(t *testing.T) {
	named := func(change func(*Document)) string {
		d := receipt()
		d.ID = ""
		change(&d)
		if err := Normalize(&d); err != nil {
			t.Fatal(err)
		}
		return d.ID
	}
	plain := named(func(*Document) {})
	if raw, err := hex.DecodeString(plain); err != nil || len(raw) != 32 {
		t.Errorf("%q is not a SHA-256 in hex", plain)
	}
	if named(func(d *Document) { slices.Reverse(d.Attributes) }) != plain {
		t.Error("the order of attributes makes another document")
	}
	if named(func(d *Document) { d.Task = "sort" }) == plain {
		t.Error("another task makes the same document")
	}
	if named(func(d *Document) { d.Time++ }) == plain {
		t.Error("another time makes the same document")
	}
	stamped := named(func(d *Document) { d.TimeStamped, d.Time = true, 0 })
	if stamped != named(func(d *Document) { d.TimeStamped = true }) {
		t.Error("the server's stamp makes another document")
	}
	if stamped == plain {
		t.Error("a stamped time counts as the producer's")
	}
}

func TestNormalizeRefuses(t *testing.T) {
	long := func(n int) string { return strings.Repeat("x", n) }
	for _, c := range []struct {
		reason, field string
		change        func(*Document)
	}{
		{ReasonKindUnknown, "kind", func(d *Document) { d.Kind = "" }},
		{ReasonKindUnknown, "kind", func(d *Document) { d.Kind = "Receipt" }},
		{ReasonTenantMalformed, "tenant", func(d *Document) { d.Tenant = "" }},
		{ReasonTenantMalformed, "tenant", func(d *Document) { d.Tenant = "Acme" }},
		{ReasonTenantMalformed, "tenant", func(d *Document) { d.Tenant = long(64) }},
		{ReasonFieldTooLong, "id", func(d *Document) { d.ID = long(257) }},
		{ReasonFieldTooLong, "task", func(d *Document) { d.Task = long(1025) }},
		{ReasonFieldTooLong, "reason", func(d *Document) { d.Reason = long(4097) }},
		{ReasonTextMalformed, "runner", func(d *Document) { d.Runner = "a\xffb" }},
		{ReasonTextMalformed, "execution", func(d *Document) { d.Execution = "a\x00b" }},
		{ReasonTimeOutOfRange, "time", func(d *Document) { d.Time = -1 }},
		{ReasonTimeOutOfRange, "time", func(d *Document) { d.Time = maxTime + 1 }},
		{ReasonCostMalformed, "cost.currency", func(d *Document) { d.Currency = "" }},
		{ReasonCostMalformed, "cost.currency", func(d *Document) { d.Currency = "usd" }},
		{ReasonCostMalformed, "cost.currency", func(d *Document) { d.Currency = "EURO" }},
		{ReasonDigestMalformed, "digests[1]", func(d *Document) { d.Digests[1].Value = "abc" }},
		{ReasonDigestMalformed, "digests[0]", func(d *Document) { d.Digests[0] = Digest{"", "", DirectionInput, ""} }},
		{ReasonDirectionUnknown, "digests[0].direction", func(d *Document) { d.Digests[0].Direction = "" }},
		{ReasonFieldTooLong, "digests[0].name", func(d *Document) { d.Digests[0].Name = long(1025) }},
		{ReasonDigestsTooMany, "digests", func(d *Document) { d.Digests = make([]Digest, MaxDigests+1) }},
		{ReasonAttributeMalformed, "attributes", func(d *Document) { d.Attributes[0].Name = "" }},
		{ReasonFieldTooLong, "attributes", func(d *Document) { d.Attributes[0].Name = long(129) }},
		{ReasonFieldTooLong, "attributes[queue]", func(d *Document) { d.Attributes[1].Value = long(8<<10 + 1) }},
		{ReasonTextMalformed, "attributes[queue]", func(d *Document) { d.Attributes[1].Value = "\xff" }},
		{ReasonAttributeDuplicate, "attributes[queue]", func(d *Document) { d.Attributes[0].Name = "queue" }},
		{ReasonAttributesTooMany, "attributes", func(d *Document) { d.Attributes = make([]Attribute, MaxAttributes+1) }},
		{ReasonDocumentTooLarge, "", func(d *Document) {
			for i := range 40 {
				d.Attributes = append(d.Attributes, Attribute{long(i + 10), long(7 << 10)})
			}
		}},
	} {
		d := receipt()
		c.change(&d)
		err := Normalize(&d)
		var refused *DocumentError
		if !errors.As(err, &refused) || refused.Reason != c.reason || refused.Field != c.field {
			t.Errorf("want %s of %q, got %#v", c.reason, c.field, err)
		}
	}
}

func TestNormalizeTakesEverythingAtItsLimit(t *testing.T) {
	long := func(n int) string { return strings.Repeat("é", n/2) }
	d := receipt()
	d.ID, d.Task, d.Reason, d.Time = long(MaxIDBytes), long(MaxTextBytes), long(MaxReasonBytes), maxTime
	d.Tenant = strings.Repeat("a", MaxTenantBytes)
	d.Attributes = []Attribute{{long(MaxAttributeNameBytes), long(MaxAttributeValueBytes)}}
	if err := Normalize(&d); err != nil {
		t.Fatal(err)
	}
	d.Attributes = nil
	for d.Time = 0; len(AppendDocument(nil, &d)) < MaxDocumentBytes-MaxAttributeValueBytes; {
		d.Attributes = append(d.Attributes, Attribute{string(rune('A' + len(d.Attributes))), long(MaxAttributeValueBytes - 8)})
	}
	fill := MaxDocumentBytes - len(AppendDocument(nil, &d)) - 4 // name, two lengths of 1 and 2 bytes
	d.Attributes = append(d.Attributes, Attribute{"z", strings.Repeat("x", fill)})
	if err := Normalize(&d); err != nil {
		t.Fatalf("%d bytes: %v", len(AppendDocument(nil, &d)), err)
	}
	d.Attributes[len(d.Attributes)-1].Value += "x"
	if err := Normalize(&d); err == nil {
		t.Errorf("%d bytes are taken", len(AppendDocument(nil, &d)))
	}
}

func TestNormalizeIsIdempotent(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := documents(t)
		if Normalize(&d) != nil {
			return
		}
		again := clone(d)
		if err := Normalize(&again); err != nil {
			t.Fatalf("%+v was taken once, then refused: %v", d, err)
		}
		if !reflect.DeepEqual(d, again) {
			t.Fatalf("first  %+v\nsecond %+v", d, again)
		}
	})
}

func clone(d Document) Document {
	d.Digests = slices.Clone(d.Digests)
	d.Attributes = slices.Clone(d.Attributes)
	return d
}

// documents draws a document that is mostly, but not always, in good form.
func documents(t *rapid.T) Document {
	text := rapid.OneOf(rapid.Just(""), rapid.StringN(0, 20, 40))
	d := Document{
		ID:          text.Draw(t, "id"),
		Kind:        rapid.SampledFrom([]string{KindReceipt, KindEvent, KindDecision}).Draw(t, "kind"),
		Tenant:      rapid.StringMatching(`[a-z0-9._-]{1,63}`).Draw(t, "tenant"),
		Region:      text.Draw(t, "region"),
		Time:        rapid.Int64Range(0, maxTime).Draw(t, "time"),
		TimeStamped: rapid.Bool().Draw(t, "stamped"),
		Execution:   text.Draw(t, "execution"),
		Task:        text.Draw(t, "task"),
		Pack:        text.Draw(t, "pack"),
		Rule:        text.Draw(t, "rule"),
		Decision:    text.Draw(t, "decision"),
		Reason:      text.Draw(t, "reason"),
		Runner:      text.Draw(t, "runner"),
		DurationMs:  rapid.Uint32().Draw(t, "duration"),
		Digests:     rapid.SliceOfN(rapid.Custom(digests), 0, 5).Draw(t, "digests"),
	}
	if rapid.Bool().Draw(t, "priced") {
		d.CostMicros, d.Currency = rapid.Int64().Draw(t, "cost"), "EUR"
	}
	names := rapid.SliceOfNDistinct(rapid.StringN(1, 10, 20), 0, 5, rapid.ID[string]).Draw(t, "names")
	for _, name := range names {
		d.Attributes = append(d.Attributes, Attribute{name, text.Draw(t, "value")})
	}
	return d
}

func digests(t *rapid.T) Digest {
	known := rapid.SampledFrom(digestAlgorithms).Draw(t, "algorithm")
	size := rapid.SampledFrom(known.sizes).Draw(t, "size")
	raw := rapid.SliceOfN(rapid.Byte(), size, size).Draw(t, "bytes")
	g := Digest{
		Algorithm: known.name,
		Value:     hex.EncodeToString(raw),
		Direction: rapid.SampledFrom(directionCodes).Draw(t, "direction"),
		Name:      rapid.StringN(0, 10, 20).Draw(t, "name"),
	}
	switch rapid.IntRange(0, 2).Draw(t, "spelling") {
	case 1:
		g.Algorithm, g.Value = "", FormatDigest(g.Algorithm, strings.ToUpper(g.Value))
	case 2:
		g.Algorithm = "x-" + g.Algorithm
	}
	return g
}
