package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"

	"github.com/spf13/cobra"

	"github.com/maestro-conductor/maestro/internal/client"
	"github.com/maestro-conductor/maestro/policies"
)

func (a *app) policyCommand() *cobra.Command {
	cmd := a.group(&cobra.Command{
		Use:   "policy",
		Short: "Test, build, sign and verify policy packs",
		Long: `Test, build, sign and verify policy packs: rules in Rego that may deny a request, and say why, when to try
again and what to do about it. A pack is a bundle of OPA. None of these commands needs a region.`,
		Example: `  maestro policy test mypack
  maestro policy build mypack --revision 1
  maestro pkg keygen --out k
  maestro policy sign --key k.key --issuer release mc.limits-1.tar.gz
  maestro policy verify --key k.pub mc.limits-1.tar.gz`,
	})
	cmd.AddCommand(a.policyTestCommand(), a.policyBuildCommand(), a.policySignCommand(), a.policyVerifyCommand())
	return cmd
}

// policyHint is what to do about a refusal of a pack.
func policyHint(err error) string {
	var e *policies.Error
	if errors.As(err, &e) {
		return e.Hint
	}
	return ""
}

// tested is what policy test prints of a pack.
type tested struct {
	Pack  string                `json:"pack"`
	Rules int                   `json:"rules"`
	Tests []policies.TestResult `json:"tests"`
}

func (a *app) policyTestCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "test [DIR...]",
		Short: "Compile packs, check their rules and run their tests",
		Long: `Compile packs, check that each deny rule has title, description, severity, remediation and a label of its own, and run the
tests in *_test.rego. Without a folder the packs that come with Maestro are tested. Exit status 1 when anything fails.`,
		Example: `  maestro policy test
  maestro policy test mypack -o json`,
		Args: cobra.ArbitraryArgs,
		RunE: a.action(func(ctx context.Context, args []string) error {
			folders := map[string]fs.FS{}
			for _, dir := range args {
				folders[dir] = os.DirFS(dir)
			}
			if len(args) == 0 {
				folders = policies.BuiltIn()
			}
			var all []tested
			failed := 0
			for _, name := range sortedNames(folders) {
				source, err := policies.ReadSource(folders[name])
				if err != nil {
					return fmt.Errorf("%s: %w", name, err)
				}
				pack, results, err := policies.Test(ctx, source)
				if err != nil {
					return fmt.Errorf("%s: %w", name, err)
				}
				for _, r := range results {
					if !r.Pass {
						failed++
					}
				}
				all = append(all, tested{pack.Ref().Name, len(pack.Rules()), results})
			}
			if err := a.print(map[string]any{"packs": all}, func(w io.Writer) { printTested(w, all) }); err != nil {
				return err
			}
			if failed > 0 {
				return fmt.Errorf("%d tests failed", failed)
			}
			return nil
		}),
	}
}

func printTested(w io.Writer, all []tested) {
	fmt.Fprintln(w, "PACK\tRULES\tTESTS\tFAILED")
	for _, p := range all {
		failed := 0
		for _, t := range p.Tests {
			if !t.Pass {
				failed++
			}
		}
		fmt.Fprintf(w, "%s\t%d\t%d\t%d\n", p.Pack, p.Rules, len(p.Tests), failed)
	}
	for _, p := range all {
		for _, t := range p.Tests {
			if !t.Pass {
				fmt.Fprintf(w, "failed: %s:%d: %s %s\n", t.File, t.Line, t.Name, t.Error)
			}
		}
	}
}

func sortedNames[V any](m map[string]V) []string {
	return slices.Sorted(maps.Keys(m))
}

func (a *app) policyBuildCommand() *cobra.Command {
	var out string
	var revision uint64
	cmd := &cobra.Command{
		Use:   "build DIR --revision N",
		Short: "Make the archive of a pack",
		Long: `Make the archive of a pack, PACK-REVISION.tar.gz, without its tests: the same bytes for the same content. The revision is a number
that grows with each archive of the pack; a region takes no lower one than it has seen.`,
		Example: `  maestro policy build mypack --revision 7`,
		Args:    cobra.ExactArgs(1),
	}
	cmd.Flags().Uint64Var(&revision, "revision", 0, "number of the revision, from 1 on (required)")
	cmd.Flags().StringVar(&out, "out", "", "file to write (default: PACK-REVISION.tar.gz)")
	must(cmd.MarkFlagRequired("revision"))
	cmd.RunE = a.action(func(_ context.Context, args []string) error {
		source, err := policies.ReadSource(os.DirFS(args[0]))
		if err != nil {
			return fmt.Errorf("%s: %w", args[0], err)
		}
		built, archive, err := policies.Build(source, revision)
		if err != nil {
			return fmt.Errorf("%s: %w", args[0], err)
		}
		if out == "" {
			out = fmt.Sprintf("%s-%d.tar.gz", built.Name(), revision)
		}
		if err := writeShared(out, archive); err != nil {
			return err
		}
		result := map[string]any{"file": out, "pack": built.Name(), "revision": revision, "digest": built.Digest()}
		return a.print(result, func(w io.Writer) {
			fmt.Fprintf(w, "file\t%s\npack\t%s\nrevision\t%d\ndigest\t%s\n", out, built.Name(), revision, built.Digest())
		})
	})
	return cmd
}

// writeShared writes a file that others may read.
func writeShared(path string, data []byte) error {
	if err := client.WriteFile(path, data); err != nil {
		return err
	}
	return os.Chmod(path, 0o644)
}
