package main

import (
	"context"
	"fmt"
	"io"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	limiterv1 "github.com/maestro-conductor/maestro/api/gen/mc/limiter/v1"
	"github.com/maestro-conductor/maestro/internal/client"
)

func (a *app) limitPlanCommand() *cobra.Command {
	cmd := a.group(&cobra.Command{
		Use:   "plan",
		Short: "Put tenants on plans, whose limits count for each of them",
		Long: `Put tenants on plans, take them off, and list who is on which. A limit with the selector plan:NAME, or
plan:NAME/PATTERN, counts for every tenant on that plan, with counters of its own for each. A tenant is on
one plan at most. Only administrators of the platform change plans.`,
		Example: `  maestro limit plan set gold acme globex
  maestro limit plan list --plan gold`,
	})
	cmd.AddCommand(a.limitPlanSetCommand(), a.limitPlanRemoveCommand(), a.limitPlanListCommand())
	return cmd
}

func (a *app) limitPlanSetCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "set PLAN TENANT...",
		Short: "Put tenants on a plan, all or none",
		Long: `Put tenants, at most 1000 at once, on a plan instead of the one that they are on; all or none. From then
on the limits of the new plan count for them. What was used of the old plan's limits counts again if they
come back to it.`,
		Example: `  maestro limit plan set gold acme
  maestro limit plan set basic globex initech
  xargs -n 1000 maestro limit plan set basic < tenants.txt`,
		Args: cobra.MinimumNArgs(2),
		RunE: a.action(func(ctx context.Context, args []string) error {
			return a.setPlans(ctx, args[0], args[1:], func(w io.Writer, m *limiterv1.SetPlansResponse) {
				fmt.Fprintf(w, "%d put on plan %s, %d from another plan, %d on it already", m.GetCreated(), args[0], m.GetReplaced(), m.GetUnchanged())
			})
		}),
	}
}

func (a *app) limitPlanRemoveCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "remove TENANT...",
		Short: "Take tenants off their plan, all or none",
		Long: `Take tenants, at most 1000 at once, off the plan that they are on; all or none. Only limits that name the
tenant, and those for every tenant, count for them then.`,
		Example: `  maestro limit plan remove acme globex`,
		Args:    cobra.MinimumNArgs(1),
		RunE: a.action(func(ctx context.Context, args []string) error {
			return a.setPlans(ctx, "", args, func(w io.Writer, m *limiterv1.SetPlansResponse) {
				fmt.Fprintf(w, "%d taken off their plan", m.GetRemoved())
			})
		}),
	}
}

// setPlans puts tenants on a plan, or with an empty one off theirs.
func (a *app) setPlans(ctx context.Context, plan string, tenants []string, done func(io.Writer, *limiterv1.SetPlansResponse)) error {
	c, _, err := a.connect("")
	if err != nil {
		return err
	}
	defer c.Close()
	ctx, cancel := a.request(ctx)
	defer cancel()
	r := &limiterv1.SetPlansRequest{RequestId: client.NewRequestID()}
	for _, tenant := range tenants {
		r.Assignments = append(r.Assignments, &limiterv1.PlanAssignment{Tenant: tenant, Plan: plan})
	}
	resp, err := c.Limiter().SetPlans(ctx, connect.NewRequest(r))
	if err != nil {
		return err
	}
	return a.print(resp.Msg, func(w io.Writer) {
		done(w, resp.Msg)
		fmt.Fprintf(w, "; limits are at version %d%s\n", resp.Msg.GetVersion(), inForce(resp.Msg.GetInForce()))
	})
}

func (a *app) limitPlanListCommand() *cobra.Command {
	r := &limiterv1.ListPlansRequest{}
	cmd := &cobra.Command{
		Use:   "list [--plan P] [--tenant T]",
		Short: "List which tenants are on which plan",
		Long: `List the tenants that are on a plan, in the order of their names. An identity of one tenant sees that
tenant alone. A list of more than 1000 is asked for in parts, each as of its own moment.`,
		Example: `  maestro limit plan list
  maestro limit plan list --plan gold -o json
  maestro limit plan list --tenant acme`,
		Args: cobra.NoArgs,
	}
	cmd.Flags().StringVar(&r.Plan, "plan", "", "only tenants on this plan")
	cmd.Flags().StringVar(&r.Tenant, "tenant", "", "only this tenant")
	cmd.RunE = a.action(func(ctx context.Context, _ []string) error {
		c, _, err := a.connect("")
		if err != nil {
			return err
		}
		defer c.Close()
		ctx, cancel := a.request(ctx)
		defer cancel()
		all, err := listPlans(ctx, c.Limiter().ListPlans, r)
		if err != nil {
			return err
		}
		return a.print(all, func(w io.Writer) {
			if len(all.GetAssignments()) == 0 {
				fmt.Fprintln(w, "no tenant is on such a plan")
				return
			}
			fmt.Fprintln(w, "TENANT\tPLAN")
			for _, p := range all.GetAssignments() {
				fmt.Fprintf(w, "%s\t%s\n", p.GetTenant(), p.GetPlan())
			}
		})
	})
	return cmd
}

// listPlans joins the pages of a list; its version is that of the last one.
func listPlans(ctx context.Context, page func(context.Context, *connect.Request[limiterv1.ListPlansRequest]) (*connect.Response[limiterv1.ListPlansResponse], error),
	r *limiterv1.ListPlansRequest,
) (*limiterv1.ListPlansResponse, error) {
	all := &limiterv1.ListPlansResponse{}
	for {
		resp, err := page(ctx, connect.NewRequest(r))
		if err != nil {
			return nil, err
		}
		all.Assignments = append(all.Assignments, resp.Msg.GetAssignments()...)
		all.Version = resp.Msg.GetVersion()
		if r.After = resp.Msg.GetNext(); r.After == "" {
			return all, nil
		}
	}
}
