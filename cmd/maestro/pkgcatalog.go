package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	packagesv1 "github.com/maestro-conductor/maestro/api/gen/mc/packages/v1"
	"github.com/maestro-conductor/maestro/internal/client"
	"github.com/maestro-conductor/maestro/pkgstore/mwpkg"
)

// catalogCommands are those of pkg that need a region.
func (a *app) catalogCommands() []*cobra.Command {
	return []*cobra.Command{
		a.pkgPublishCommand(), a.pkgListCommand(), a.pkgDownloadCommand(), a.pkgYankCommand(),
		a.pkgInstallCommand(), a.pkgUpgradeCommand(), a.pkgRollbackCommand(), a.pkgUninstallCommand(), a.pkgLockCommand(), a.pkgKeysCommand(),
	}
}

// tenantFlag adds the flag that names a tenant.
func tenantFlag(cmd *cobra.Command, tenant *string, usage string) {
	cmd.Flags().StringVar(tenant, "tenant", "", usage)
}

// inCatalog makes f the body of a command of the catalog.
func (a *app) inCatalog(tenant *string, f func(ctx context.Context, c *client.Client, tenant string, args []string) error) func(*cobra.Command, []string) error {
	return a.action(func(ctx context.Context, args []string) error {
		c, named, err := a.connect(*tenant)
		if err != nil {
			return err
		}
		defer c.Close()
		return f(ctx, c, named, args)
	})
}

// callOnce makes one call within the time of a request.
func callOnce[Req, Res any](ctx context.Context, a *app, call func(context.Context, *connect.Request[Req]) (*connect.Response[Res], error), r *Req) (*Res, error) {
	ctx, cancel := a.request(ctx)
	defer cancel()
	res, err := call(ctx, connect.NewRequest(r))
	if err != nil {
		return nil, err
	}
	return res.Msg, nil
}

// transfer moves archives and shows how far they are.
func (a *app) transfer(c *client.Client, what string) (t *client.Transfer, clear func()) {
	p := newProgress(a.stderr, 0, nil)
	t = &client.Transfer{Client: c, Timeout: a.timeout, Progress: func(done, size int) {
		now := time.Now()
		if now.Sub(p.start) < progressAfter {
			return
		}
		line := fmt.Sprintf("%s: %d of %d KiB, %d%% ...", what, done>>10, size>>10, 100*done/max(1, size))
		switch {
		case p.terminal:
			fmt.Fprintf(a.stderr, "\r\x1b[K%s", line)
			p.shown = true
		case now.After(p.next):
			fmt.Fprintln(a.stderr, line)
			p.next = now.Add(progressEvery)
		}
	}}
	return t, p.clear
}

func (a *app) pkgPublishCommand() *cobra.Command {
	var tenant string
	var public bool
	cmd := &cobra.Command{
		Use:   "publish FILE [--tenant TENANT | --public]",
		Short: "Publish a signed package",
		Long: `Publish a signed package in the catalog: private to a tenant, or public, which takes an identity of the platform. The
region verifies it against its trust keys. A version never changes: the same content again is no error, other content is a conflict,
and a further signature of the same content is added to it. After an interruption, repeat the command: what has arrived is not sent
again.`,
		Example: `  maestro pkg publish myflow-0.1.0.mwpkg.tgz
  maestro pkg publish myflow-0.1.0.mwpkg.tgz --tenant acme
  maestro pkg publish templates/*.mwpkg.tgz --public`,
		Args: cobra.MinimumNArgs(1),
	}
	tenantFlag(cmd, &tenant, "whose private package it becomes (default: the context's tenant)")
	cmd.Flags().BoolVar(&public, "public", false, "publish it for all tenants")
	cmd.MarkFlagsMutuallyExclusive("tenant", "public")
	cmd.RunE = a.inCatalog(&tenant, func(ctx context.Context, c *client.Client, tenant string, files []string) error {
		if public {
			tenant = "*"
		}
		out := []*packagesv1.PublishResponse{}
		for _, path := range files {
			p, err := readPackage(path)
			if err == nil {
				err = p.CheckFilename(filepath.Base(path))
			}
			if err != nil {
				return err
			}
			archive, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			t, clear := a.transfer(c, filepath.Base(path))
			res, err := t.Publish(ctx, tenant, archive)
			clear()
			if err != nil {
				return err
			}
			out = append(out, res)
		}
		return a.print(map[string]any{"published": rawOf(out)}, func(w io.Writer) {
			fmt.Fprintln(w, "PACKAGE\tTENANT\tRESULT\tDIGEST")
			for _, r := range out {
				p := r.GetPackage()
				fmt.Fprintf(w, "%s@%s\t%s\t%s\t%s\n", p.GetName(), p.GetVersion(), p.GetTenant(), r.GetResult(), p.GetDigest())
			}
		})
	})
	return cmd
}

func (a *app) pkgListCommand() *cobra.Command {
	r := &packagesv1.ListPackagesRequest{}
	var installed, all bool
	cmd := &cobra.Command{
		Use:   "list [TEXT...] [--installed]",
		Short: "List packages of the catalog, or those installed",
		Long: `List packages that the tenant may use, its private ones and the public ones: those whose name, title, description or
capabilities hold all the words. With --installed, those that it has installed.`,
		Example: `  maestro pkg list
  maestro pkg list restore drill --capability network
  maestro pkg list --signer 3f1c...
  maestro pkg list --installed --tenant acme`,
	}
	f := cmd.Flags()
	tenantFlag(cmd, &r.Tenant, "whose view it is (default: the context's tenant)")
	f.StringVar(&r.Capability, "capability", "", "only those that declare it, such as network or secrets:TOKEN")
	f.StringVar(&r.Signer, "signer", "", "only those that the key with this id has signed")
	f.StringVar(&r.Name, "name", "", "only versions of this name")
	f.Uint32Var(&r.Limit, "limit", 0, "most packages of a page")
	f.StringVar(&r.Cursor, "cursor", "", "the next of the page before")
	f.BoolVar(&all, "all", false, "all pages")
	f.BoolVar(&installed, "installed", false, "what the tenant has installed")
	cmd.RunE = a.inCatalog(&r.Tenant, func(ctx context.Context, c *client.Client, tenant string, words []string) error {
		r.Tenant, r.Q = tenant, strings.Join(words, " ")
		if installed {
			if r.Capability != "" || r.Signer != "" || r.Q != "" {
				return usageError{errors.New("--installed goes with --name, --limit and --cursor only")}
			}
			return a.listInstalls(ctx, c, &packagesv1.ListInstallsRequest{Tenant: tenant, Name: r.Name, Limit: r.Limit, Cursor: r.Cursor})
		}
		out := &packagesv1.ListPackagesResponse{}
		for {
			res, err := callOnce(ctx, a, c.Packages().ListPackages, r)
			if err != nil {
				return err
			}
			out.Packages, out.Next = append(out.Packages, res.GetPackages()...), res.GetNext()
			if r.Cursor = out.Next; !all || out.Next == "" {
				break
			}
		}
		return a.print(out, func(w io.Writer) {
			fmt.Fprintln(w, "PACKAGE\tTENANT\tPUBLISHED\tYANK\tTITLE")
			for _, p := range out.GetPackages() {
				fmt.Fprintf(w, "%s@%s\t%s\t%s\t%s\t%s\n", p.GetName(), p.GetVersion(), p.GetTenant(),
					p.GetPublished().AsTime().Format(time.DateTime), p.GetYank(), shorten(p.GetTitle(), 60))
			}
			if out.GetNext() != "" {
				fmt.Fprintf(w, "more: --cursor %s\n", out.GetNext())
			}
		})
	})
	return cmd
}

// showPublished shows a package of the catalog.
func (a *app) showPublished(ctx context.Context, id, tenant string) error {
	c, tenant, err := a.connect(tenant)
	if err != nil {
		return err
	}
	defer c.Close()
	res, err := callOnce(ctx, a, c.Packages().GetPackage, &packagesv1.GetPackageRequest{Id: id, Tenant: tenant})
	if err != nil {
		return err
	}
	return a.print(res, func(w io.Writer) {
		p := res.GetPackage()
		fmt.Fprintf(w, "package\t%s@%s\ntenant\t%s\ntitle\t%s\ndigest\t%s\narchive\t%s\nbytes\t%d\npublished\t%s by %s\n",
			p.GetName(), p.GetVersion(), p.GetTenant(), p.GetTitle(), p.GetDigest(), p.GetArchive(), p.GetSize(), p.GetPublished().AsTime().Format(time.DateTime), p.GetPublisher())
		for _, word := range p.GetCapabilities() {
			fmt.Fprintf(w, "asks for\t%s\n", word)
		}
		for _, s := range p.GetSignatures() {
			state := "counts"
			if !s.GetCounts() {
				state = s.GetProblem()
			}
			fmt.Fprintf(w, "signed by\t%s, seen %s: %s\n", s.GetKey(), s.GetSeen().AsTime().Format(time.DateTime), state)
		}
		if p.GetYank() != "" {
			fmt.Fprintf(w, "%s\t%s\n", p.GetYank(), p.GetYankReason())
		}
		if !res.GetUsable() {
			fmt.Fprintf(w, "not usable\t%s\n", res.GetProblem())
		}
	})
}

func (a *app) pkgDownloadCommand() *cobra.Command {
	var tenant, to string
	cmd := &cobra.Command{
		Use:   "download ID [--to FOLDER]",
		Short: "Download the file of a package",
		Long: `Download a package by NAME@VERSION, by NAME for its latest version, or by digest. The file is checked against the digest of
its content; verify its signatures with maestro pkg verify. Interrupted, it goes on where it was.`,
		Example: `  maestro pkg download acme/restore-drill@0.1.0
  maestro pkg download restore-drill --to packages`,
		Args: cobra.ExactArgs(1),
	}
	tenantFlag(cmd, &tenant, "whose view it is (default: the context's tenant)")
	cmd.Flags().StringVar(&to, "to", ".", "folder to write the file into")
	cmd.RunE = a.inCatalog(&tenant, func(ctx context.Context, c *client.Client, tenant string, args []string) error {
		res, err := callOnce(ctx, a, c.Packages().GetPackage, &packagesv1.GetPackageRequest{Id: args[0], Tenant: tenant})
		if err != nil {
			return err
		}
		p := res.GetPackage()
		path := filepath.Join(to, mwpkg.Ref{Name: p.GetName(), Version: p.GetVersion()}.Filename())
		if err := a.download(ctx, c, tenant, p, path); err != nil {
			return err
		}
		opened, err := readPackage(path)
		if err != nil {
			return err
		}
		return a.print(lineOf(path, opened), func(w io.Writer) { fmt.Fprintf(w, "file\t%s\ndigest\t%s\n", path, opened.Digest) })
	})
	return cmd
}

// download writes an archive beside its place, and puts it there once it is whole and the right one. What an
// earlier download of the same archive has left is kept.
func (a *app) download(ctx context.Context, c *client.Client, tenant string, p *packagesv1.Package, path string) error {
	part := path + "." + p.GetArchive()[:12] + ".part"
	f, err := os.OpenFile(part, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	from, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	if from < int64(p.GetSize()) {
		t, clear := a.transfer(c, filepath.Base(path))
		_, err := t.Download(ctx, p.GetDigest(), tenant, p.GetArchive(), int(from), f)
		clear()
		if err != nil {
			return err
		}
	}
	sum := sha256.New()
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	if _, err := io.Copy(sum, f); err != nil {
		return err
	}
	if got := hex.EncodeToString(sum.Sum(nil)); got != p.GetArchive() {
		return hinted{fmt.Errorf("%s has the SHA-256 %s, not %s", part, got, p.GetArchive()), "remove it and download it again"}
	}
	return errors.Join(f.Sync(), os.Rename(part, path))
}

func (a *app) pkgYankCommand() *cobra.Command {
	r := &packagesv1.YankPackageRequest{}
	cmd := &cobra.Command{
		Use:   "yank ID (--kind deprecated|yanked|blocked --reason TEXT | --lift)",
		Short: "Take a version back",
		Long: `Take a version back. A deprecated one can be used, and whoever installs it is told. A yanked one is not installed any
more; where it is installed it goes on, and lock files that have it can be installed. A blocked one is neither installed nor
loaded, for good.`,
		Example: `  maestro pkg yank myflow@0.1.0 --reason 'loses rows; use 0.1.1'
  maestro pkg yank myflow@0.1.0 --kind blocked --reason 'leaks the token'
  maestro pkg yank myflow@0.1.0 --lift`,
		Args: cobra.ExactArgs(1),
	}
	var lift bool
	kind := "yanked"
	f := cmd.Flags()
	tenantFlag(cmd, &r.Tenant, "whose package it is (default: the context's tenant)")
	f.StringVar(&kind, "kind", kind, "deprecated, yanked or blocked")
	f.StringVar(&r.Reason, "reason", "", "why, for those who use it")
	f.BoolVar(&lift, "lift", false, "take that back, unless it is blocked")
	cmd.RunE = a.inCatalog(&r.Tenant, func(ctx context.Context, c *client.Client, tenant string, args []string) error {
		r.Id, r.Tenant, r.Kind = args[0], tenant, kind
		if lift {
			r.Kind = ""
		}
		res, err := callOnce(ctx, a, c.Packages().YankPackage, r)
		if err != nil {
			return err
		}
		return a.print(res, func(w io.Writer) {
			p := res.GetPackage()
			fmt.Fprintf(w, "%s@%s\t%s\n", p.GetName(), p.GetVersion(), orNone(p.GetYank()))
		})
	})
	return cmd
}

func orNone(s string) string {
	if s == "" {
		return "in force"
	}
	return s
}
