package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	provenancev1 "github.com/maestro-conductor/maestro/api/gen/mc/provenance/v1"
	"github.com/maestro-conductor/maestro/index"
)

func (a *app) indexCommand() *cobra.Command {
	cmd := a.group(&cobra.Command{Use: "index", Short: "Switch the index, and say how long it keeps documents"})
	cmd.AddCommand(a.indexWriteCommand(), a.retentionCommand(), a.dispositionCommand())
	return cmd
}

func (a *app) indexWriteCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "write [on|read-only|off]",
		Short: "Show or set whether the index takes documents and answers searches",
		Long: `Show what the index of the region takes, or set it, for all tenants at once. Every node that answers
follows within a second, without a restart.

  on         documents are stored and found (read-write)
  read-only  searches, lineage and exports are answered; documents are refused with index_read_only
  off        searches are refused too, with index_off

What was acknowledged before stays stored. Only administrators of the platform set it. Who did is in the log
of the node that was asked, and the metric mc_prov_index_mode shows which mode each node follows.`,
		Example: `  maestro index write
  maestro index write read-only   # before maintenance: what is stored stays as it is
  maestro index write on`,
		ValidArgs: append([]string{"on"}, index.Modes[:]...),
		Args:      cobra.MaximumNArgs(1),
		RunE: a.action(func(ctx context.Context, args []string) error {
			var mode index.Mode
			if len(args) > 0 {
				var ok bool
				if mode, ok = index.ParseMode(args[0]); !ok && args[0] != "on" {
					return usageError{fmt.Errorf("%q is no mode; it must be on, %s", args[0], strings.Join(index.Modes[1:], " or "))}
				}
			}
			c, _, err := a.connect("")
			if err != nil {
				return err
			}
			defer c.Close()
			ctx, cancel := a.request(ctx)
			defer cancel()
			if len(args) == 0 {
				resp, err := c.Provenance().GetMode(ctx, connect.NewRequest(&provenancev1.GetModeRequest{}))
				if err != nil {
					return err
				}
				return a.print(resp.Msg, func(w io.Writer) { fmt.Fprintln(w, indexModeLine(resp.Msg.GetMode())) })
			}
			resp, err := c.Provenance().SetMode(ctx, connect.NewRequest(&provenancev1.SetModeRequest{Mode: mode.String()}))
			if err != nil {
				return err
			}
			return a.print(resp.Msg, func(w io.Writer) {
				fmt.Fprintf(w, "%s\nit was %s; every node that answers follows within a second\n", indexModeLine(resp.Msg.GetMode()), resp.Msg.GetBefore())
			})
		}),
	}
}

// indexModeLine says what a mode means.
func indexModeLine(mode string) string {
	switch mode {
	case index.ModeReadOnly.String():
		return "read-only: searches are answered; documents are REFUSED"
	case index.ModeOff.String():
		return "off: searches and documents are REFUSED"
	}
	return "read-write: documents are stored and found"
}
