package ingest

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/maestro-conductor/maestro/index"
)

var update = flag.Bool("update", false, "rewrite the wanted part of testdata/*.txt")

// Each testdata/*.txt is a scenario: the format (and mapping) it is read with, what comes
// in, and what it is read as.
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scenarios: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			s := readScenario(t, file)
			opts := Options{Format: strings.TrimSpace(s.part("format")), Tenant: "acme"}
			if text := s.part("mapping"); text != "" {
				if opts.Mapping, err = ParseMapping([]byte(text)); err != nil {
					t.Fatal(err)
				}
			}
			got := describe(readAll(t, s.part("input"), opts))
			if want := s.part("want"); got != want {
				if *update {
					s.write(t, file, got)
					return
				}
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
}

// scenario is a file of parts, each headed by a line "-- name --".
type scenario struct {
	names []string
	parts map[string]string
}

func readScenario(t testing.TB, file string) scenario {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	s := scenario{parts: map[string]string{}}
	name := "about"
	s.names = []string{name}
	for line := range strings.Lines(string(data)) {
		if head, ok := strings.CutPrefix(line, "-- "); ok && strings.HasSuffix(line, " --\n") {
			name = strings.TrimSuffix(head, " --\n")
			s.names = append(s.names, name)
			continue
		}
		s.parts[name] += line
	}
	return s
}

func (s scenario) part(name string) string { return s.parts[name] }

func (s scenario) write(t *testing.T, file, want string) {
	t.Helper()
	s.parts["want"] = want
	var b strings.Builder
	for _, name := range s.names {
		if name != "about" {
			fmt.Fprintf(&b, "-- %s --\n", name)
		}
		b.WriteString(s.parts[name])
	}
	if err := os.WriteFile(file, []byte(b.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}

func readAll(t *testing.T, input string, opts Options) []Item {
	t.Helper()
	var items []Item
	err := Read(strings.NewReader(input), opts, func(item Item) error {
		items = append(items, item)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return items
}

// describe writes items for people: only the fields that are set.
func describe(items []Item) string {
	var b strings.Builder
	for _, item := range items {
		if item.Err != nil {
			fmt.Fprintf(&b, "%s: refused, %s: %v\n", item.Position(), item.Err.Reason, item.Err)
			continue
		}
		d := item.Document
		fmt.Fprintf(&b, "%s: %s %s of %s\n", item.Position(), d.Kind, d.ID, d.Tenant)
		switch {
		case d.TimeStamped && d.Time != 0:
			fmt.Fprintf(&b, "  stamped %s\n", time.Unix(0, d.Time).UTC().Format(time.RFC3339Nano))
		case !d.TimeStamped:
			fmt.Fprintf(&b, "  time %s\n", time.Unix(0, d.Time).UTC().Format(time.RFC3339Nano))
		}
		for _, f := range [][2]string{
			{"region", d.Region},
			{"execution", d.Execution},
			{"task", d.Task},
			{"pack", d.Pack},
			{"rule", d.Rule},
			{"decision", d.Decision},
			{"reason", d.Reason},
			{"runner", d.Runner},
		} {
			if f[1] != "" {
				fmt.Fprintf(&b, "  %s %s\n", f[0], f[1])
			}
		}
		for _, g := range d.Digests {
			fmt.Fprintf(&b, "  %s %s %s\n", g.Direction, index.FormatDigest(g.Algorithm, g.Value), g.Name)
		}
		if d.Currency != "" {
			fmt.Fprintf(&b, "  cost %d micro-%s\n", d.CostMicros, d.Currency)
		}
		if d.DurationMs != 0 {
			fmt.Fprintf(&b, "  duration %d ms\n", d.DurationMs)
		}
		for _, a := range d.Attributes {
			fmt.Fprintf(&b, "  attr.%s = %q\n", a.Name, a.Value)
		}
	}
	return b.String()
}
