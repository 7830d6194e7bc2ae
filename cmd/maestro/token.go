package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	clusterv1 "github.com/maestro-conductor/maestro/api/gen/mc/cluster/v1"
)

func (a *app) tokenCommand() *cobra.Command {
	cmd := a.group(&cobra.Command{Use: "token", Short: "Create, list and revoke API tokens"})
	cmd.AddCommand(a.tokenCreateCommand(), a.tokenListCommand(), a.tokenRevokeCommand())
	return cmd
}

func (a *app) tokenCreateCommand() *cobra.Command {
	r := &clusterv1.CreateTokenRequest{}
	var ttl time.Duration
	cmd := &cobra.Command{
		Use:   "create --tenant T --role R [--ttl D]",
		Short: "Create a token and print it, this once",
		Example: `  maestro token create --tenant acme --role runner --ttl 720h
  maestro token create --tenant acme --role reader -o json | jq -r .token`,
		Args: cobra.NoArgs,
	}
	f := cmd.Flags()
	f.StringVar(&r.Tenant, "tenant", "", "whose data it reaches; '*' for every tenant (default: the context's tenant)")
	f.StringVar(&r.Role, "role", "", "reader, runner, publisher, operator or admin (required)")
	f.DurationVar(&ttl, "ttl", 0, "how long it lives, in whole seconds; 0 for ever")
	f.StringVar(&r.Description, "description", "", "what it is for")
	must(cmd.MarkFlagRequired("role"))
	cmd.RunE = a.action(func(ctx context.Context, _ []string) error {
		if ttl < 0 || ttl%time.Second != 0 || ttl/time.Second > math.MaxUint32 {
			return usageError{fmt.Errorf("--ttl %v; give whole seconds, at most %d", ttl, uint32(math.MaxUint32))}
		}
		r.TtlSeconds = uint32(ttl / time.Second)
		c, tenant, err := a.connect(r.GetTenant())
		if err != nil {
			return err
		}
		defer c.Close()
		if r.Tenant = tenant; tenant == "" {
			return usageError{errors.New("--tenant is missing, and the context names none")}
		}
		ctx, cancel := a.request(ctx)
		defer cancel()
		resp, err := c.Tokens().CreateToken(ctx, connect.NewRequest(r))
		if err != nil {
			return err
		}
		return a.print(resp.Msg, func(w io.Writer) {
			info := resp.Msg.GetInfo()
			fmt.Fprintf(w, "token\t%s\nid\t%s\ntenant\t%s\nrole\t%s\nexpires\t%s\n", resp.Msg.GetToken(), info.GetId(), info.GetTenant(), info.GetRole(), expiry(info))
			fmt.Fprintln(w, "\nKeep the token: it is not shown again.")
		})
	})
	return cmd
}

func (a *app) tokenListCommand() *cobra.Command {
	r := &clusterv1.ListTokensRequest{}
	cmd := &cobra.Command{
		Use:   "list [--tenant T]",
		Short: "List tokens, without their secrets",
		Args:  cobra.NoArgs,
	}
	cmd.Flags().StringVar(&r.Tenant, "tenant", "", "only this tenant's tokens")
	cmd.RunE = a.action(func(ctx context.Context, _ []string) error {
		c, _, err := a.connect("")
		if err != nil {
			return err
		}
		defer c.Close()
		ctx, cancel := a.request(ctx)
		defer cancel()
		resp, err := c.Tokens().ListTokens(ctx, connect.NewRequest(r))
		if err != nil {
			return err
		}
		return a.print(resp.Msg, func(w io.Writer) {
			fmt.Fprintln(w, "ID\tTENANT\tROLE\tCREATED\tEXPIRES\tREVOKED\tDESCRIPTION")
			for _, t := range resp.Msg.GetTokens() {
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", t.GetId(), t.GetTenant(), t.GetRole(),
					t.GetCreated().AsTime().Format(time.DateTime), expiry(t), yesNo(t.GetRevoked()), shorten(t.GetDescription(), 40))
			}
		})
	})
	return cmd
}

func (a *app) tokenRevokeCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "revoke ID",
		Short: "End a token for good",
		Args:  cobra.ExactArgs(1),
		RunE: a.action(func(ctx context.Context, args []string) error {
			c, _, err := a.connect("")
			if err != nil {
				return err
			}
			defer c.Close()
			ctx, cancel := a.request(ctx)
			defer cancel()
			resp, err := c.Tokens().RevokeToken(ctx, connect.NewRequest(&clusterv1.RevokeTokenRequest{Id: args[0]}))
			if err != nil {
				return err
			}
			return a.print(resp.Msg, func(w io.Writer) { fmt.Fprintln(w, "revoked", args[0]) })
		}),
	}
}

func expiry(t *clusterv1.Token) string {
	if t.GetExpires() == nil {
		return "never"
	}
	return t.GetExpires().AsTime().Format(time.DateTime)
}
