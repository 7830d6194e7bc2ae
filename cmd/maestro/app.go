package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/maestro-conductor/maestro/internal/client"
	"github.com/maestro-conductor/maestro/node"
)

// Exit statuses.
const (
	statusDone   = 0
	statusError  = 1
	statusUsage  = 2
	statusDenied = 3
)

// errDenied is the outcome of a check that was answered, with no.
var errDenied = errors.New("denied")

// errReported ends a command with an error that was shown already.
var errReported = errors.New("reported")

// hinted is an error that comes with advice.
type hinted struct {
	error
	hint string
}

func (h hinted) Unwrap() error { return h.error }

// usageError is a mistake on the command line that shows only once a command runs.
type usageError struct{ error }

// app is what the commands share: streams and the flags of the root command.
type app struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	// began is true once a command runs: errors before that are mistakes on the command line.
	began bool

	configDir string
	output    string
	endpoints []string
	ca        string
	tokenFile string
	timeout   time.Duration
}

// run is the program: it does what args say and returns the exit status.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	a := &app{stdin: stdin, stdout: stdout, stderr: stderr}
	root := a.rootCommand()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	cmd, err := root.ExecuteContextC(ctx)
	return a.status(cmd, err)
}

func (a *app) rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "maestro",
		Short: "Limits, provenance and search for a workflow orchestrator's tenants",
		Long: `maestro is the shared-state service of a multi-tenant workflow orchestrator, and its command line.

Commands find their region in the context that "maestro dev" or "maestro cluster init --save" wrote.
Exit status: 0 done or allowed, 1 error, 2 mistake on the command line, 3 denied.`,
		Example: `  maestro dev                                          # a region on this machine
  maestro check --tenant demo --token ana --key export
  maestro search 'kind:receipt AND execution:run-0003'`,
		SilenceErrors:     true,
		SilenceUsage:      true,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
	}
	f := root.PersistentFlags()
	f.StringVar(&a.configDir, "config-dir", "", "folder of the CLI context (default: MAESTRO_CONFIG_DIR, else maestro in your configuration folder)")
	f.VarP(&choice{&a.output, []string{"table", "json", "yaml"}}, "output", "o", "how to print results: table, json or yaml")
	f.StringSliceVar(&a.endpoints, "endpoint", nil, "node to talk to, https://HOST:PORT; repeatable (default: from the context)")
	f.StringVar(&a.ca, "ca", "", "CA file of the region (default: from the context)")
	f.StringVar(&a.tokenFile, "token-file", "", "file of the API token (default: MAESTRO_TOKEN, else from the context)")
	f.DurationVar(&a.timeout, "timeout", 30*time.Second, "how long a request may take, retries included")
	a.group(root)
	root.AddCommand(
		a.devCommand(), a.nodeCommand(), a.certsCommand(), a.clusterCommand(), a.checkCommand(), a.sidecarCommand(), a.limitCommand(), a.indexCommand(),
		a.ingestCommand(), a.searchCommand(), a.exportCommand(), a.lineageCommand(), a.pkgCommand(), a.policyCommand(), a.tokenCommand(), a.versionCommand(), a.completionCommand(),
	)
	return root
}

// group makes cmd a command that only has commands below it.
func (a *app) group(cmd *cobra.Command) *cobra.Command {
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return nil
		}
		err := fmt.Errorf("unknown command %q for %q", args[0], cmd.CommandPath())
		if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
			return hinted{err, "did you mean " + strings.Join(near, " or ") + "?"}
		}
		return err
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if cmd.HasParent() {
			return fmt.Errorf("%q needs a command", cmd.CommandPath())
		}
		return cmd.Help()
	}
	cmd.SuggestionsMinimumDistance = 2
	return cmd
}

// action makes f the body of a command.
func (a *app) action(f func(ctx context.Context, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		a.began = true
		return f(cmd.Context(), args)
	}
}

// status reports err, if any, and says what the program ends with.
func (a *app) status(cmd *cobra.Command, err error) int {
	var usage usageError
	switch {
	case err == nil:
		return statusDone
	case errors.Is(err, errDenied):
		return statusDenied
	case errors.Is(err, node.ErrStopped):
		a.printError(err, "")
		return node.ExitFatal
	case errors.Is(err, errReported):
		return statusError
	case !a.began || errors.As(err, &usage):
		a.printError(err, fmt.Sprintf("see %s --help", cmd.CommandPath()))
		return statusUsage
	}
	a.printError(err, "")
	return statusError
}

func (a *app) printError(err error, hint string) {
	fmt.Fprintf(a.stderr, "error: %v\n", err)
	var h hinted
	var e *client.Error
	if errors.As(err, &h) {
		hint = h.hint
	} else if text := packageHint(err); text != "" {
		hint = text
	} else if text := policyHint(err); text != "" {
		hint = text
	} else if errors.As(err, &e) && e.Hint != "" {
		hint = e.Hint
	}
	if e != nil && e.Outcome == client.OutcomeUnknown {
		fmt.Fprintln(a.stderr, "outcome: unknown; the request may have taken effect")
	}
	if hint != "" {
		fmt.Fprintf(a.stderr, "hint: %s\n", hint)
	}
}

// context is the CLI context with the flags applied.
func (a *app) context() (client.Context, error) {
	dir, err := client.ConfigDir(a.configDir)
	if err != nil {
		return client.Context{}, err
	}
	c, err := client.LoadContext(dir)
	if err != nil {
		return c, err
	}
	if len(a.endpoints) > 0 {
		c.Endpoints = a.endpoints
	}
	if a.ca != "" {
		c.CA = a.ca
	}
	if a.tokenFile != "" {
		c.TokenFile, c.Token = a.tokenFile, ""
	} else if token := os.Getenv("MAESTRO_TOKEN"); token != "" {
		c.TokenFile, c.Token = "", token
	}
	if len(c.Endpoints) == 0 {
		return c, hinted{
			fmt.Errorf("no region to talk to: %s names no endpoint", client.ContextPath(dir)),
			"start one with maestro dev, or give --endpoint, --ca and --token-file",
		}
	}
	return c, nil
}

// connect returns a client for the context's region, and the tenant to use: the given one, or
// the context's.
func (a *app) connect(tenant string) (*client.Client, string, error) {
	c, err := a.context()
	if err != nil {
		return nil, "", err
	}
	token, err := c.ReadToken()
	if err != nil {
		return nil, "", err
	}
	if tenant == "" {
		tenant = c.Tenant
	}
	cl, err := client.New(client.Options{Endpoints: c.Endpoints, CAFile: c.CA, Token: token})
	return cl, tenant, err
}

// request bounds one request in time.
func (a *app) request(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, a.timeout)
}

// choice is a flag that takes one of a few words, the first by default.
type choice struct {
	value *string
	words []string
}

func (c *choice) String() string {
	if c.value == nil || *c.value == "" {
		return ""
	}
	return *c.value
}

func (c *choice) Type() string { return "string" }

func (c *choice) Set(s string) error {
	for _, w := range c.words {
		if s == w {
			*c.value = s
			return nil
		}
	}
	return fmt.Errorf("it must be %s", strings.Join(c.words, ", "))
}
