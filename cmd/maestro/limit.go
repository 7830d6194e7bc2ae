package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"github.com/maestro-conductor/maestro/api"
	limiterv1 "github.com/maestro-conductor/maestro/api/gen/mc/limiter/v1"
	"github.com/maestro-conductor/maestro/internal/client"
	"github.com/maestro-conductor/maestro/limiter"
)

func (a *app) limitCommand() *cobra.Command {
	cmd := a.group(&cobra.Command{Use: "limit", Short: "Set, show and delete limits; reserve, hold and give back"})
	cmd.AddCommand(a.limitReserveCommand(), a.limitCommitCommand(), a.limitCancelCommand(), a.limitRefundCommand(), a.limitAcquireCommand(), a.limitReleaseCommand())
	cmd.AddCommand(a.limitSetCommand(), a.limitListCommand(), a.limitGetCommand(), a.limitUsageCommand(), a.limitPlanCommand(), a.limitDeleteCommand(), a.limitTopCommand(), a.limitModeCommand())
	return cmd
}

func (a *app) limitSetCommand() *cobra.Command {
	var file string
	var dryRun bool
	cmd := &cobra.Command{
		Use:   "set -f FILE [--dry-run]",
		Short: "Create or replace limits from a YAML file, all or none",
		Long: `Create or replace limits, all of them or none. The file is checked before anything is sent:

  limits:
    - id: acme-api
      scope: tenant            # tenant, token, key or global: what gets a counter of its own
      selector: acme           # TENANT, or TENANT/PATTERN for the scopes token and key, none for global;
                               # or with *, or plan:NAME, in the place of the tenant
      tokenBucket: {rate: 100/s, burst: 20}
      window: {limit: 10000, length: 1h}
      calendar: {limit: 1000000, period: month, timeZone: Europe/Berlin}
      concurrency: {limit: 10, ttl: 60s}
      onFailure: deny          # error, deny or open: what a check is told while it cannot be decided

A limit has a tokenBucket, a window, a calendar, a concurrency, or several of them. docs/limits.md explains every field.
What changes is shown, one limit a line: - what goes, + what comes. With --dry-run nothing is set.`,
		Example: `  maestro limit set -f limits.yaml --dry-run
  maestro limit set -f limits.yaml
  generate-limits | maestro limit set -f -`,
		Args: cobra.NoArgs,
	}
	cmd.Flags().StringVarP(&file, "file", "f", "", "YAML file of limits; - reads stdin (required)")
	must(cmd.MarkFlagRequired("file"))
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "check the file and show what would change, and set nothing")
	cmd.RunE = a.action(func(ctx context.Context, _ []string) error {
		limits, err := a.readLimits(file)
		if err != nil {
			return err
		}
		c, _, err := a.connect("")
		if err != nil {
			return err
		}
		defer c.Close()
		ctx, cancel := a.request(ctx)
		defer cancel()
		there, err := c.Limiter().ListLimits(ctx, connect.NewRequest(&limiterv1.ListLimitsRequest{}))
		if err != nil {
			return err
		}
		diff := diffLimits(limits, there.Msg)
		if dryRun {
			return a.print(diff, func(w io.Writer) {
				diff.table(w)
				fmt.Fprintf(w, "%d would be created, %d replaced, %d unchanged; limits are at version %d\n",
					len(diff.Created), len(diff.Replaced), len(diff.Unchanged), diff.Version)
			})
		}
		resp, err := c.Limiter().SetLimits(ctx, connect.NewRequest(&limiterv1.SetLimitsRequest{Limits: limits, RequestId: client.NewRequestID()}))
		if err != nil {
			return err
		}
		m := resp.Msg
		return a.print(m, func(w io.Writer) {
			diff.table(w)
			fmt.Fprintf(w, "%d created, %d replaced, %d unchanged; limits are at version %d%s\n",
				m.GetCreated(), m.GetReplaced(), m.GetUnchanged(), m.GetVersion(), inForce(m.GetInForce()))
		})
	})
	return cmd
}

func (a *app) readLimits(file string) ([]*limiterv1.Limit, error) {
	var data []byte
	var err error
	if file == "-" {
		data, err = io.ReadAll(io.LimitReader(a.stdin, 16<<20))
	} else {
		data, err = os.ReadFile(file)
	}
	if err != nil {
		return nil, err
	}
	limits, err := limiter.ParseLimits(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	var out []*limiterv1.Limit
	for _, l := range limits {
		out = append(out, api.LimitMessage(l))
	}
	return out, nil
}

func (a *app) limitListCommand() *cobra.Command {
	var tenant string
	cmd := &cobra.Command{
		Use:     "list [--tenant T]",
		Short:   "List limits",
		Example: `  maestro limit list --tenant acme -o yaml`,
		Args:    cobra.NoArgs,
	}
	cmd.Flags().StringVar(&tenant, "tenant", "", "only limits that name this tenant")
	cmd.RunE = a.action(func(ctx context.Context, _ []string) error {
		return a.listLimits(ctx, &limiterv1.ListLimitsRequest{Tenant: tenant})
	})
	return cmd
}

func (a *app) limitGetCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "get ID...",
		Short: "Show limits by id",
		Args:  cobra.MinimumNArgs(1),
		RunE: a.action(func(ctx context.Context, args []string) error {
			return a.listLimits(ctx, &limiterv1.ListLimitsRequest{Ids: args})
		}),
	}
}

func (a *app) listLimits(ctx context.Context, r *limiterv1.ListLimitsRequest) error {
	c, _, err := a.connect("")
	if err != nil {
		return err
	}
	defer c.Close()
	ctx, cancel := a.request(ctx)
	defer cancel()
	resp, err := c.Limiter().ListLimits(ctx, connect.NewRequest(r))
	if err != nil {
		return err
	}
	if err := missingLimits(r.GetIds(), resp.Msg.GetLimits()); err != nil {
		return err
	}
	return a.print(resp.Msg, func(w io.Writer) {
		fmt.Fprintln(w, "ID\tSCOPE\tSELECTOR\tLIMIT")
		for _, l := range resp.Msg.GetLimits() {
			fmt.Fprintln(w, limitLine(l))
		}
	})
}

// partsOf is what a limit lets pass, in a few words.
func partsOf(l *limiterv1.Limit) []string {
	var parts []string
	if b := l.GetTokenBucket(); b != nil {
		parts = append(parts, fmt.Sprintf("%s burst %d", b.GetRate(), b.GetBurst()))
	}
	if w := l.GetWindow(); w != nil {
		parts = append(parts, fmt.Sprintf("%d in %s", w.GetLimit(), w.GetLength()))
	}
	if c := l.GetCalendar(); c != nil {
		part := fmt.Sprintf("%d a %s", c.GetLimit(), c.GetPeriod())
		if c.GetAnchor() != "" {
			part += " from " + c.GetAnchor()
		}
		if c.GetTimeZone() != "" {
			part += " " + c.GetTimeZone()
		}
		parts = append(parts, part)
	}
	if c := l.GetConcurrency(); c != nil {
		parts = append(parts, fmt.Sprintf("%d at once for %s", c.GetLimit(), c.GetTtl()))
	}
	for _, word := range []string{l.GetAccess(), l.GetEnforcement(), l.GetOversize()} {
		if word != "" {
			parts = append(parts, word)
		}
	}
	if what := l.GetOnFailure(); what != "" {
		parts = append(parts, "on failure "+what)
	}
	if p := l.GetCanaryPercent(); p != 0 {
		parts = append(parts, fmt.Sprintf("canary %d%%", p))
	}
	if id := l.GetOverrides(); id != "" {
		parts = append(parts, "overrides "+id)
	}
	if t := l.GetExpires(); t != nil {
		parts = append(parts, "until "+t.AsTime().Format(time.RFC3339))
	}
	return parts
}

func missingLimits(ids []string, limits []*limiterv1.Limit) error {
	found := map[string]bool{}
	for _, l := range limits {
		found[l.GetId()] = true
	}
	for _, id := range ids {
		if !found[id] {
			return hinted{fmt.Errorf("there is no limit %q that you may see", id), "maestro limit list shows all of them"}
		}
	}
	return nil
}

func (a *app) limitDeleteCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "delete ID...",
		Short: "Delete limits by id, all or none",
		Args:  cobra.MinimumNArgs(1),
		RunE: a.action(func(ctx context.Context, args []string) error {
			c, _, err := a.connect("")
			if err != nil {
				return err
			}
			defer c.Close()
			ctx, cancel := a.request(ctx)
			defer cancel()
			resp, err := c.Limiter().DeleteLimits(ctx, connect.NewRequest(&limiterv1.DeleteLimitsRequest{Ids: args, RequestId: client.NewRequestID()}))
			if err != nil {
				return err
			}
			return a.print(resp.Msg, func(w io.Writer) {
				fmt.Fprintf(w, "%d deleted; limits are at version %d%s\n", len(args), resp.Msg.GetVersion(), inForce(resp.Msg.GetInForce()))
			})
		}),
	}
}

func inForce(everywhere bool) string {
	if everywhere {
		return ", in force"
	}
	return ", in force as soon as every limiter group has a leader"
}

func (a *app) limitUsageCommand() *cobra.Command {
	r := &limiterv1.UsageRequest{}
	cmd := &cobra.Command{
		Use:   "usage --tenant T [--token K] [--key X]",
		Short: "Show what is used of every limit that bounds a tenant",
		Long: `Show every limit that bounds a tenant, token and key: what is used, what is left, and in how long
nothing will be used if nobody asks. Nothing is taken. Limits of the scopes token and key are
those that match the given token and key, which may be empty.`,
		Example: `  maestro limit usage --tenant acme
  maestro limit usage --tenant acme --token ana --key export -o json`,
		Args: cobra.NoArgs,
	}
	subjectFlags(cmd, &r.Tenant, &r.Token, &r.Key)
	cmd.RunE = a.action(func(ctx context.Context, _ []string) error {
		c, tenant, err := a.connect(r.GetTenant())
		if err != nil {
			return err
		}
		defer c.Close()
		r.Tenant = tenant
		ctx, cancel := a.request(ctx)
		defer cancel()
		resp, err := c.Limiter().Usage(ctx, connect.NewRequest(r))
		if err != nil {
			return err
		}
		return a.print(resp.Msg, func(w io.Writer) { usageTable(w, resp.Msg) })
	})
	return cmd
}

func usageTable(w io.Writer, r *limiterv1.UsageResponse) {
	if len(r.GetLevels()) == 0 {
		fmt.Fprintln(w, "no limit matches")
		return
	}
	fmt.Fprintln(w, "LIMIT\tSCOPE\tKIND\tUSED\tREMAINING\tOF\tRESET\tSHADOW")
	for _, u := range r.GetLevels() {
		l, reset := u.GetLevel(), "-"
		if ms := u.GetResetMs(); ms > 0 {
			reset = (time.Duration(ms) * time.Millisecond).String()
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%d\t%d\t%s\t%s\n", l.GetLimitId(), l.GetScope(), l.GetKind(),
			u.GetUsed(), l.GetRemaining(), l.GetLimit(), reset, shadowOf(l))
	}
}
