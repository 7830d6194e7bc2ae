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
		ids := map[string]string{} // by the name that a script gives them
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
			case "plans": // lines of a tenant and a plan, or - for none
				var c Change
				for line := range strings.Lines(input) {
					tenant, plan, _ := strings.Cut(strings.TrimSpace(line), " ")
					if plan == "-" {
						c.Leavers = append(c.Leavers, tenant)
					} else {
						c.Plans = append(c.Plans, Assignment{tenant, plan})
					}
				}
				return fmt.Sprintf("version %d", d.move(c))
			case "check":
				cost, err := strconv.ParseUint(words[4], 10, 32)
				if err != nil {
					t.Fatal(err)
				}
				text := strings.NewReplacer("-", "")
				if len(words) > 5 { // with a request id
					r, err := d.service().Check(t.Context(), Request{
						Tenant: words[1], Token: text.Replace(words[2]), Key: text.Replace(words[3]), Cost: uint32(cost), RequestID: words[5],
					})
					return fmt.Sprint(r, errorLine(err))
				}
				return d.check(d.Time, Request{
					Tenant: words[1], Token: text.Replace(words[2]), Key: text.Replace(words[3]), Cost: uint32(cost),
				}).String()
			case "reserve", "acquire":
				return d.hold(words, ids)
			case "renew", "release", "commit", "cancel", "refund":
				return d.held(words, ids)
			case "usage":
				text := strings.NewReplacer("-", "")
				p, err := d.service().Peek(t.Context(), Request{Tenant: words[1], Token: text.Replace(words[2]), Key: text.Replace(words[3])})
				if err != nil {
					return err.Error()
				}
				var lines []string
				for _, l := range p.Levels {
					lines = append(lines, fmt.Sprintf("%s %s: %d used, %d of %d left, unused in %d ms", l.LimitID, l.Kind, l.Used, l.Remaining, l.Limit, l.ResetMs))
				}
				return strings.Join(lines, "\n")
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
