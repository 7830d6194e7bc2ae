package main

import (
	"context"
	"fmt"
	"io"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	limiterv1 "github.com/maestro-conductor/maestro/api/gen/mc/limiter/v1"
	"github.com/maestro-conductor/maestro/limiter"
)

func (a *app) checkCommand() *cobra.Command {
	r := &limiterv1.CheckRequest{}
	cmd := &cobra.Command{
		Use:   "check --tenant T [--token K] [--key X] [--cost N]",
		Short: "Ask whether a request may pass, and debit its limits",
		Long: `Ask whether one request may pass now. When it may, every matching limit is debited; exit status 0.
When it may not, nothing is debited; exit status 3. Cost 0 asks without debiting.`,
		Example: `  maestro check --tenant demo --token ana --key export
  maestro check --tenant demo --token ana --key export --cost 5 --request-id deploy-17 -o json`,
		Args: cobra.NoArgs,
	}
	f := cmd.Flags()
	subjectFlags(cmd, &r.Tenant, &r.Token, &r.Key)
	f.Uint32Var(&r.Cost, "cost", 1, "tokens that the request takes")
	f.StringVar(&r.RequestId, "request-id", "", "makes a repeated check return the first decision")
	cmd.RunE = a.action(func(ctx context.Context, _ []string) error {
		c, tenant, err := a.connect(r.GetTenant())
		if err != nil {
			return err
		}
		defer c.Close()
		r.Tenant = tenant
		ctx, cancel := a.request(ctx)
		defer cancel()
		resp, err := c.Limiter().Check(ctx, connect.NewRequest(r))
		if err != nil {
			return err
		}
		err = a.print(resp.Msg, func(w io.Writer) { checkTable(w, resp.Msg) })
		if err == nil && !resp.Msg.GetAllow() {
			err = errDenied
		}
		return err
	})
	return cmd
}

// subjectFlags are whom a question about limits is about.
func subjectFlags(cmd *cobra.Command, tenant, token, key *string) {
	f := cmd.Flags()
	f.StringVar(tenant, "tenant", "", "whose limits count (default: the context's tenant)")
	f.StringVar(token, "token", "", "the credential or user inside the tenant")
	f.StringVar(key, "key", "", "what is asked for, such as a route or a resource")
}

func checkTable(w io.Writer, r *limiterv1.CheckResponse) {
	switch {
	case r.GetAllow():
		fmt.Fprintln(w, "allow")
	case r.GetRetryAfterMs() > 0:
		fmt.Fprintf(w, "deny: %s by %s (%s); retry after %d ms\n", r.GetReason(), r.GetLimitId(), r.GetKind(), r.GetRetryAfterMs())
	default:
		fmt.Fprintf(w, "deny: %s by %s (%s); it can never pass\n", r.GetReason(), r.GetLimitId(), r.GetKind())
	}
	if r.GetMode() != "" {
		fmt.Fprintln(w, modeLine(r.GetMode()))
	}
	if s := r.GetSource(); s == limiter.SourceFailure {
		fmt.Fprintln(w, "decided by: failure: a group cannot be reached, and the limits' onFailure says so")
		return
	} else if s != "" {
		fmt.Fprintln(w, "decided by:", s)
	}
	if len(r.GetLevels()) == 0 {
		if r.GetMode() != limiter.ModeOff.String() {
			fmt.Fprintln(w, "no limit matches")
		}
		return
	}
	fmt.Fprintln(w, "\nLIMIT\tSCOPE\tKIND\tREMAINING\tOF\tSHADOW")
	for _, l := range r.GetLevels() {
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%d\t%s\n", l.GetLimitId(), l.GetScope(), l.GetKind(), l.GetRemaining(), l.GetLimit(), shadowOf(l))
	}
}

// shadowOf says what a level that only watches would have done.
func shadowOf(l *limiterv1.Level) string {
	switch {
	case l.GetWouldDeny():
		return "would deny"
	case l.GetShadow():
		return "would allow"
	}
	return "-"
}
