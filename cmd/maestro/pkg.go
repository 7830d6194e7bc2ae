package main

import "github.com/spf13/cobra"

func (a *app) pkgCommand() *cobra.Command {
	cmd := a.group(&cobra.Command{Use: "pkg", Short: "Workflow packages"})
	cmd.AddCommand(a.pkgRunCommand(), a.pkgTestCommand())
	return cmd
}
