package main

import (
	"context"
	"fmt"
	"io"
	"runtime"

	"github.com/spf13/cobra"

	"github.com/maestro-conductor/maestro/internal/version"
)

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print version, commit and platform",
		Args:  cobra.NoArgs,
		RunE: a.action(func(context.Context, []string) error {
			v := struct {
				Version string `json:"version"`
				Commit  string `json:"commit"`
				Go      string `json:"go"`
				// Platform is operating system and processor, as Go names them.
				Platform string `json:"platform"`
			}{version.Version, version.Commit(), runtime.Version(), runtime.GOOS + "/" + runtime.GOARCH}
			return a.print(v, func(w io.Writer) {
				fmt.Fprintf(w, "maestro %s (commit %s, %s, %s)\n", v.Version, v.Commit, v.Go, v.Platform)
			})
		}),
	}
}
