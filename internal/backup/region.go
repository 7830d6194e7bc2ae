package backup

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"connectrpc.com/connect"

	clusterv1 "github.com/maestro-conductor/maestro/api/gen/mc/cluster/v1"
	"github.com/maestro-conductor/maestro/internal/client"
	"github.com/maestro-conductor/maestro/raftfsm"
)

// readingsMax bounds how often a group is read anew because its leader changed, or a call came
// late. A region whose leaders change more often than a group can be read has other troubles.
const readingsMax = 20

// reasonGone is the API's reason for raftfsm.ErrBackupGone.
const reasonGone = "backup_gone"

// errMoved means that a reading was begun again by a call that came late.
var errMoved = errors.New("the group was read as of two moments")

// Region takes and restores backups of one region.
type Region struct {
	client *client.Client
	// patience is how long one step may take, with all its retries.
	patience time.Duration
	// progress is told of every group that is done.
	progress func(group string, g Group)
}

// NewRegion uses a client of a platform administrator. One step may take as long as patience,
// through changes of leaders and restarts of nodes. progress is told of every group that is done.
func NewRegion(c *client.Client, patience time.Duration, progress func(group string, g Group)) *Region {
	return &Region{client: c, patience: patience, progress: progress}
}

func (r *Region) describe(ctx context.Context) (*clusterv1.DescribeResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, r.patience)
	defer cancel()
	resp, err := r.client.Backups().Describe(ctx, connect.NewRequest(&clusterv1.DescribeRequest{}))
	if err != nil {
		return nil, err
	}
	return resp.Msg, nil
}

// Take makes a backup of the region in a folder that does not exist, or is empty.
func (r *Region) Take(ctx context.Context, dir string) (m *Manifest, err error) {
	d, err := r.describe(ctx)
	if err != nil {
		return nil, err
	}
	w, err := create(dir)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.abandon())
		}
	}()
	var id, reading raftfsm.BackupID
	rand.Read(id[:]) // never fails: crypto/rand ends the process instead
	rand.Read(reading[:])
	m = &Manifest{
		Format: Format, ID: hex.EncodeToString(id[:]), Region: d.GetRegion(), Cluster: d.GetClusterId(), Build: d.GetVersion(),
		Began: time.Now().UTC(), Services: d.GetServices(),
	}
	for _, name := range d.GetGroups() {
		g, err := r.takeGroup(ctx, w, name, reading)
		if err != nil {
			return nil, fmt.Errorf("group %s: %w", name, err)
		}
		m.Groups = append(m.Groups, g)
		r.progress(name, g)
	}
	m.Ended = time.Now().UTC()
	return m, w.finish(m)
}

// takeGroup reads a group, from its beginning whenever the reading was ended.
func (r *Region) takeGroup(ctx context.Context, w *writer, name string, reading raftfsm.BackupID) (Group, error) {
	var last error
	for range readingsMax {
		f, err := w.group(name)
		if err != nil {
			return Group{}, err
		}
		err = r.readGroup(ctx, f, reading)
		err = errors.Join(err, f.close())
		var failed *client.Error
		if errors.Is(err, errMoved) || errors.As(err, &failed) && failed.Reason == reasonGone {
			last = err
			continue
		}
		return f.Group, err
	}
	return Group{}, fmt.Errorf("it was begun %d times: %w", readingsMax, last)
}

func (r *Region) readGroup(ctx context.Context, f *groupFile, reading raftfsm.BackupID) error {
	for n := uint64(0); ; n++ {
		c, err := r.export(ctx, &clusterv1.ExportRequest{Group: f.Name, Reading: reading[:], Chunk: n})
		if err != nil {
			return err
		}
		if n == 0 {
			f.Index, f.Term, f.TimeMicros = c.GetIndex(), c.GetTerm(), c.GetGroupTimeUs()
		}
		if c.GetIndex() != f.Index || c.GetTerm() != f.Term {
			return fmt.Errorf("%w: chunk %d is as of index %d, the first as of %d", errMoved, n, c.GetIndex(), f.Index)
		}
		if c.GetCount() > 0 {
			if err := f.chunk(c.GetRows(), c.GetCount()); err != nil {
				return err
			}
		}
		if c.GetLast() {
			return nil
		}
	}
}

func (r *Region) export(ctx context.Context, m *clusterv1.ExportRequest) (*clusterv1.ExportResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, r.patience)
	defer cancel()
	resp, err := r.client.Backups().Export(ctx, connect.NewRequest(m))
	if err != nil {
		return nil, err
	}
	return resp.Msg, nil
}

// Restore checks a backup and writes it into the region, in which nothing was done yet, or goes
// on with an interrupted restore of the same backup.
func (r *Region) Restore(ctx context.Context, dir string) (*Manifest, error) {
	m, err := Verify(dir)
	if err != nil {
		return nil, err
	}
	d, err := r.describe(ctx)
	if err != nil {
		return nil, err
	}
	if err := m.fits(d); err != nil {
		return nil, err
	}
	// All are asked first, so that a region that is in use stays as it is.
	for _, g := range m.Groups {
		if _, err := r.step(ctx, m, g, clusterv1.ImportStep_IMPORT_STEP_PROBE, 0, nil); err != nil {
			return nil, fmt.Errorf("group %s: %w", g.Name, err)
		}
	}
	// Then all are begun, so that the region serves nothing until it is whole, however often this
	// is interrupted.
	begun := make([]*clusterv1.ImportResponse, len(m.Groups))
	for i, g := range m.Groups {
		if begun[i], err = r.step(ctx, m, g, clusterv1.ImportStep_IMPORT_STEP_BEGIN, 0, nil); err != nil {
			return nil, fmt.Errorf("group %s: %w", g.Name, err)
		}
	}
	for i, g := range m.Groups {
		if err := r.restoreGroup(ctx, dir, m, g, begun[i]); err != nil {
			return nil, fmt.Errorf("group %s: %w", g.Name, err)
		}
		r.progress(g.Name, g)
	}
	return m, nil
}

// fits refuses a region that has not the same groups and services: where things are follows
// from both.
func (m *Manifest) fits(d *clusterv1.DescribeResponse) error {
	names := make([]string, len(m.Groups))
	for i, g := range m.Groups {
		names[i] = g.Name
	}
	var problems []string
	compare := func(what string, ours, theirs []string) {
		missing, more := differences(ours, theirs)
		if len(missing) > 0 {
			problems = append(problems, fmt.Sprintf("the region lacks the %s %s of the backup", what, strings.Join(missing, ", ")))
		}
		if len(more) > 0 {
			problems = append(problems, fmt.Sprintf("the backup lacks the %s %s of the region", what, strings.Join(more, ", ")))
		}
	}
	compare("services", m.Services, d.GetServices())
	compare("groups", names, d.GetGroups())
	if len(problems) > 0 {
		return fmt.Errorf("the backup does not fit the region: %s; configure the new region's services and groups as the old one's, and start it anew", strings.Join(problems, "; "))
	}
	return nil
}

// restoreGroup goes on with a group whose restore has begun and come so far.
func (r *Region) restoreGroup(ctx context.Context, dir string, m *Manifest, g Group, begun *clusterv1.ImportResponse) error {
	if begun.GetDone() {
		return nil
	}
	err := g.read(dir, func(chunk uint64, rows []byte) error {
		if chunk < begun.GetNext() {
			return nil
		}
		_, err := r.step(ctx, m, g, clusterv1.ImportStep_IMPORT_STEP_ROWS, chunk, rows)
		return err
	})
	if err != nil {
		return err
	}
	_, err = r.step(ctx, m, g, clusterv1.ImportStep_IMPORT_STEP_END, g.Chunks, nil)
	return err
}

func (r *Region) step(ctx context.Context, m *Manifest, g Group, step clusterv1.ImportStep, chunk uint64, rows []byte) (*clusterv1.ImportResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, r.patience)
	defer cancel()
	id, sum := m.id(), g.sum()
	resp, err := r.client.Backups().Import(ctx, connect.NewRequest(&clusterv1.ImportRequest{
		Group: g.Name, Step: step, Backup: id[:], Chunk: chunk, Rows: rows, Sum: sum[:],
	}))
	if err != nil {
		return nil, err
	}
	return resp.Msg, nil
}
