package ingest

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/maestro-conductor/maestro/index"
)

func TestReadRefusesOptionsThatMakeNoSense(t *testing.T) {
	for want, opts := range map[string]Options{
		`unknown format "xml"`:                 {Format: "xml"},
		`format "json" needs a mapping`:        {Format: FormatJSON},
		`a mapping applies to format "json"`:   {Format: FormatReceipt, Mapping: &Mapping{}},
		`applies to format "json" only, not t`: {Mapping: &Mapping{}},
	} {
		err := Read(strings.NewReader("{}"), opts, func(Item) error {
			t.Errorf("%+v: something was read", opts)
			return nil
		})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

func TestReadNeedsATenant(t *testing.T) {
	var got []Item
	err := Read(strings.NewReader(`{"kind": "event"}`), Options{}, func(item Item) error {
		got = append(got, item)
		return nil
	})
	if err != nil || len(got) != 1 || got[0].Err == nil || got[0].Err.Reason != index.ReasonTenantMalformed {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestReadStopsWithTheErrorOfEmitOrReader(t *testing.T) {
	broken := errors.New("broken")
	calls := 0
	err := Read(strings.NewReader(`[{"kind":"event"},{"kind":"event"}] {"kind":"event"}`), Options{Tenant: "acme"}, func(Item) error {
		calls++
		return broken
	})
	if !errors.Is(err, broken) || calls != 1 {
		t.Errorf("emit failed once, but: %d calls, %v", calls, err)
	}
	for _, input := range []string{"", `{"kind":"event"} `, `{"kind":`} {
		good := 0
		err = Read(io.MultiReader(strings.NewReader(input), iotest.ErrReader(broken)), Options{Tenant: "acme"}, func(item Item) error {
			if item.Err != nil {
				t.Errorf("%q: a failing reader is blamed on the content: %v", input, item.Err)
			}
			good++
			return nil
		})
		if !errors.Is(err, broken) || good != strings.Count(input, "}") {
			t.Errorf("%q: %d documents, %v", input, good, err)
		}
	}
}

// How the bytes arrive does not matter.
func TestReadInPieces(t *testing.T) {
	input := readScenario(t, "testdata/framing.txt").part("input")
	input += strings.Repeat(`{"kind": "event", "reason": "`+strings.Repeat("x", 1000)+`"}`+"\n{\n", 200)
	want := describe(readAll(t, input, Options{Tenant: "acme"}))
	for name, r := range map[string]io.Reader{
		"byte by byte":      iotest.OneByteReader(strings.NewReader(input)),
		"half by half":      iotest.HalfReader(strings.NewReader(input)),
		"data with the end": iotest.DataErrReader(strings.NewReader(input)),
		"a mark in front":   strings.NewReader("\ufeff" + input),
	} {
		var items []Item
		err := Read(r, Options{Tenant: "acme"}, func(item Item) error {
			items = append(items, item)
			return nil
		})
		if got := describe(items); err != nil || got != want {
			t.Errorf("%s: %v, got\n%.2000s\nwant\n%.2000s", name, err, got, want)
		}
	}
}

func TestReadBinary(t *testing.T) {
	for _, input := range []string{"\x1f\x8b\x08rest\n{}", "\x28\xb5\x2f\xfdrest", "{\x00\"\x00k\x00"} {
		items := readAll(t, input, Options{Tenant: "acme"})
		if len(items) != 1 || items[0].Err == nil || !strings.Contains(items[0].Err.Message, "binary") {
			t.Errorf("%q: %s", input, describe(items))
		}
	}
	if items := readAll(t, " \n\t\r\n", Options{Tenant: "acme"}); len(items) != 0 {
		t.Errorf("an empty stream has documents: %s", describe(items))
	}
}

func TestReadRefusesWhatIsTooLarge(t *testing.T) {
	event := func(id string, size int) string {
		return fmt.Sprintf(`{"kind": "event", "id": %q, "reason": %q}`, id, strings.Repeat("x", size))
	}
	nested := strings.Repeat("[", maxDepth+1)
	input := strings.Join([]string{
		event("1", 10), nested + "]", event("3", 10),
		"[" + strings.Repeat("0,", maxValues) + "0]", event("4", 5000), event("5", 10),
		`{"kind": "event", "id": "6", "attributes": {` + manyAttributes(40, 8000) + `}}`, event("7", 10),
	}, "\n")
	got := ""
	for _, item := range readAll(t, input, Options{Tenant: "acme"}) {
		if item.Err != nil {
			got += fmt.Sprintf("%d %s\n", item.Line, item.Err.Reason)
		} else {
			got += fmt.Sprintf("%d %s\n", item.Line, item.Document.ID)
		}
	}
	const want = "1 1\n2 record_malformed\n3 3\n4 record_too_large\n5 field_too_long\n6 5\n7 document_too_large\n8 7\n"
	if got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

// A record over the limit is passed over without being kept in memory.
func TestFramerPassesOverLargeRecords(t *testing.T) {
	input := "{\"fits\": 1}\n[" + strings.Repeat("1,", 1<<20) + "1]\n{}\n{\n" + strings.Repeat(" \"a\": {},\n", 1000) + "}\n[]\n"
	f := newFramer(strings.NewReader(input), 1000)
	got := ""
	for {
		r, err := f.next()
		if err != nil {
			break
		}
		if r.fault != nil {
			got += fmt.Sprintf("%d %s\n", r.line, r.fault.Reason)
			continue
		}
		got += fmt.Sprintf("%d %s\n", r.line, r.content)
	}
	const want = "1 {\"fits\": 1}\n2 record_too_large\n3 {}\n4 record_too_large\n1006 []\n"
	if got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	if cap(f.buf) > 1<<20 {
		t.Errorf("the framer keeps %d bytes", cap(f.buf))
	}
}

func manyAttributes(n, size int) string {
	var list []string
	for i := range n {
		list = append(list, fmt.Sprintf(`"a%d": %q`, i, strings.Repeat("x", size)))
	}
	return strings.Join(list, ",")
}

func TestReadRefusesInvalidUTF8(t *testing.T) {
	items := readAll(t, "{\"kind\": \"event\", \"id\": \"\xff\"}\n{\"kind\": \"event\", \"id\": \"2\"}", Options{Tenant: "acme"})
	if len(items) != 2 || items[0].Err == nil || items[0].Err.Reason != index.ReasonTextMalformed || items[1].Err != nil {
		t.Error(describe(items))
	}
}
