package main

import (
	"context"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/maestro-conductor/maestro/node"
)

func (a *app) nodeCommand() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "node --config FILE",
		Short: "Run one node until it is told to stop",
		Long: `Run one node of a region in the foreground, logging to stderr. SIGTERM or Ctrl-C stops it in order.

Settings come from the file; environment variables override the file, flags override both.
The variables are named like the flags: --data-dir is MAESTRO_DATA_DIR (--name is MAESTRO_NODE_NAME).`,
		Example: `  maestro node --config /etc/maestro/node.yaml
  MAESTRO_LOG_FORMAT=json maestro node --config node.yaml --log-level debug`,
		Args: cobra.NoArgs,
	}
	cmd.Flags().StringVar(&file, "config", "", "the node's configuration file (required)")
	must(cmd.MarkFlagRequired("config"))
	settings := node.Settings()
	values := make([]string, len(settings))
	for i, s := range settings {
		cmd.Flags().StringVar(&values[i], flagName(s.Key), "", s.Usage+" ("+s.Env+")")
	}
	cmd.RunE = a.action(func(ctx context.Context, _ []string) error {
		flags := map[string]string{}
		for i, s := range settings {
			if cmd.Flags().Changed(flagName(s.Key)) {
				flags[s.Key] = values[i]
			}
		}
		cfg, err := node.LoadConfig(file, node.Overrides{LookupEnv: os.LookupEnv, Flags: flags})
		if err != nil {
			return err
		}
		return node.Run(ctx, cfg, cfg.Log.Logger(a.stderr))
	})
	return cmd
}

func flagName(key string) string { return strings.NewReplacer(".", "-", "_", "-").Replace(key) }

// must is for mistakes in this program's own command definitions.
func must(err error) {
	if err != nil {
		panic(err)
	}
}
