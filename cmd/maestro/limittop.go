package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	limiterv1 "github.com/maestro-conductor/maestro/api/gen/mc/limiter/v1"
)

func (a *app) limitTopCommand() *cobra.Command {
	r := &limiterv1.TopRequest{}
	cmd := &cobra.Command{
		Use:   "top [--tenant T] [--denied] [-n N]",
		Short: "Show the keys that are asked about, or denied, most",
		Long: `Show the tenants, tokens and keys of checks that the nodes of the region are asked about most, with their
rates per second over about the last minute. LIMIT is the limit that denied a key last. Every node keeps count
of a thousand keys; a ~ marks rates that may be those of several keys which took turns. Above 20000
checks a second on a node, a random share of them is counted.`,
		Example: `  maestro limit top
  maestro limit top --denied -n 5
  maestro limit top --tenant acme -o json`,
		Args: cobra.NoArgs,
	}
	f := cmd.Flags()
	f.StringVar(&r.Tenant, "tenant", "", "only keys of this tenant (default: the identity's, or all for the platform)")
	f.BoolVar(&r.Denied, "denied", false, "order by what was denied")
	f.Uint32VarP(&r.Most, "number", "n", 20, "how many keys, at most 100")
	cmd.RunE = a.action(func(ctx context.Context, _ []string) error {
		c, _, err := a.connect("")
		if err != nil {
			return err
		}
		defer c.Close()
		ctx, cancel := a.request(ctx)
		defer cancel()
		resp, err := c.Limiter().Top(ctx, connect.NewRequest(r))
		if err != nil {
			return err
		}
		return a.print(resp.Msg, func(w io.Writer) { topTable(w, resp.Msg) })
	})
	return cmd
}

func topTable(w io.Writer, r *limiterv1.TopResponse) {
	if len(r.GetKeys()) == 0 {
		fmt.Fprintln(w, "nothing was asked lately")
	} else {
		fmt.Fprintln(w, "TENANT\tTOKEN\tKEY\tCHECKS/S\tDENIED/S\tLIMIT")
	}
	for _, k := range r.GetKeys() {
		about := ""
		if k.GetErrorPerSecond() > k.GetChecksPerSecond()/10 {
			about = "~"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s%.4g\t%.4g\t%s\n", k.GetTenant(), orDash(k.GetToken()), orDash(k.GetKey()), about, k.GetChecksPerSecond(), k.GetDeniesPerSecond(), orDash(k.GetLimitId()))
	}
	if len(r.GetMissing()) > 0 {
		fmt.Fprintf(w, "\nnot counted, because they did not answer: %s\n", strings.Join(r.GetMissing(), ", "))
	}
}
