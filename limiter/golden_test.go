package limiter

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/maestro-conductor/maestro/internal/script"
)

func TestGolden(t *testing.T) {
	script.Run(t, "testdata/*.txt", func(t *testing.T) func([]string, string) string {
		d := drive(t, 16)
		return func(words []string, input string) string {
			if words[0] == "at" {
				at, err := time.ParseDuration(words[1])
				if err != nil {
					t.Fatal(err)
				}
				d.Time, words = at, words[2:]
			}
			switch words[0] {
			case "limits":
				limits, err := ParseLimits([]byte(input))
				if err != nil {
					return err.Error()
				}
				return fmt.Sprintf("version %d", d.set(limits...))
			case "check":
				cost, err := strconv.ParseUint(words[4], 10, 32)
				if err != nil {
					t.Fatal(err)
				}
				text := strings.NewReplacer("-", "")
				return d.check(d.Time, Request{
					Tenant: words[1], Token: text.Replace(words[2]), Key: text.Replace(words[3]), Cost: uint32(cost),
				}).String()
			case "roll":
				d.roll(day(strings.Join(words[1:], " ")))
				return "rolled"
			case "sweep":
				return fmt.Sprintf("more: %v", d.sweep())
			case "rows":
				return strconv.Itoa(d.counters())
			}
			t.Fatalf("unknown command %q", words[0])
			return ""
		}
	})
}
