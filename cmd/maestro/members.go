package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	clusterv1 "github.com/maestro-conductor/maestro/api/gen/mc/cluster/v1"
	"github.com/maestro-conductor/maestro/internal/client"
)

const (
	// progressAfter is how long a command waits before it says what it waits for: what is done
	// by then needs no words.
	progressAfter = 2 * time.Second
	progressPoll  = 500 * time.Millisecond
)

// waiting are the flags of commands that wait for what they began.
type waiting struct {
	none bool
	most time.Duration
}

func (w *waiting) flags(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&w.none, "no-wait", false, "return as soon as it has begun; maestro cluster status shows the rest")
	cmd.Flags().DurationVar(&w.most, "wait", 30*time.Minute, "how long to wait until it is done")
}

func (a *app) clusterAddCommand() *cobra.Command {
	r := &clusterv1.AddRequest{}
	w := &waiting{}
	cmd := &cobra.Command{
		Use:   "add NAME --cluster HOST:PORT",
		Short: "Make a node a member, and wait until it carries its share",
		Long: `Make a node a member of the region. It must run with an empty data folder, a certificate for NAME, and seeds
that lead to the region. Replicas then move to it, group by group, while the region serves.
Adding a member again does no harm; with another address it changes where the others find it.`,
		Example: `  maestro cluster add node-4 --cluster 10.0.0.4:7401
  maestro cluster add node-4 --cluster 10.0.0.4:7401 --no-wait`,
		Args: cobra.ExactArgs(1),
	}
	cmd.Flags().StringVar(&r.ClusterAddress, "cluster", "", "the node's cluster port as the other nodes dial it (required)")
	must(cmd.MarkFlagRequired("cluster"))
	w.flags(cmd)
	cmd.RunE = a.action(func(ctx context.Context, args []string) error {
		r.Name = args[0]
		return a.change(ctx, w, func(ctx context.Context, c *client.Client) (change, error) {
			resp, err := c.Cluster().Add(ctx, connect.NewRequest(r))
			if err != nil {
				return change{}, err
			}
			id := resp.Msg.GetId()
			return change{
				result: resp.Msg,
				begun:  begun(resp.Msg.GetStarted(), id+" is a member now; replicas move to it", id+" is a member already"),
				end:    id + " carries its share",
				done: func(s *clusterv1.StatusResponse) bool {
					n := nodeByID(s, id)
					return n != nil && n.GetReachable() && s.GetSettled()
				},
			}, nil
		})
	})
	return cmd
}

func (a *app) clusterRemoveCommand() *cobra.Command {
	w := &waiting{}
	cmd := &cobra.Command{
		Use:   "remove NAME",
		Short: "Move a node's replicas away and end its membership, for good",
		Long: `Move the replicas of a node to the others, group by group, and then end its membership. The node may be dead.
At least three other nodes must stay; to exchange one of three, use maestro cluster replace.
A node that was removed can come back only as a new one, with an empty data folder.`,
		Example: `  maestro cluster remove node-4
  maestro cluster remove node-4 --no-wait -o json`,
		Args: cobra.ExactArgs(1),
	}
	w.flags(cmd)
	cmd.RunE = a.action(func(ctx context.Context, args []string) error {
		return a.change(ctx, w, func(ctx context.Context, c *client.Client) (change, error) {
			resp, err := c.Cluster().Remove(ctx, connect.NewRequest(&clusterv1.RemoveRequest{Name: args[0]}))
			if err != nil {
				return change{}, err
			}
			id := resp.Msg.GetId()
			return change{
				result: resp.Msg,
				begun:  begun(resp.Msg.GetStarted(), id+" leaves; its replicas move away", begun(resp.Msg.GetRemoved(), id+" has been removed before", id+" is leaving already")),
				end:    id + " is removed; it can be stopped",
				done:   func(s *clusterv1.StatusResponse) bool { return nodeByID(s, id) == nil },
			}, nil
		})
	})
	return cmd
}

func (a *app) clusterReplaceCommand() *cobra.Command {
	r := &clusterv1.ReplaceRequest{}
	w := &waiting{}
	cmd := &cobra.Command{
		Use:   "replace OLD NEW [--cluster HOST:PORT]",
		Short: "Let a new node take the place of another one, dead or alive",
		Long: `Add the node NEW, move the replicas of OLD to it, and end the membership of OLD. OLD may be dead.
NEW must run with an empty data folder. It may have OLD's name: a node whose data is lost comes back so.`,
		Example: `  maestro cluster replace node-2 node-4 --cluster 10.0.0.4:7401
  maestro cluster replace node-2 node-2        # its data folder was lost or emptied`,
		Args: cobra.ExactArgs(2),
	}
	cmd.Flags().StringVar(&r.ClusterAddress, "cluster", "", "the new node's cluster port as the other nodes dial it (default: the old node's, if the names are the same)")
	w.flags(cmd)
	cmd.RunE = a.action(func(ctx context.Context, args []string) error {
		r.OldName, r.NewName = args[0], args[1]
		return a.change(ctx, w, func(ctx context.Context, c *client.Client) (change, error) {
			resp, err := c.Cluster().Replace(ctx, connect.NewRequest(r))
			if err != nil {
				return change{}, err
			}
			old, id := resp.Msg.GetOldId(), resp.Msg.GetNewId()
			return change{
				result: resp.Msg,
				begun:  begun(resp.Msg.GetStarted(), fmt.Sprintf("%s takes the place of %s", id, old), fmt.Sprintf("%s takes the place of %s already", id, old)),
				end:    fmt.Sprintf("%s has taken the place of %s", id, old),
				done: func(s *clusterv1.StatusResponse) bool {
					n := nodeByID(s, id)
					return nodeByID(s, old) == nil && n != nil && n.GetReachable() && s.GetSettled()
				},
			}, nil
		})
	})
	return cmd
}

func (a *app) clusterTransferCommand() *cobra.Command {
	w := &waiting{}
	cmd := &cobra.Command{
		Use:   "transfer GROUP NODE",
		Short: "Hand the leadership of a group to a node that votes in it",
		Long: `Hand the leadership of a group to a node, which is preferred as its leader from now on. The region evens preferred
leaders out when one node has two more than another.`,
		Example: `  maestro cluster transfer index-0 node-2`,
		Args:    cobra.ExactArgs(2),
	}
	w.flags(cmd)
	cmd.RunE = a.action(func(ctx context.Context, args []string) error {
		group, node := args[0], args[1]
		return a.change(ctx, w, func(ctx context.Context, c *client.Client) (change, error) {
			resp, err := c.Cluster().Transfer(ctx, connect.NewRequest(&clusterv1.TransferRequest{Group: group, Node: node}))
			if err != nil {
				return change{}, err
			}
			return change{
				result: resp.Msg,
				begun:  fmt.Sprintf("%s is to lead %s", node, group),
				end:    fmt.Sprintf("%s leads %s", node, group),
				done: func(s *clusterv1.StatusResponse) bool {
					return slices.ContainsFunc(s.GetGroups(), func(g *clusterv1.GroupStatus) bool { return g.GetName() == group && g.GetLeader() == node })
				},
			}, nil
		})
	})
	return cmd
}

// change is one that was begun: what it answered, what to say of its begin and its end, and how
// to see the end.
type change struct {
	result     any
	begun, end string
	done       func(*clusterv1.StatusResponse) bool
}

// change begins a change of members, waits for its end, and prints what it came to.
func (a *app) change(ctx context.Context, w *waiting, begin func(context.Context, *client.Client) (change, error)) error {
	c, _, err := a.connect("")
	if err != nil {
		return err
	}
	defer c.Close()
	request, cancel := a.request(ctx)
	defer cancel()
	made, err := begin(request, c)
	if err != nil {
		return err
	}
	text := made.begun
	if !w.none {
		if err := a.await(ctx, c, w.most, made); err != nil {
			return err
		}
		text = made.end
	}
	return a.print(made.result, func(out io.Writer) { fmt.Fprintln(out, text) })
}

// await looks at the region until the change is done. After a while it says on stderr what is
// under way, whenever that changes.
func (a *app) await(ctx context.Context, c *client.Client, most time.Duration, made change) error {
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	began, said := time.Now(), ""
	var pending []string
	for {
		request, cancel := context.WithTimeout(ctx, a.timeout)
		resp, err := c.Cluster().Status(request, connect.NewRequest(&clusterv1.StatusRequest{}))
		cancel()
		switch {
		case err == nil && made.done(resp.Msg):
			return nil
		case err == nil:
			pending = resp.Msg.GetPending()
		case ctx.Err() == nil && !passing(err):
			return err
		}
		if text := strings.Join(pending, "; "); time.Since(began) > progressAfter && text != said {
			if said == "" {
				fmt.Fprintln(a.stderr, made.begun)
			}
			fmt.Fprintf(a.stderr, "%4.0f s  %s\n", time.Since(began).Seconds(), text)
			said = text
		}
		select {
		case <-time.After(progressPoll):
		case <-ctx.Done():
			return hinted{fmt.Errorf("not done after %v: %s", time.Since(began).Round(time.Second), strings.Join(pending, "; ")), "it goes on by itself; maestro cluster status shows how far it is"}
		}
	}
}

// passing tells whether the next look may succeed where this one failed.
func passing(err error) bool {
	var e *client.Error
	return errors.As(err, &e) && e.Reason != "node_removed" && (e.Code == connect.CodeUnavailable || e.Code == connect.CodeDeadlineExceeded)
}

func begun(yes bool, then, otherwise string) string {
	if yes {
		return then
	}
	return otherwise
}

func nodeByID(s *clusterv1.StatusResponse, id string) *clusterv1.NodeStatus {
	for _, n := range s.GetNodes() {
		if n.GetId() == id {
			return n
		}
	}
	return nil
}
