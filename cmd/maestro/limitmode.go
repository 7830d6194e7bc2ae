package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	limiterv1 "github.com/maestro-conductor/maestro/api/gen/mc/limiter/v1"
	"github.com/maestro-conductor/maestro/limiter"
)

func (a *app) limitModeCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "mode [enforce|shadow|off]",
		Short: "Show or set whether limits are enforced at all",
		Long: `Show how limits act in the region, or set it, for all limits of all tenants at once. Every node
that answers follows within a second.

  enforce  limits decide
  shadow   every limit counts and reports what it would deny, and denies nothing, bans included
  off      every check passes at once, and nothing is counted

Only administrators of the platform set it. Who did is in the log of the node that was asked, and
the metric mc_rl_mode shows which mode each node follows. To try a single limit out, use its
enforcement and canary instead.`,
		Example: `  maestro limit mode
  maestro limit mode off       # the limits do harm: let everything pass
  maestro limit mode shadow    # count again, and see in mc_rl_would_deny_total what would be denied
  maestro limit mode enforce`,
		ValidArgs: limiter.Modes[:],
		Args:      cobra.MaximumNArgs(1),
		RunE: a.action(func(ctx context.Context, args []string) error {
			if len(args) > 0 && !slices.Contains(limiter.Modes[:], args[0]) {
				return usageError{fmt.Errorf("%q is no mode; it must be %s", args[0], strings.Join(limiter.Modes[:], ", "))}
			}
			c, _, err := a.connect("")
			if err != nil {
				return err
			}
			defer c.Close()
			ctx, cancel := a.request(ctx)
			defer cancel()
			if len(args) == 0 {
				resp, err := c.Limiter().GetMode(ctx, connect.NewRequest(&limiterv1.GetModeRequest{}))
				if err != nil {
					return err
				}
				return a.print(resp.Msg, func(w io.Writer) { fmt.Fprintln(w, modeLine(resp.Msg.GetMode())) })
			}
			resp, err := c.Limiter().SetMode(ctx, connect.NewRequest(&limiterv1.SetModeRequest{Mode: args[0]}))
			if err != nil {
				return err
			}
			return a.print(resp.Msg, func(w io.Writer) {
				fmt.Fprintf(w, "%s\nit was %s; every node that answers follows within a second\n", modeLine(resp.Msg.GetMode()), resp.Msg.GetBefore())
			})
		}),
	}
}

// modeLine says what a mode means.
func modeLine(mode string) string {
	switch mode {
	case limiter.ModeShadow.String():
		return "shadow: limits are NOT ENFORCED; they count, and deny nothing"
	case limiter.ModeOff.String():
		return "off: limits are NOT ENFORCED; every check passes, and nothing is counted"
	}
	return "enforce: limits decide"
}
