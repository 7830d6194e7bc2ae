package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"github.com/maestro-conductor/maestro/pkgstore/mwpkg"
	"github.com/maestro-conductor/maestro/pkgstore/stepexec"
)

// packageRun is what the commands that run a package on this machine share.
type packageRun struct {
	options    stepexec.Options
	key, trust string
	unverified bool
}

func (r *packageRun) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.BoolVar(&r.options.AllowNetwork, "allow-network", false, "give the network to steps that declare egress")
	f.BoolVar(&r.options.AllowUnisolated, "allow-unisolated", false, "run with your own rights where this machine permits no isolation")
	f.StringVar(&r.options.Artifacts, "artifacts", "", "folder for copies of what the steps leave as artifacts")
	f.StringVar(&r.key, "key", "", "public key that must have signed a package file (default: that of the CLI context)")
	f.StringVar(&r.trust, "trust", "", "trust file, one of whose keys must have signed a package file")
	f.BoolVar(&r.unverified, "unverified", false, "run a package file whoever has signed it, or nobody")
	cmd.MarkFlagsMutuallyExclusive("key", "trust", "unverified")
}

func (a *app) pkgRunCommand() *cobra.Command {
	var r packageRun
	var example string
	var inputs, secrets []string
	cmd := &cobra.Command{
		Use:   "run FILE|DIR",
		Short: "Run a package's workflow on this machine",
		Long: `Run the workflow of a package file, or of a folder that a package can be built of, on this machine: each
step one program in a sandbox, with the declared inputs and nothing else of your environment. A package file is
verified first, as "maestro pkg verify" does; a folder is yours and is not.

Steps get no network unless they declare egress and --allow-network is given; which addresses they then
connect to is not checked. On machines that permit no isolation (containers, some build machines), nothing
runs unless --allow-unisolated is given. Secrets come from files and appear in no output.
Exit status: 0 the run succeeded or the example is met, 1 otherwise.`,
		Example: `  maestro pkg run ./cert-sweep --input hosts='shop.example api.example:8443' --allow-network
  maestro pkg run acme-cert-sweep-1.0.0.mwpkg.tgz --trust trust.yaml --example minimal
  maestro pkg run ./restore-drill --input dump=https://backups.example/db.dump --secret scratch=dsn.txt --allow-network`,
		Args: cobra.ExactArgs(1),
	}
	r.flags(cmd)
	cmd.Flags().StringVar(&example, "example", "", "run an example of the package and compare what comes of it")
	cmd.Flags().StringArrayVar(&inputs, "input", nil, "value of an input, NAME=VALUE; repeatable")
	cmd.Flags().StringArrayVar(&secrets, "secret", nil, "file with the secret of an input, NAME=FILE; repeatable")
	cmd.MarkFlagsMutuallyExclusive("example", "input")
	cmd.MarkFlagsMutuallyExclusive("example", "secret")
	cmd.RunE = a.action(func(ctx context.Context, args []string) error {
		p, err := a.openToRun(&r, args[0])
		if err != nil {
			return err
		}
		if example != "" {
			i, err := exampleNamed(p, example)
			if err != nil {
				return err
			}
			return a.runExamples(ctx, &r, p, []int{i})
		}
		if r.options.Inputs, err = parseInputs(p.Manifest, inputs); err != nil {
			return usageError{err}
		}
		if r.options.Secret, err = secretFiles(p.Manifest, secrets, r.options.Inputs); err != nil {
			return usageError{err}
		}
		r.options.Progress = a.showStep
		report, err := stepexec.Run(ctx, r.options)
		if err != nil {
			return hintIsolation(err)
		}
		if err := a.print(report, func(w io.Writer) { showReport(w, report) }); err != nil {
			return err
		}
		if report.Status != mwpkg.StatusSucceeded {
			return errReported
		}
		return nil
	})
	return cmd
}

func (a *app) pkgTestCommand() *cobra.Command {
	var r packageRun
	cmd := &cobra.Command{
		Use:   "test FILE|DIR",
		Short: "Run every example of a package on this machine",
		Long: `Run the workflow of a package once for each of its examples, as "maestro pkg run --example" does, and compare
what comes of it with what the example expects. Exit status: 0 all are met, 1 otherwise.`,
		Example: `  maestro pkg test ./cert-sweep`,
		Args:    cobra.ExactArgs(1),
	}
	r.flags(cmd)
	cmd.RunE = a.action(func(ctx context.Context, args []string) error {
		p, err := a.openToRun(&r, args[0])
		if err != nil {
			return err
		}
		var all []int
		for i := range p.Examples {
			all = append(all, i)
		}
		return a.runExamples(ctx, &r, p, all)
	})
	return cmd
}

// openToRun builds the package of a folder, or reads a package file and verifies it.
func (a *app) openToRun(r *packageRun, path string) (*mwpkg.Package, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.IsDir() {
		if r.key != "" || r.trust != "" {
			return nil, usageError{fmt.Errorf("%s is a folder, which nobody has signed; build and sign a package of it", path)}
		}
		r.options.Package, err = mwpkg.Build(os.DirFS(path))
		return r.options.Package, err
	}
	p, err := readPackage(path)
	if err != nil {
		return nil, err
	}
	r.options.Package = p
	if r.unverified {
		return p, nil
	}
	trusted, err := a.trusted(r.key, r.trust)
	if err != nil {
		return nil, err
	}
	if _, err := p.Verify(trusted, time.Now()); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return p, nil
}

// exampleResult is an example and what became of it.
type exampleResult struct {
	Example    string           `json:"example"`
	Met        bool             `json:"met"`
	Mismatches []string         `json:"mismatches"`
	Report     *stepexec.Report `json:"report"`
}

func (a *app) runExamples(ctx context.Context, r *packageRun, p *mwpkg.Package, which []int) error {
	var results []exampleResult
	met := true
	for _, i := range which {
		report, mismatches, err := stepexec.RunExample(ctx, r.options, p.Examples[i])
		if err != nil {
			return hintIsolation(err)
		}
		met = met && len(mismatches) == 0
		results = append(results, exampleResult{exampleName(p, i), len(mismatches) == 0, append([]string{}, mismatches...), report})
	}
	err := a.print(results, func(w io.Writer) {
		for _, one := range results {
			word := "met"
			if !one.Met {
				word = "NOT MET"
			}
			fmt.Fprintf(w, "example %s: %s\n", one.Example, word)
			for _, m := range one.Mismatches {
				fmt.Fprintf(w, "  %s\n", m)
			}
			if !one.Met || len(results) == 1 {
				showReport(w, one.Report)
			}
		}
	})
	if err == nil && !met {
		err = errReported
	}
	return err
}

func exampleName(p *mwpkg.Package, i int) string {
	return strings.TrimSuffix(filepath.Base(p.Manifest.Examples[i]), filepath.Ext(p.Manifest.Examples[i]))
}

func exampleNamed(p *mwpkg.Package, name string) (int, error) {
	var names []string
	for i := range p.Examples {
		if exampleName(p, i) == name {
			return i, nil
		}
		names = append(names, exampleName(p, i))
	}
	return 0, usageError{fmt.Errorf("the package has no example %q; it has %s", name, strings.Join(names, ", "))}
}

// parseInputs reads NAME=VALUE as the manifest declares NAME: text as it stands, other types as
// YAML writes them.
func parseInputs(m *mwpkg.Manifest, given []string) (map[string]any, error) {
	inputs := map[string]any{}
	for _, g := range given {
		name, text, ok := strings.Cut(g, "=")
		if !ok {
			return nil, fmt.Errorf("--input %q; write NAME=VALUE", g)
		}
		declared, known := m.Inputs[name]
		if !known || declared.Type == mwpkg.TypeString || declared.Type == mwpkg.TypeSecret {
			inputs[name] = text // Resolve says what is wrong with a name that is not declared
			continue
		}
		var value any
		if err := yaml.Unmarshal([]byte(text), &value); err != nil {
			return nil, fmt.Errorf("--input %s: %q is no %s", name, text, declared.Type)
		}
		inputs[name] = value
	}
	return inputs, nil
}

// secretFiles reads the files of secrets. An input whose secret is given stands for itself where
// no name is given for it.
func secretFiles(m *mwpkg.Manifest, given []string, inputs map[string]any) (func(context.Context, string, string) (string, error), error) {
	secrets := map[string]string{}
	for _, g := range given {
		name, file, ok := strings.Cut(g, "=")
		if !ok || m.Inputs[name].Type != mwpkg.TypeSecret {
			return nil, fmt.Errorf("--secret %q; write NAME=FILE, where NAME is an input of the type secretRef", g)
		}
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		secrets[name] = strings.TrimSuffix(string(text), "\n")
		if _, named := inputs[name]; !named {
			inputs[name] = name
		}
	}
	return func(_ context.Context, input, _ string) (string, error) {
		secret, ok := secrets[input]
		if !ok {
			return "", fmt.Errorf("give --secret %s=FILE", input)
		}
		return secret, nil
	}, nil
}

func hintIsolation(err error) error {
	if errors.Is(err, stepexec.ErrIsolation) {
		return hinted{err, "--allow-unisolated runs the steps with your own rights; do so only for packages that you trust as you trust a shell script"}
	}
	return err
}
