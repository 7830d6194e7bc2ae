package api

import (
	"testing"

	"connectrpc.com/connect"

	clusterv1 "github.com/maestro-conductor/maestro/api/gen/mc/cluster/v1"
	"github.com/maestro-conductor/maestro/api/gen/mc/cluster/v1/clusterv1connect"
)

// Backups pass on what was asked, and refuse ids and checksums of another length.
func TestBackups(t *testing.T) {
	e := newEnv(t, nil)
	c := clusterv1connect.NewBackupsClient(e.client(secretOf(AllTenants, RoleAdmin)), e.url)
	ctx := t.Context()
	plan, err := c.Describe(ctx, connect.NewRequest(&clusterv1.DescribeRequest{}))
	if err != nil || plan.Msg.Region != "eu" || len(plan.Msg.Groups) != 2 {
		t.Errorf("describe: %v, %v", plan, err)
	}
	chunk, err := c.Export(ctx, connect.NewRequest(&clusterv1.ExportRequest{Group: "meta", Reading: make([]byte, 16), Chunk: 3}))
	if err != nil || string(chunk.Msg.Rows) != "meta" || chunk.Msg.Count != 3 || chunk.Msg.Index != 9 || chunk.Msg.GroupTimeUs != 7 || !chunk.Msg.Last {
		t.Errorf("export: %v, %v", chunk, err)
	}
	step := func(step clusterv1.ImportStep, backup, sum int) (*connect.Response[clusterv1.ImportResponse], error) {
		return c.Import(ctx, connect.NewRequest(&clusterv1.ImportRequest{Group: "meta", Step: step, Chunk: 4, Backup: make([]byte, backup), Sum: make([]byte, sum)}))
	}
	for s := clusterv1.ImportStep_IMPORT_STEP_PROBE; s <= clusterv1.ImportStep_IMPORT_STEP_END; s++ {
		got, err := step(s, 16, 32)
		if err != nil || got.Msg.Next != 5 || got.Msg.Done != (s == clusterv1.ImportStep_IMPORT_STEP_END) {
			t.Errorf("%v: %v, %v", s, got, err)
		}
	}
	_, short := c.Export(ctx, connect.NewRequest(&clusterv1.ExportRequest{Group: "meta", Reading: make([]byte, 15)}))
	_, none := step(clusterv1.ImportStep_IMPORT_STEP_UNSPECIFIED, 16, 32)
	_, backup := step(clusterv1.ImportStep_IMPORT_STEP_BEGIN, 17, 32)
	_, sum := step(clusterv1.ImportStep_IMPORT_STEP_END, 16, 0)
	for i, err := range []error{short, none, backup, sum} {
		if connect.CodeOf(err) != connect.CodeInvalidArgument {
			t.Errorf("request %d: %v", i, err)
		}
	}
}
