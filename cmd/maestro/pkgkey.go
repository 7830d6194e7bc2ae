package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/maestro-conductor/maestro/internal/client"
	"github.com/maestro-conductor/maestro/pkgstore/mwpkg"
)

// passwordVariables are where the password of a key file may stand; cosign reads the second too.
var passwordVariables = []string{"MAESTRO_KEY_PASSWORD", "COSIGN_PASSWORD"}

func (a *app) pkgKeygenCommand() *cobra.Command {
	var out string
	cmd := &cobra.Command{
		Use:   "keygen [--out NAME]",
		Short: "Make a key pair that signs packages",
		Long: `Make a key pair: NAME.key, encrypted with a password as cosign does it, and NAME.pub. Without --out it becomes the
key of the CLI context, which sign and verify use when none is named. Keys are never overwritten. The password comes from
MAESTRO_KEY_PASSWORD or COSIGN_PASSWORD, which may be empty, or is asked for.`,
		Example: `  maestro pkg keygen
  maestro pkg keygen --out k`,
		Args: cobra.NoArgs,
	}
	cmd.Flags().StringVar(&out, "out", "", "write NAME.key and NAME.pub (default: package in the configuration folder)")
	cmd.RunE = a.action(func(context.Context, []string) error {
		private, public, err := a.keyPair(out)
		if err != nil {
			return err
		}
		for _, path := range []string{private, public} {
			if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
				return hinted{fmt.Errorf("%s is there already", path), "keys are not overwritten: whatever they signed would be lost with them; give another --out"}
			}
		}
		password, err := a.password(true)
		if err != nil {
			return err
		}
		privatePEM, publicPEM, err := mwpkg.GenerateKey(password)
		if err != nil {
			return err
		}
		key, err := mwpkg.NewKey(publicPEM)
		if err != nil {
			return err
		}
		if err := os.MkdirAll(filepath.Dir(private), 0o700); err != nil {
			return err
		}
		if err := errors.Join(client.WriteFile(private, privatePEM), client.WriteFile(public, publicPEM)); err != nil {
			return err
		}
		if err := os.Chmod(public, 0o644); err != nil {
			return err
		}
		result := map[string]string{"privateKey": private, "publicKey": public, "keyId": key.ID.String()}
		return a.print(result, func(w io.Writer) {
			fmt.Fprintf(w, "private key\t%s\npublic key\t%s\nkey id\t%s\n", private, public, key.ID)
		})
	})
	return cmd
}

// keyPair gives the files of a key pair: those of base, or those of the CLI context.
func (a *app) keyPair(base string) (private, public string, err error) {
	if base == "" {
		dir, err := client.ConfigDir(a.configDir)
		if err != nil {
			return "", "", err
		}
		c, err := client.LoadContext(dir)
		if err != nil {
			return "", "", err
		}
		if base = c.PackageKey; base == "" {
			base = filepath.Join(dir, "package")
		}
	}
	base = strings.TrimSuffix(base, ".key")
	return base + ".key", base + ".pub", nil
}

// readKeyFile reads a key file; which says for what.
func readKeyFile(path, which string) ([]byte, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, hinted{fmt.Errorf("there is no %s key %s", which, path), "make one with maestro pkg keygen, or name one with --key"}
	}
	return data, err
}

// password gives the password of a key file: from the environment, or asked for on the terminal,
// twice for a new one.
func (a *app) password(fresh bool) ([]byte, error) {
	for _, name := range passwordVariables {
		if word, ok := os.LookupEnv(name); ok {
			return []byte(word), nil
		}
	}
	file, ok := a.stdin.(*os.File)
	if !ok || !term.IsTerminal(int(file.Fd())) {
		return nil, hinted{errors.New("the key file needs a password and there is no terminal to ask on"), "set " + strings.Join(passwordVariables, " or ")}
	}
	ask := func(what string) ([]byte, error) {
		fmt.Fprint(a.stderr, what)
		word, err := term.ReadPassword(int(file.Fd()))
		fmt.Fprintln(a.stderr)
		return word, err
	}
	word, err := ask("Password of the key: ")
	if err != nil || !fresh {
		return word, err
	}
	again, err := ask("The same once more: ")
	if err == nil && !bytes.Equal(word, again) {
		err = errors.New("the passwords differ")
	}
	return word, err
}
