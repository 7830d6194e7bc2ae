package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/maestro-conductor/maestro/internal/backup"
)

// backupPatience is how long one step of a backup or restore is tried: through elections, the
// restart of a node, and the end of a large group's restore.
const backupPatience = 5 * time.Minute

func (a *app) clusterBackupCommand() *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use:   "backup --to DIR",
		Short: "Copy the limits, tokens and documents of the region into a folder",
		Long: `Copy the region's limits, API tokens and documents into a folder on this machine, while the region serves.
Each group is as of one moment. The folder must not exist, or be empty; it appears when the backup is whole.
It holds all documents and can restore all tokens: keep it as safe as the region itself.`,
		Example: `  maestro cluster backup --to /backups/eu-$(date +%F)`,
		Args:    cobra.NoArgs,
	}
	cmd.Flags().StringVar(&dir, "to", "", "folder to make (required)")
	must(cmd.MarkFlagRequired("to"))
	cmd.RunE = a.action(func(ctx context.Context, _ []string) error {
		return a.withRegion("saved", func(r *backup.Region) (*backup.Manifest, error) { return r.Take(ctx, dir) })
	})
	return cmd
}

func (a *app) clusterRestoreCommand() *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use:   "restore --from DIR",
		Short: "Write a backup into a new region",
		Long: `Check a backup and write it into a region that was just started with "maestro cluster init", with the same
services and groups; names and number of nodes may differ. Tokens of the old region are good again in the new one,
and its documents and limits are there. Every counter of a limit begins empty and refills from now on, so that
nothing passes twice. Repeat an interrupted restore with the same folder: it goes on.`,
		Example: `  maestro cluster restore --from /backups/eu-2026-03-01`,
		Args:    cobra.NoArgs,
	}
	cmd.Flags().StringVar(&dir, "from", "", "folder of the backup (required)")
	must(cmd.MarkFlagRequired("from"))
	cmd.RunE = a.action(func(ctx context.Context, _ []string) error {
		return a.withRegion("restored", func(r *backup.Region) (*backup.Manifest, error) { return r.Restore(ctx, dir) })
	})
	return cmd
}

func (a *app) clusterVerifyCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "verify DIR",
		Short:   "Check every checksum of a backup, without a region",
		Example: `  maestro cluster verify /backups/eu-2026-03-01`,
		Args:    cobra.ExactArgs(1),
		RunE: a.action(func(_ context.Context, args []string) error {
			m, err := backup.Verify(args[0])
			if err != nil {
				return backupError(err)
			}
			return a.printBackup(m)
		}),
	}
}

// withRegion does something with the context's region and shows the backup.
func (a *app) withRegion(verb string, f func(*backup.Region) (*backup.Manifest, error)) error {
	c, _, err := a.connect("")
	if err != nil {
		return err
	}
	defer c.Close()
	m, err := f(backup.NewRegion(c, backupPatience, func(group string, g backup.Group) {
		fmt.Fprintf(a.stderr, "%s %s: %d rows, %d bytes\n", verb, group, g.Rows, g.Bytes)
	}))
	if err != nil {
		return backupError(err)
	}
	return a.printBackup(m)
}

func backupError(err error) error {
	if errors.Is(err, backup.ErrDamaged) {
		return hinted{err, "use another backup; what is damaged cannot be told from what was changed by hand"}
	}
	return err
}

func (a *app) printBackup(m *backup.Manifest) error {
	return a.print(m, func(w io.Writer) {
		rows, bytes := m.Size()
		fmt.Fprintf(w, "backup\t%s\nregion\t%s\nmade\t%s\nbuild\t%s\n\n", m.ID, m.Region, m.Ended.Format(time.RFC3339), m.Build)
		fmt.Fprintln(w, "GROUP\tINDEX\tROWS\tBYTES")
		for _, g := range m.Groups {
			fmt.Fprintf(w, "%s\t%d\t%d\t%d\n", g.Name, g.Index, g.Rows, g.Bytes)
		}
		fmt.Fprintf(w, "all\t\t%d\t%d\n", rows, bytes)
	})
}
