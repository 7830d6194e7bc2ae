package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	packagesv1 "github.com/maestro-conductor/maestro/api/gen/mc/packages/v1"
	"github.com/maestro-conductor/maestro/internal/client"
)

// lockFile pins what a tenant has installed.
type lockFile struct {
	Version  int          `json:"version"`
	Tenant   string       `json:"tenant"`
	Packages []lockedLine `json:"packages"`
}

type lockedLine struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	Digest  string `json:"digest"`
	// Source is the tenant whose private package it is, or * for a public one.
	Source string `json:"source"`
}

const lockVersion = 1

func (a *app) pkgInstallCommand() *cobra.Command {
	r := &packagesv1.InstallRequest{}
	var lock string
	cmd := &cobra.Command{
		Use:   "install (ID | --lock FILE) [--tenant TENANT]",
		Short: "Install a package for a tenant",
		Long: `Install a package for a tenant, by NAME@VERSION, by NAME for its latest version, or by digest. The region verifies its
signatures now, and again whenever it is loaded. What it depends on is installed with it. With --lock, everything that a lock file
pins, each by its content.`,
		Example: `  maestro pkg install myflow@0.1.0 --tenant acme
  maestro pkg install myflow --dry-run
  maestro pkg install --lock packages.lock`,
		Args: cobra.MaximumNArgs(1),
	}
	installFlags(cmd, r)
	cmd.Flags().StringVar(&lock, "lock", "", "lock file that maestro pkg lock has written")
	cmd.RunE = a.inCatalog(&r.Tenant, func(ctx context.Context, c *client.Client, tenant string, args []string) error {
		r.Tenant = tenant
		if (lock == "") == (len(args) == 0) {
			return usageError{errors.New("give a package or --lock FILE")}
		}
		if lock == "" {
			r.Id = args[0]
			return a.installAll(ctx, c, r)
		}
		locked, err := readLock(lock)
		if err != nil {
			return err
		}
		var all []*packagesv1.InstallRequest
		for _, line := range locked.Packages {
			one := proto.Clone(r).(*packagesv1.InstallRequest)
			one.Id, one.Locked, one.AllowDowngrade, one.AcceptCapabilities = line.Digest, true, true, true
			all = append(all, one)
		}
		return a.installAll(ctx, c, all...)
	})
	return cmd
}

func (a *app) pkgUpgradeCommand() *cobra.Command {
	r := &packagesv1.InstallRequest{Upgrade: true}
	cmd := &cobra.Command{
		Use:   "upgrade ID",
		Short: "Install another version of an installed package",
		Long: `Install another version of a package that is installed, by default the latest. What it newly asks for is shown and has to be
accepted with --accept-capabilities; look before with --dry-run.`,
		Example: `  maestro pkg upgrade myflow --dry-run
  maestro pkg upgrade myflow@0.2.0 --accept-capabilities`,
		Args: cobra.ExactArgs(1),
	}
	installFlags(cmd, r)
	cmd.RunE = a.inCatalog(&r.Tenant, func(ctx context.Context, c *client.Client, tenant string, args []string) error {
		r.Id, r.Tenant = args[0], tenant
		return a.installAll(ctx, c, r)
	})
	return cmd
}

func installFlags(cmd *cobra.Command, r *packagesv1.InstallRequest) {
	tenantFlag(cmd, &r.Tenant, "who is to use it (default: the context's tenant)")
	f := cmd.Flags()
	f.BoolVar(&r.AcceptCapabilities, "accept-capabilities", false, "accept what the installed version does not ask for")
	f.BoolVar(&r.AllowDowngrade, "allow-downgrade", false, "take a version older than the installed one")
	f.BoolVar(&r.DryRun, "dry-run", false, "verify and compare, and change nothing")
}

func (a *app) installAll(ctx context.Context, c *client.Client, all ...*packagesv1.InstallRequest) error {
	var out []*packagesv1.InstallResponse
	for _, r := range all {
		res, err := callOnce(ctx, a, c.Packages().Install, r)
		if err != nil {
			return err
		}
		out = append(out, res)
	}
	return a.print(map[string]any{"installed": rawOf(out)}, func(w io.Writer) {
		fmt.Fprintln(w, "PACKAGE\tTENANT\tBEFORE\tRESULT")
		for i, r := range out {
			result := "installed"
			switch {
			case all[i].GetDryRun() && r.GetBefore() != r.GetInstall().GetVersion():
				result = "would be installed"
			case !r.GetChanged():
				result = "is installed already"
			}
			p := r.GetInstall()
			fmt.Fprintf(w, "%s@%s\t%s\t%s\t%s\n", p.GetName(), p.GetVersion(), p.GetTenant(), r.GetBefore(), result)
			printDifference(w, r.GetAddedCapabilities(), r.GetRemovedCapabilities())
			for _, d := range r.GetDependencies() {
				fmt.Fprintf(w, "  with\t%s\n", d)
			}
			if r.GetWarning() != "" {
				fmt.Fprintf(w, "  note\t%s\n", r.GetWarning())
			}
		}
	})
}

func printDifference(w io.Writer, added, removed []string) {
	for _, word := range added {
		fmt.Fprintf(w, "  + asks for\t%s\n", word)
	}
	for _, word := range removed {
		fmt.Fprintf(w, "  - no more\t%s\n", word)
	}
}

// rawOf lets messages be printed within other values.
func rawOf[M proto.Message](all []M) []json.RawMessage {
	out := make([]json.RawMessage, len(all))
	for i, m := range all {
		b, err := protojson.MarshalOptions{EmitDefaultValues: true}.Marshal(m)
		if err != nil { // generated messages always marshal
			b = []byte("null")
		}
		out[i] = b
	}
	return out
}

func (a *app) pkgRollbackCommand() *cobra.Command {
	r := &packagesv1.RollbackRequest{}
	cmd := &cobra.Command{
		Use:     "rollback NAME",
		Short:   "Go back to the version that was installed before",
		Example: `  maestro pkg rollback myflow --tenant acme`,
		Args:    cobra.ExactArgs(1),
	}
	tenantFlag(cmd, &r.Tenant, "whose (default: the context's tenant)")
	cmd.RunE = a.inCatalog(&r.Tenant, func(ctx context.Context, c *client.Client, tenant string, args []string) error {
		r.Name, r.Tenant = args[0], tenant
		res, err := callOnce(ctx, a, c.Packages().Rollback, r)
		if err != nil {
			return err
		}
		return a.print(res, func(w io.Writer) {
			p := res.GetInstall()
			fmt.Fprintf(w, "%s@%s\tinstead of %s\n", p.GetName(), p.GetVersion(), res.GetBefore())
			printDifference(w, res.GetAddedCapabilities(), res.GetRemovedCapabilities())
		})
	})
	return cmd
}

func (a *app) pkgUninstallCommand() *cobra.Command {
	r := &packagesv1.UninstallRequest{}
	cmd := &cobra.Command{
		Use:     "uninstall NAME",
		Short:   "End the use of a package",
		Example: `  maestro pkg uninstall myflow --tenant acme`,
		Args:    cobra.ExactArgs(1),
	}
	tenantFlag(cmd, &r.Tenant, "whose (default: the context's tenant)")
	cmd.RunE = a.inCatalog(&r.Tenant, func(ctx context.Context, c *client.Client, tenant string, args []string) error {
		r.Name, r.Tenant = args[0], tenant
		res, err := callOnce(ctx, a, c.Packages().Uninstall, r)
		if err != nil {
			return err
		}
		return a.print(res, func(w io.Writer) { fmt.Fprintf(w, "uninstalled %s\n", r.GetName()) })
	})
	return cmd
}

func (a *app) pkgLockCommand() *cobra.Command {
	var tenant, out string
	cmd := &cobra.Command{
		Use:   "lock [--out FILE]",
		Short: "Write what a tenant has installed, pinned by content",
		Long: `Write a lock file of what a tenant has installed: names, versions and the digests of the contents. maestro pkg install --lock
installs exactly that, in another region or later, also versions that were yanked meanwhile.`,
		Example: `  maestro pkg lock --tenant acme --out packages.lock`,
		Args:    cobra.NoArgs,
	}
	tenantFlag(cmd, &tenant, "whose (default: the context's tenant)")
	cmd.Flags().StringVar(&out, "out", "", "file to write (default: print it)")
	cmd.RunE = a.inCatalog(&tenant, func(ctx context.Context, c *client.Client, tenant string, _ []string) error {
		if tenant == "" {
			return usageError{errors.New("--tenant is missing, and the context names none")}
		}
		installs, err := a.installsOf(ctx, c, &packagesv1.ListInstallsRequest{Tenant: tenant})
		if err != nil {
			return err
		}
		lock := lockFile{Version: lockVersion, Tenant: tenant, Packages: []lockedLine{}}
		for _, i := range installs {
			lock.Packages = append(lock.Packages, lockedLine{i.GetName(), i.GetVersion(), i.GetDigest(), i.GetSource()})
		}
		data, err := json.MarshalIndent(lock, "", "  ")
		if err != nil {
			return err
		}
		data = append(data, '\n')
		if out == "" {
			_, err = a.stdout.Write(data)
			return err
		}
		if err := client.WriteFile(out, data); err != nil {
			return err
		}
		fmt.Fprintf(a.stdout, "%s: %d packages\n", out, len(lock.Packages))
		return nil
	})
	return cmd
}

func readLock(path string) (lockFile, error) {
	var lock lockFile
	data, err := os.ReadFile(path)
	if err != nil {
		return lock, err
	}
	d := json.NewDecoder(strings.NewReader(string(data)))
	d.DisallowUnknownFields()
	if err := d.Decode(&lock); err != nil || lock.Version != lockVersion {
		return lock, hinted{fmt.Errorf("%s is no lock file of version %d: %v", path, lockVersion, err), "write one with maestro pkg lock --out FILE"}
	}
	return lock, nil
}

// installsOf are all pages.
func (a *app) installsOf(ctx context.Context, c *client.Client, r *packagesv1.ListInstallsRequest) (all []*packagesv1.InstalledPackage, err error) {
	for {
		res, err := callOnce(ctx, a, c.Packages().ListInstalls, r)
		if err != nil {
			return nil, err
		}
		all = append(all, res.GetInstalls()...)
		if r.Cursor = res.GetNext(); r.Cursor == "" {
			return all, nil
		}
	}
}

func (a *app) listInstalls(ctx context.Context, c *client.Client, r *packagesv1.ListInstallsRequest) error {
	all, err := a.installsOf(ctx, c, r)
	if err != nil {
		return err
	}
	return a.print(&packagesv1.ListInstallsResponse{Installs: all}, func(w io.Writer) {
		fmt.Fprintln(w, "TENANT\tPACKAGE\tSOURCE\tBEFORE\tDIGEST")
		for _, i := range all {
			fmt.Fprintf(w, "%s\t%s@%s\t%s\t%s\t%s\n", i.GetTenant(), i.GetName(), i.GetVersion(), i.GetSource(), strings.Join(i.GetHistory(), " "), i.GetDigest())
		}
	})
}
