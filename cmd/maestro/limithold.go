package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	limiterv1 "github.com/maestro-conductor/maestro/api/gen/mc/limiter/v1"
	"github.com/maestro-conductor/maestro/internal/client"
)

// limited connects as a tenant, calls, and prints the answer.
func (a *app) limited(ctx context.Context, tenant *string, call func(context.Context, *client.Client) error) error {
	c, named, err := a.connect(*tenant)
	if err != nil {
		return err
	}
	defer c.Close()
	*tenant = named
	ctx, cancel := a.request(ctx)
	defer cancel()
	return call(ctx, c)
}

// printHold shows a decision and what it holds; a denial ends with the status of a denied check.
func (a *app) printHold(m any, what, id string, expires uint32, d *limiterv1.CheckResponse) error {
	err := a.print(m, func(w io.Writer) {
		if id != "" {
			fmt.Fprintf(w, "%s %s, for %v\n\n", what, id, time.Duration(expires)*time.Millisecond)
		}
		checkTable(w, d)
	})
	if err == nil && !d.GetAllow() {
		err = errDenied
	}
	return err
}

func ttlFlag(cmd *cobra.Command, ttl *time.Duration, usage string) {
	cmd.Flags().DurationVar(ttl, "ttl", 0, usage)
}

// ttlMs is a TTL as it travels. What does not fit is more than the server takes.
func ttlMs(ttl time.Duration) (uint32, error) {
	ms := ttl.Milliseconds()
	if ttl < 0 || time.Duration(ms)*time.Millisecond != ttl || int64(uint32(ms)) != ms {
		return 0, usageError{fmt.Errorf("--ttl %v: must be from 1s to 1h, in whole milliseconds", ttl)}
	}
	return uint32(ms), nil
}

func (a *app) limitReserveCommand() *cobra.Command {
	r := &limiterv1.ReserveRequest{}
	var ttl time.Duration
	cmd := &cobra.Command{
		Use:   "reserve --tenant T [--token K] [--key X] --cost N",
		Short: "Take a cost that is known only afterwards",
		Long: `Take a cost as check does, for something whose cost is known only afterwards. The id that it prints is
for limit commit, which tells what was really spent, or limit cancel. Neither in time: all is spent.
Exit status 3 when denied.`,
		Example: `  maestro limit reserve --tenant acme --key model-large --cost 4000 --ttl 2m
  maestro limit reserve --tenant acme --key model-large --cost 4000 -o json`,
		Args: cobra.NoArgs,
	}
	subjectFlags(cmd, &r.Tenant, &r.Token, &r.Key)
	cmd.Flags().Uint32Var(&r.Cost, "cost", 0, "tokens to reserve (required)")
	must(cmd.MarkFlagRequired("cost"))
	cmd.Flags().StringVar(&r.RequestId, "request-id", "", "makes a repeated reserve return the first answer (default: made for this call)")
	ttlFlag(cmd, &ttl, "from 1s to 1h, after which it counts as spent (default 1m)")
	cmd.RunE = a.action(func(ctx context.Context, _ []string) (err error) {
		if r.TtlMs, err = ttlMs(ttl); err != nil {
			return err
		}
		if r.RequestId == "" {
			r.RequestId = client.NewRequestID()
		}
		return a.limited(ctx, &r.Tenant, func(ctx context.Context, c *client.Client) error {
			resp, err := c.Limiter().Reserve(ctx, connect.NewRequest(r))
			if err != nil {
				return err
			}
			m := resp.Msg
			return a.printHold(m, "reservation", m.GetId(), m.GetExpiresInMs(), m.GetDecision())
		})
	})
	return cmd
}

func (a *app) limitCommitCommand() *cobra.Command {
	r := &limiterv1.CommitRequest{}
	cmd := &cobra.Command{
		Use:   "commit ID --actual N [--tenant T]",
		Short: "Settle a reservation with what was really spent",
		Long: `Settle a reservation with what was really spent. Less than was reserved is given back; more is taken,
whether there is room or not. The first commit counts.`,
		Example: `  maestro limit commit 0f8e2a7b5c3d41968e7f6a5b4c3d2e1f --tenant acme --actual 2950`,
		Args:    cobra.ExactArgs(1),
	}
	cmd.Flags().Uint32Var(&r.Actual, "actual", 0, "tokens that were spent (required)")
	must(cmd.MarkFlagRequired("actual"))
	ownerFlag(cmd, &r.Tenant)
	cmd.RunE = a.action(func(ctx context.Context, args []string) error {
		r.Id = args[0]
		return a.limited(ctx, &r.Tenant, func(ctx context.Context, c *client.Client) error {
			resp, err := c.Limiter().Commit(ctx, connect.NewRequest(r))
			if err != nil {
				return err
			}
			return a.printSettlement(resp.Msg, resp.Msg.GetSettlement())
		})
	})
	return cmd
}

func (a *app) limitCancelCommand() *cobra.Command {
	r := &limiterv1.CancelRequest{}
	cmd := &cobra.Command{
		Use:     "cancel ID [--tenant T]",
		Short:   "Give a reservation back",
		Example: `  maestro limit cancel 0f8e2a7b5c3d41968e7f6a5b4c3d2e1f --tenant acme`,
		Args:    cobra.ExactArgs(1),
	}
	ownerFlag(cmd, &r.Tenant)
	cmd.RunE = a.action(func(ctx context.Context, args []string) error {
		r.Id = args[0]
		return a.limited(ctx, &r.Tenant, func(ctx context.Context, c *client.Client) error {
			resp, err := c.Limiter().Cancel(ctx, connect.NewRequest(r))
			if err != nil {
				return err
			}
			return a.printSettlement(resp.Msg, resp.Msg.GetSettlement())
		})
	})
	return cmd
}

func (a *app) printSettlement(m any, s *limiterv1.Settlement) error {
	return a.print(m, func(w io.Writer) {
		fmt.Fprintf(w, "%d spent, %d given back, %d overdrawn\n", s.GetActual(), s.GetRefunded(), s.GetOverdrawn())
		if s.GetLate() {
			fmt.Fprintln(w, "the reservation had expired, so all of it counts as spent")
		}
	})
}

func (a *app) limitRefundCommand() *cobra.Command {
	r := &limiterv1.RefundRequest{}
	cmd := &cobra.Command{
		Use:   "refund REQUEST-ID [--cost N] [--tenant T]",
		Short: "Give back what a check took",
		Long: `Give back what a check with a request id took up to ten minutes ago, all of it or the given cost. That
happens once; repeating it shows what was given back.`,
		Example: `  maestro check --tenant acme --key export --cost 5 --request-id export-17
  maestro limit refund export-17 --tenant acme`,
		Args: cobra.ExactArgs(1),
	}
	cmd.Flags().Uint32Var(&r.Cost, "cost", 0, "tokens to give back (default: all)")
	ownerFlag(cmd, &r.Tenant)
	cmd.RunE = a.action(func(ctx context.Context, args []string) error {
		r.RequestId = args[0]
		return a.limited(ctx, &r.Tenant, func(ctx context.Context, c *client.Client) error {
			resp, err := c.Limiter().Refund(ctx, connect.NewRequest(r))
			if err != nil {
				return err
			}
			return a.print(resp.Msg, func(w io.Writer) { fmt.Fprintf(w, "%d given back\n", resp.Msg.GetRefunded()) })
		})
	})
	return cmd
}

func (a *app) limitAcquireCommand() *cobra.Command {
	r := &limiterv1.AcquireRequest{}
	var ttl time.Duration
	cmd := &cobra.Command{
		Use:   "acquire --tenant T [--token K] [--key X] [--weight N]",
		Short: "Take a slot of every concurrency limit, or renew one",
		Long: `Take a slot of every limit that matches and has a concurrency. It is held until limit release, or until
its time is over; --renew holds it for longer. Exit status 3 when denied.`,
		Example: `  maestro limit acquire --tenant acme --key build --ttl 5m
  maestro limit acquire --tenant acme --renew 0f8e2a7b5c3d41968e7f6a5b4c3d2e1f`,
		Args: cobra.NoArgs,
	}
	subjectFlags(cmd, &r.Tenant, &r.Token, &r.Key)
	f := cmd.Flags()
	f.Uint32Var(&r.Weight, "weight", 1, "how much of each limit the slot takes")
	f.StringVar(&r.Id, "renew", "", "id of a slot to hold for longer")
	f.StringVar(&r.RequestId, "request-id", "", "makes a repeated acquire return the first answer (default: made for this call)")
	ttlFlag(cmd, &ttl, "from 1s to 1h, after which it frees itself (default, and at most: as the limits say)")
	for _, other := range []string{"token", "key", "weight", "request-id"} {
		cmd.MarkFlagsMutuallyExclusive("renew", other)
	}
	cmd.RunE = a.action(func(ctx context.Context, _ []string) (err error) {
		if r.TtlMs, err = ttlMs(ttl); err != nil {
			return err
		}
		if r.RequestId == "" && r.Id == "" {
			r.RequestId = client.NewRequestID()
		}
		return a.limited(ctx, &r.Tenant, func(ctx context.Context, c *client.Client) error {
			resp, err := c.Limiter().Acquire(ctx, connect.NewRequest(r))
			if err != nil {
				return err
			}
			m := resp.Msg
			if r.Id != "" {
				return a.print(m, func(w io.Writer) {
					fmt.Fprintf(w, "slot %s, for %v\n", m.GetId(), time.Duration(m.GetExpiresInMs())*time.Millisecond)
				})
			}
			return a.printHold(m, "slot", m.GetId(), m.GetExpiresInMs(), m.GetDecision())
		})
	})
	return cmd
}

func (a *app) limitReleaseCommand() *cobra.Command {
	r := &limiterv1.ReleaseRequest{}
	cmd := &cobra.Command{
		Use:     "release ID [--tenant T]",
		Short:   "Give a slot back",
		Example: `  maestro limit release 0f8e2a7b5c3d41968e7f6a5b4c3d2e1f --tenant acme`,
		Args:    cobra.ExactArgs(1),
	}
	ownerFlag(cmd, &r.Tenant)
	cmd.RunE = a.action(func(ctx context.Context, args []string) error {
		r.Id = args[0]
		return a.limited(ctx, &r.Tenant, func(ctx context.Context, c *client.Client) error {
			resp, err := c.Limiter().Release(ctx, connect.NewRequest(r))
			if err != nil {
				return err
			}
			return a.print(resp.Msg, func(w io.Writer) {
				if resp.Msg.GetReleased() {
					fmt.Fprintln(w, "released")
				} else {
					fmt.Fprintln(w, "it was not held any more")
				}
			})
		})
	})
	return cmd
}

func ownerFlag(cmd *cobra.Command, tenant *string) {
	cmd.Flags().StringVar(tenant, "tenant", "", "whose it is (default: the context's tenant)")
}
