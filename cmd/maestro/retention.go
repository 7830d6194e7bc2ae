package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	provenancev1 "github.com/maestro-conductor/maestro/api/gen/mc/provenance/v1"
	"github.com/maestro-conductor/maestro/api/gen/mc/provenance/v1/provenancev1connect"
)

func (a *app) retentionCommand() *cobra.Command {
	cmd := a.group(&cobra.Command{Use: "retention", Short: "Say how long documents are kept"})
	cmd.AddCommand(a.retentionSetCommand(), a.retentionListCommand(), a.retentionRemoveCommand())
	return cmd
}

func (a *app) retentionSetCommand() *cobra.Command {
	rule := &provenancev1.RetentionRule{}
	var age string
	cmd := &cobra.Command{
		Use:   "set (--age AGE | --hold) [--tenant TENANT] [--kind KIND]",
		Short: "Make or replace a rule of retention",
		Long: `Say how long documents of a tenant and a kind are kept after they were stored; what is older is disposed of
and CANNOT BE BROUGHT BACK. One rule counts for a document: the one for its tenant and kind, else the one for its
tenant, else the one for its kind, else the one for all; without any it stays for ever. Documents go at most a
sixteenth of the age (a minute to a day) after that. What went is told by signed records: maestro search
kind:disposition.

With --hold nothing of the tenant goes, whatever the rules say, until the hold is removed. Set it before the
rules; what is being disposed of at that moment, which takes some seconds, may still go.`,
		Example: `  maestro index retention set --kind event --age 90d
  maestro index retention set --tenant acme --kind receipt --age 7y
  maestro index retention set --tenant acme --kind decision --age forever
  maestro index retention set --tenant beta --hold`,
		Args: cobra.NoArgs,
	}
	f := cmd.Flags()
	f.StringVar(&rule.Tenant, "tenant", "", "only documents of this tenant (default: all)")
	f.StringVar(&rule.Kind, "kind", "", "only receipt, event or decision (default: all)")
	f.StringVar(&age, "age", "", "how long, such as 36h, 90d or 7y (of 365 days), or forever")
	f.BoolVar(&rule.Hold, "hold", false, "keep everything of the tenant")
	cmd.RunE = a.action(func(ctx context.Context, _ []string) error {
		var err error
		switch {
		case rule.GetHold() && (age != "" || rule.GetKind() != "" || rule.GetTenant() == ""):
			return usageError{errors.New("a hold is of one tenant, without --kind and --age")}
		case !rule.GetHold():
			if rule.AgeSeconds, err = parseAge(age); err != nil {
				return err
			}
		}
		return callRetention(ctx, a, provenancev1connect.ProvenanceClient.SetRetention,
			&provenancev1.SetRetentionRequest{Rules: []*provenancev1.RetentionRule{rule}})
	})
	return cmd
}

func (a *app) retentionListCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Short:   "Show the rules of retention",
		Long:    `Show the rules of retention. A tenant sees its own and those for all.`,
		Example: `  maestro index retention list -o json`,
		Args:    cobra.NoArgs,
		RunE: a.action(func(ctx context.Context, _ []string) error {
			return callRetention(ctx, a, provenancev1connect.ProvenanceClient.ListRetention, &provenancev1.ListRetentionRequest{})
		}),
	}
}

func (a *app) retentionRemoveCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "remove NAME...",
		Short: "Remove rules of retention",
		Long: `Remove rules by the name that the list shows: TENANT/KIND, with * for any, or TENANT/hold. Another
rule, or none, then counts for their documents.`,
		Example: `  maestro index retention remove '*/event'
  maestro index retention remove beta/hold`,
		Args: cobra.MinimumNArgs(1),
		RunE: a.action(func(ctx context.Context, names []string) error {
			return callRetention(ctx, a, provenancev1connect.ProvenanceClient.RemoveRetention, &provenancev1.RemoveRetentionRequest{Names: names})
		}),
	}
}

// rulesAnswer is what each of the calls answers with: the rules as they are then.
type rulesAnswer[T any] interface {
	*T
	proto.Message
	GetRules() []*provenancev1.RetentionRule
	GetVersion() uint64
}

// callRetention makes a call and prints the rules.
func callRetention[Req, Res any, R rulesAnswer[Res]](
	ctx context.Context, a *app, call func(provenancev1connect.ProvenanceClient, context.Context, *connect.Request[Req]) (*connect.Response[Res], error), request *Req,
) error {
	c, _, err := a.connect("")
	if err != nil {
		return err
	}
	defer c.Close()
	ctx, cancel := a.request(ctx)
	defer cancel()
	resp, err := call(c.Provenance(), ctx, connect.NewRequest(request))
	if err != nil {
		return err
	}
	rules := R(resp.Msg)
	return a.print(rules, func(w io.Writer) { printRules(w, rules.GetRules(), rules.GetVersion()) })
}

func printRules(w io.Writer, rules []*provenancev1.RetentionRule, version uint64) {
	if len(rules) == 0 {
		fmt.Fprintln(w, "no rules: everything is kept for ever")
		return
	}
	fmt.Fprintf(w, "NAME\tKEEP\n")
	for _, r := range rules {
		keep := formatAge(r.GetAgeSeconds())
		if r.GetHold() {
			keep = "everything (hold)"
		}
		fmt.Fprintf(w, "%s\t%s\n", r.GetName(), keep)
	}
	fmt.Fprintf(w, "policy version %d\n", version)
}

const daySeconds = 24 * 60 * 60

// parseAge reads an age in seconds; 0 is for ever.
func parseAge(s string) (int64, error) {
	bad := usageError{fmt.Errorf("--age %q; write how long, such as 36h, 90d or 7y, at least 1m, or forever", s)}
	if s == "forever" {
		return 0, nil
	}
	for unit, seconds := range map[string]int64{"d": daySeconds, "y": 365 * daySeconds} {
		if number, ok := strings.CutSuffix(s, unit); ok {
			n, err := strconv.ParseInt(number, 10, 32)
			if err != nil || n < 1 {
				return 0, bad
			}
			return n * seconds, nil
		}
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < time.Minute {
		return 0, bad
	}
	return int64(d / time.Second), nil
}

func formatAge(seconds int64) string {
	switch {
	case seconds == 0:
		return "for ever"
	case seconds%daySeconds == 0:
		return strconv.FormatInt(seconds/daySeconds, 10) + "d"
	}
	return (time.Duration(seconds) * time.Second).String()
}
