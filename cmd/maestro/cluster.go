package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	clusterv1 "github.com/maestro-conductor/maestro/api/gen/mc/cluster/v1"
	"github.com/maestro-conductor/maestro/internal/certs"
	"github.com/maestro-conductor/maestro/internal/client"
)

func (a *app) clusterCommand() *cobra.Command {
	cmd := a.group(&cobra.Command{Use: "cluster", Short: "Start a region, look at it, change its nodes, back it up and restore it"})
	cmd.AddCommand(
		a.clusterInitCommand(), a.clusterStatusCommand(),
		a.clusterAddCommand(), a.clusterRemoveCommand(), a.clusterReplaceCommand(), a.clusterTransferCommand(),
		a.clusterBackupCommand(), a.clusterRestoreCommand(), a.clusterVerifyCommand(),
	)
	return cmd
}

func (a *app) clusterInitCommand() *cobra.Command {
	var dir string
	var save bool
	cmd := &cobra.Command{
		Use:   "init --certs DIR --endpoint URL",
		Short: "Start a region once, and print its first admin token",
		Long: `Start a region: every node of its seed list must run, with an empty data folder. It is done once.
The token that is printed is the platform administrator's; it is shown only this time.`,
		Example: `  maestro cluster init --certs certs --endpoint https://10.0.0.1:7400 --save`,
		Args:    cobra.NoArgs,
	}
	cmd.Flags().StringVar(&dir, "certs", "", "folder of ca.pem, admin.pem and admin.key (required)")
	cmd.Flags().BoolVar(&save, "save", false, "write a CLI context with endpoint, CA and token")
	must(cmd.MarkFlagRequired("certs"))
	cmd.RunE = a.action(func(ctx context.Context, _ []string) error {
		if len(a.endpoints) == 0 {
			return usageError{errors.New("required flag \"endpoint\" not set")}
		}
		admin := certs.AdminPaths(dir)
		c, err := client.New(client.Options{Endpoints: a.endpoints, CAFile: certs.CAPath(dir), CertFile: admin.Cert, KeyFile: admin.Key})
		if err != nil {
			return err
		}
		defer c.Close()
		ctx, cancel := a.request(ctx)
		defer cancel()
		resp, err := c.Cluster().Init(ctx, connect.NewRequest(&clusterv1.InitRequest{}))
		if err != nil {
			return err
		}
		printErr := a.print(resp.Msg, func(w io.Writer) {
			fmt.Fprintf(w, "cluster\t%s\ntoken\t%s\n", resp.Msg.GetClusterId(), resp.Msg.GetToken())
			fmt.Fprintln(w, "\nKeep the token: it is not shown again.")
		})
		if save {
			return errors.Join(printErr, a.saveContext(dir, resp.Msg.GetToken()))
		}
		return printErr
	})
	return cmd
}

func (a *app) saveContext(certsDir, token string) error {
	dir, err := client.ConfigDir(a.configDir)
	if err != nil {
		return err
	}
	ca, err := filepath.Abs(certs.CAPath(certsDir))
	if err != nil {
		return err
	}
	if err := (client.Context{Endpoints: a.endpoints, CA: ca, Token: token}).Save(dir); err != nil {
		return err
	}
	fmt.Fprintln(a.stderr, "saved", client.ContextPath(dir))
	return nil
}

func (a *app) clusterStatusCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Show the nodes and groups of the region",
		Args:  cobra.NoArgs,
		RunE: a.action(func(ctx context.Context, _ []string) error {
			c, _, err := a.connect("")
			if err != nil {
				return err
			}
			defer c.Close()
			ctx, cancel := a.request(ctx)
			defer cancel()
			resp, err := c.Cluster().Status(ctx, connect.NewRequest(&clusterv1.StatusRequest{}))
			if err != nil {
				return err
			}
			return a.print(resp.Msg, func(w io.Writer) { statusTable(w, resp.Msg) })
		}),
	}
}

func statusTable(w io.Writer, s *clusterv1.StatusResponse) {
	fmt.Fprintf(w, "region %s, cluster %s, answered by %s (%s)\n\n", s.GetRegion(), s.GetClusterId(), s.GetAnsweredBy(), s.GetVersion())
	fmt.Fprintln(w, "NODE\tSTATE\tREACHABLE\tREPLICAS\tAPI\tCLUSTER\tDISK\tCLOCK\tVERSION")
	for _, n := range s.GetNodes() {
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%s\t%s\t%s\t%+d ms\t%s\n", nodeName(s, n), nodeState(n), yesNo(n.GetReachable()), n.GetReplicas(),
			n.GetApiAddress(), n.GetClusterAddress(), orDash(n.GetDisk()), n.GetClockOffsetMs(), orDash(n.GetVersion()))
	}
	fmt.Fprintln(w, "\nGROUP\tLEADER\tTERM\tCOMMITTED\tAPPLIED\tVOTERS\tLEARNERS")
	for _, g := range s.GetGroups() {
		fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%d\t%s\t%s\n", g.GetName(), orDash(g.GetLeader()), g.GetTerm(), g.GetCommitIndex(), g.GetAppliedIndex(),
			strings.Join(g.GetVoters(), ","), orDash(strings.Join(g.GetLearners(), ",")))
	}
	for i, p := range s.GetPending() {
		if i == 0 {
			fmt.Fprintln(w)
		}
		fmt.Fprintln(w, p)
	}
}

// nodeName is the name, or the id where two members have one.
func nodeName(s *clusterv1.StatusResponse, n *clusterv1.NodeStatus) string {
	for _, other := range s.GetNodes() {
		if other.GetName() == n.GetName() && other.GetId() != n.GetId() {
			return n.GetId()
		}
	}
	return n.GetName()
}

func nodeState(n *clusterv1.NodeStatus) string {
	if n.GetDraining() {
		return "draining"
	}
	return orDash(n.GetState())
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
