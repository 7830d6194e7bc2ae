package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/maestro-conductor/maestro/index/disposition"
	"github.com/maestro-conductor/maestro/internal/certs"
)

func (a *app) certsCommand() *cobra.Command {
	cmd := a.group(&cobra.Command{Use: "certs", Short: "Make certificates"})
	cmd.AddCommand(a.certsCreateCommand())
	return cmd
}

func (a *app) certsCreateCommand() *cobra.Command {
	var dir string
	var nodes []string
	cmd := &cobra.Command{
		Use:   "create --node NAME=HOST[,HOST...]...",
		Short: "Make a CA, an administrator's certificate and node certificates",
		Long: `Make the certificates of a region in one folder: ca.pem and ca.key, admin.pem and admin.key,
and NAME.pem and NAME.key for each --node, valid for its hosts (names and addresses that others dial).
disposition.key, which every node needs a copy of, signs the records of what retention has disposed of;
auditors verify them with disposition.pub.

A CA that is there already is used, never replaced: repeat the command to add nodes. Keep ca.key and
admin.key away from the nodes.`,
		Example: `  maestro certs create --dir certs --node node-1=10.0.0.1,n1.example.com --node node-2=10.0.0.2 --node node-3=10.0.0.3
  maestro certs create --dir certs --node node-4=10.0.0.4`,
		Args: cobra.NoArgs,
	}
	cmd.Flags().StringVar(&dir, "dir", "certs", "folder for the files")
	cmd.Flags().StringArrayVar(&nodes, "node", nil, "a node and its hosts, NAME=HOST[,HOST...]; repeatable")
	cmd.RunE = a.action(func(context.Context, []string) error {
		created, err := createCertificates(dir, nodes)
		if err != nil {
			return err
		}
		return a.print(map[string][]string{"created": created}, func(w io.Writer) {
			for _, f := range created {
				fmt.Fprintln(w, "created", f)
			}
		})
	})
	return cmd
}

func createCertificates(dir string, nodes []string) ([]string, error) {
	type request struct {
		name  string
		hosts []string
	}
	var requests []request
	for _, n := range nodes {
		name, hosts, ok := strings.Cut(n, "=")
		if !ok || !certs.ValidName(name) || hosts == "" {
			return nil, usageError{fmt.Errorf("--node %q; write NAME=HOST[,HOST...], such as node-1=10.0.0.1", n)}
		}
		if certs.NodePaths(dir, name).Exists() {
			return nil, fmt.Errorf("%w: %s; choose another name or folder", certs.ErrExists, certs.NodePaths(dir, name).Cert)
		}
		requests = append(requests, request{name, strings.Split(hosts, ",")})
	}
	var created []string
	switch err := certs.CreateCA(dir); {
	case err == nil:
		created = append(created, certs.CAPath(dir))
	case !errors.Is(err, certs.ErrExists) || len(requests) == 0 && disposition.Exists(dir):
		return nil, err
	}
	if admin := certs.AdminPaths(dir); !admin.Exists() {
		if err := certs.IssueAdmin(dir); err != nil {
			return nil, err
		}
		created = append(created, admin.Cert)
	}
	switch err := disposition.Create(dir); {
	case err == nil:
		created = append(created, filepath.Join(dir, disposition.KeyName))
	case !errors.Is(err, disposition.ErrExists):
		return nil, err
	}
	for _, r := range requests {
		if err := certs.IssueNode(dir, r.name, r.hosts); err != nil {
			return nil, err
		}
		created = append(created, certs.NodePaths(dir, r.name).Cert)
	}
	return created, nil
}
