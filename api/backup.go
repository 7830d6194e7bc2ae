package api

import (
	"context"

	clusterv1 "github.com/maestro-conductor/maestro/api/gen/mc/cluster/v1"
	"github.com/maestro-conductor/maestro/raftfsm"
)

func (s *server) describeBackup(ctx context.Context, _ *call, _ *clusterv1.DescribeRequest) (*clusterv1.DescribeResponse, error) {
	if s.deps.Backups == nil {
		return nil, ErrServiceOff
	}
	p, err := s.deps.Backups.BackupPlan(ctx)
	if err != nil {
		return nil, err
	}
	return &clusterv1.DescribeResponse{ClusterId: p.ClusterID, Region: p.Region, Version: p.Version, Services: p.Services, Groups: p.Groups}, nil
}

func (s *server) exportGroup(ctx context.Context, _ *call, r *clusterv1.ExportRequest) (*clusterv1.ExportResponse, error) {
	if s.deps.Backups == nil {
		return nil, ErrServiceOff
	}
	var reading raftfsm.BackupID
	if f := fixedBytes("reading", r.GetReading(), reading[:]); f != nil {
		return nil, f
	}
	c, err := s.deps.Backups.ExportGroup(ctx, r.GetGroup(), reading, r.GetChunk())
	if err != nil {
		return nil, err
	}
	return &clusterv1.ExportResponse{Index: c.Index, Term: c.Term, GroupTimeUs: c.Time, Rows: c.Rows, Count: c.Count, Last: c.Last}, nil
}

func (s *server) importGroup(ctx context.Context, _ *call, r *clusterv1.ImportRequest) (*clusterv1.ImportResponse, error) {
	if s.deps.Backups == nil {
		return nil, ErrServiceOff
	}
	step := raftfsm.RestoreStep{Chunk: r.GetChunk(), Rows: r.GetRows()}
	switch r.GetStep() {
	case clusterv1.ImportStep_IMPORT_STEP_PROBE:
		step.Op = raftfsm.RestoreProbe
	case clusterv1.ImportStep_IMPORT_STEP_BEGIN:
		step.Op = raftfsm.RestoreBegin
	case clusterv1.ImportStep_IMPORT_STEP_ROWS:
		step.Op = raftfsm.RestoreRows
	case clusterv1.ImportStep_IMPORT_STEP_END:
		step.Op = raftfsm.RestoreEnd
		if f := fixedBytes("sum", r.GetSum(), step.Sum[:]); f != nil {
			return nil, f
		}
	default:
		return nil, refuse(reasonFieldMalformed, "step: %v is no step of a restore", r.GetStep())
	}
	if f := fixedBytes("backup", r.GetBackup(), step.Backup[:]); f != nil {
		return nil, f
	}
	state, err := s.deps.Backups.ImportGroup(ctx, r.GetGroup(), step)
	if err != nil {
		return nil, err
	}
	return &clusterv1.ImportResponse{Next: state.Next, Done: state.Done}, nil
}

// fixedBytes copies a field of fixed length.
func fixedBytes(field string, value, to []byte) *fault {
	if copy(to, value) != len(to) || len(value) != len(to) {
		return refuse(reasonFieldMalformed, "%s: it has %d bytes, not %d", field, len(value), len(to))
	}
	return nil
}
