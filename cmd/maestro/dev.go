package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/maestro-conductor/maestro/internal/client"
	"github.com/maestro-conductor/maestro/internal/devregion"
)

// sampleTemplate is the one that a newcomer is shown.
const sampleTemplate = "maestro/slo-error-budget"

func (a *app) devCommand() *cobra.Command {
	o := devregion.Options{}
	var regions []string
	cmd := &cobra.Command{
		Use:   "dev",
		Short: "Run a whole region of real node processes on this machine",
		Long: `Run a region of three (or one, or five) real nodes on loopback, with certificates, an admin token and sample content of the
tenant demo. Once it is ready, the packages that come with Maestro are published in its catalog for all tenants, signed by a
development key that is made in --dir and has no password. Everything is kept in --dir; a second start goes on with it. Nodes
that die are started again. Ctrl-C stops all of it.

The CLI context is written, so that other maestro commands talk to this region. For scripts, a line that
starts with "ready" is printed once, and DIR/dev.json says what runs where.`,
		Example: `  maestro dev
  maestro dev --nodes 5 --dir five --port-base 0`,
		Args: cobra.NoArgs,
	}
	f := cmd.Flags()
	f.StringVar(&o.Dir, "dir", ".maestro", "folder for everything that is kept")
	f.StringSliceVar(&regions, "regions", []string{"local"}, "name of the region")
	f.IntVar(&o.Nodes, "nodes", 0, "how many nodes start the region: 1, 3 or 5 (default: as many as it has, or 3)")
	f.IntVar(&o.PortBase, "port-base", 7400, "first port; 0 picks free ports and keeps them")
	f.StringVar(&o.EnvoyMapping, "envoy-mapping", "", "file of what Envoy's descriptors mean; see docs/envoy.md (default: Envoy is not served)")
	f.BoolVar(&o.NoSeed, "no-seed", false, "no sample content and no templates")
	cmd.RunE = a.action(func(ctx context.Context, _ []string) error {
		began := time.Now()
		if len(regions) != 1 {
			return usageError{fmt.Errorf("--regions names %d regions; one is supported", len(regions))}
		}
		o.Name = regions[0]
		if cmd.Flags().Changed("nodes") && o.Nodes != 1 && o.Nodes != 3 && o.Nodes != 5 {
			return usageError{fmt.Errorf("--nodes %d; a region starts with 1, 3 or 5", o.Nodes)}
		}
		if !cmd.Flags().Changed("port-base") {
			if _, err := devregion.ReadState(o.Dir); err == nil {
				o.PortBase = 0 // a region keeps the ports that it has
			}
		}
		o.Report = func(line string) { fmt.Fprintln(a.stderr, line) }
		return a.runDev(ctx, o, began)
	})
	return cmd
}

func (a *app) runDev(ctx context.Context, o devregion.Options, began time.Time) error {
	region, err := devregion.Start(ctx, o)
	if err != nil {
		if ctx.Err() != nil {
			return errors.New("interrupted before the region was ready; everything is stopped")
		}
		return err
	}
	if err := a.adoptContext(region); err != nil {
		return errors.Join(err, region.Stop())
	}
	a.printWelcome(region, o)
	fmt.Fprintf(a.stdout, "ready in %.1f s\n", time.Since(began).Seconds())
	offered := make(chan struct{})
	go func() {
		defer close(offered)
		if !o.NoSeed {
			a.offerTemplates(ctx, region, o.Report)
		}
	}()
	<-ctx.Done()
	fmt.Fprintln(a.stderr, "stopping ...")
	<-offered
	return region.Stop()
}

// offerTemplates publishes the templates and says so. The region does without them: what fails is told, and tried
// again at the next start.
func (a *app) offerTemplates(ctx context.Context, region *devregion.Region, report func(string)) {
	count, err := region.PublishTemplates(ctx)
	switch {
	case ctx.Err() != nil:
	case err != nil:
		report(fmt.Sprintf("templates: not all are in the catalog, %d are: %v", count, err))
	default:
		report(fmt.Sprintf("templates: %d packages, signed by the development key %s; see %[3]s pkg list, and try %[3]s pkg install %[4]s --tenant %[5]s",
			count, devregion.TemplatesPublicKey(region.State().ConfigDir), program(), sampleTemplate, devregion.SampleTenant))
	}
}

// adoptContext makes the region the one that other commands talk to. A context that points
// to another machine is kept beside it.
func (a *app) adoptContext(region *devregion.Region) error {
	dir, err := client.ConfigDir(a.configDir)
	if err != nil {
		return err
	}
	old, err := client.LoadContext(dir)
	if err != nil || pointsElsewhere(old) {
		kept := client.ContextPath(dir) + ".before-dev"
		if err := os.Rename(client.ContextPath(dir), kept); err != nil {
			return err
		}
		fmt.Fprintf(a.stderr, "your context is kept as %s\n", kept)
	}
	return region.Context().Save(dir)
}

func pointsElsewhere(c client.Context) bool {
	for _, e := range c.Endpoints {
		if u, err := url.Parse(e); err != nil || u.Hostname() != "127.0.0.1" {
			return true
		}
	}
	return false
}

func (a *app) printWelcome(region *devregion.Region, o devregion.Options) {
	state := region.State()
	var apis []string
	for _, n := range state.Regions[0].Nodes {
		apis = append(apis, n.API)
	}
	fmt.Fprintf(a.stdout, `region %[1]s: %[2]s
kept in %[3]s; metrics at %[4]s/metrics

Try in another shell:
  %[6]s cluster status
  %[6]s check --tenant demo --token ana --key export
  %[6]s search 'kind:decision AND decision:deny'
  %[6]s lineage --tenant demo sha256:36c2e80a66311fbf22ac4d7f07d48f367be6190afc0e615fa11c36c035277429
  %[6]s limit list
  curl --cacert %[5]s -H "Authorization: Bearer $(cat %[7]s)" '%[8]s/api/provenance/search?q=execution:run-0003'

`, state.Regions[0].Name, strings.Join(apis, " "), state.ConfigDir, state.Regions[0].Nodes[0].Admin, state.CA, program(), state.TokenFile, apis[0])
}

// program is how this program is called from a shell: by its name where the path finds it, else as it was called now.
func program() string {
	own, err := os.Executable()
	if err != nil {
		return "maestro"
	}
	if found, err := exec.LookPath("maestro"); err == nil && sameFile(found, own) || !strings.ContainsRune(os.Args[0], filepath.Separator) {
		return "maestro"
	}
	return os.Args[0]
}

func sameFile(a, b string) bool {
	x, errX := os.Stat(a)
	y, errY := os.Stat(b)
	return errX == nil && errY == nil && os.SameFile(x, y)
}
