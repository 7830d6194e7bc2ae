package api

import (
	"fmt"
	"testing"
	"time"

	"connectrpc.com/connect"

	clusterv1 "github.com/maestro-conductor/maestro/api/gen/mc/cluster/v1"
	"github.com/maestro-conductor/maestro/api/gen/mc/cluster/v1/clusterv1connect"
)

// Changes of members pass on what was asked, answer with what was begun, and refuse what can
// name no node before anything is done.
func TestChangesOfMembers(t *testing.T) {
	e := newEnv(t, nil)
	c := clusterv1connect.NewClusterClient(e.client(secretOf(AllTenants, RoleAdmin)), e.url)
	ctx := t.Context()
	added, err := c.Add(ctx, connect.NewRequest(&clusterv1.AddRequest{Name: "d", ClusterAddress: "d:7401"}))
	if err != nil || added.Msg.Id != "d.1" || !added.Msg.Started {
		t.Errorf("add: %v, %v", added, err)
	}
	removed, err := c.Remove(ctx, connect.NewRequest(&clusterv1.RemoveRequest{Name: "a"}))
	if err != nil || removed.Msg.Id != "a.1" || removed.Msg.Started || !removed.Msg.Removed {
		t.Errorf("remove: %v, %v", removed, err)
	}
	replaced, err := c.Replace(ctx, connect.NewRequest(&clusterv1.ReplaceRequest{OldName: "a", NewName: "a"}))
	if err != nil || replaced.Msg.OldId != "a.1" || replaced.Msg.NewId != "a.2" || !replaced.Msg.Started {
		t.Errorf("replace: %v, %v", replaced, err)
	}
	if _, err := c.Transfer(ctx, connect.NewRequest(&clusterv1.TransferRequest{Group: "index-0", Node: "a"})); err != nil {
		t.Errorf("transfer: %v", err)
	}
	for what, call := range map[string]func() error{
		"a name with a dot": func() error {
			_, err := c.Remove(ctx, connect.NewRequest(&clusterv1.RemoveRequest{Name: "a.1"}))
			return err
		},
		"an address without a port": func() error {
			_, err := c.Add(ctx, connect.NewRequest(&clusterv1.AddRequest{Name: "d", ClusterAddress: "d"}))
			return err
		},
		"no address": func() error {
			_, err := c.Add(ctx, connect.NewRequest(&clusterv1.AddRequest{Name: "d"}))
			return err
		},
		"an address without a host": func() error {
			_, err := c.Replace(ctx, connect.NewRequest(&clusterv1.ReplaceRequest{OldName: "a", NewName: "d", ClusterAddress: ":1"}))
			return err
		},
		"no new name": func() error {
			_, err := c.Replace(ctx, connect.NewRequest(&clusterv1.ReplaceRequest{OldName: "a"}))
			return err
		},
		"no group": func() error {
			_, err := c.Transfer(ctx, connect.NewRequest(&clusterv1.TransferRequest{Node: "a"}))
			return err
		},
	} {
		t.Run(what, func(t *testing.T) { wantReason(t, call(), connect.CodeInvalidArgument, "field_malformed") })
	}
	e.services.err = fmt.Errorf("%w: it is not empty", ErrNodeUnfit)
	_, err = c.Add(ctx, connect.NewRequest(&clusterv1.AddRequest{Name: "d", ClusterAddress: "d:7401"}))
	wantReason(t, err, connect.CodeFailedPrecondition, "node_unfit")
}

func TestClockOffsetFitsItsField(t *testing.T) {
	for d, want := range map[time.Duration]int32{-time.Second: -1000, 1500 * time.Microsecond: 1, 1 << 62: 1<<31 - 1, -1 << 62: -1 << 31} {
		if got := clampMs(d); got != want {
			t.Errorf("%v becomes %d, want %d", d, got, want)
		}
	}
}
