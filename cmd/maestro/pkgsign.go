package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/maestro-conductor/maestro/pkgstore/mwpkg"
)

func (a *app) pkgSignCommand() *cobra.Command {
	var key, bundle string
	cmd := &cobra.Command{
		Use:   "sign FILE... [--key FILE | --bundle FILE]",
		Short: "Sign packages",
		Long: `Sign packages in place. The signature becomes the primary one, in signatures/cosign.sig and
signatures/bundle.sigstore.json; those of other keys stay beside it, and the content's digest does not change. The key is
a file as cosign generate-key-pair or maestro pkg keygen writes it; its password comes from MAESTRO_KEY_PASSWORD or COSIGN_PASSWORD,
or is asked for. With --bundle the signature is one that cosign sign-blob made of the package's signatures/SHA256SUMS, with a
key that only cosign can use; it is not verified here.`,
		Example: `  maestro pkg sign myflow-0.1.0.mwpkg.tgz
  maestro pkg sign --key cosign.key myflow-0.1.0.mwpkg.tgz
  maestro pkg sign --bundle SHA256SUMS.bundle myflow-0.1.0.mwpkg.tgz`,
		Args: cobra.MinimumNArgs(1),
	}
	cmd.Flags().StringVar(&key, "key", "", "private key file (default: that of the CLI context)")
	cmd.Flags().StringVar(&bundle, "bundle", "", "sigstore bundle with the signature")
	cmd.MarkFlagsMutuallyExclusive("key", "bundle")
	cmd.RunE = a.action(func(_ context.Context, args []string) error {
		sign, err := a.signing(key, bundle)
		if err != nil {
			return err
		}
		lines := []packageLine{}
		for _, path := range args {
			p, err := readPackage(path)
			if err != nil {
				return err
			}
			if p, err = sign(p); err != nil {
				return fmt.Errorf("%s: %w", path, err)
			}
			if err := writePackage(path, p); err != nil {
				return err
			}
			lines = append(lines, lineOf(path, p))
		}
		return a.print(map[string]any{"signed": lines}, func(w io.Writer) { printLines(w, "SIGNED", lines) })
	})
	return cmd
}

// signing gives what signs a package: a key or a bundle.
func (a *app) signing(key, bundle string) (func(*mwpkg.Package) (*mwpkg.Package, error), error) {
	if bundle != "" {
		data, err := os.ReadFile(bundle)
		if err != nil {
			return nil, err
		}
		return func(p *mwpkg.Package) (*mwpkg.Package, error) {
			s, err := mwpkg.ParseBundle(data, p.Sums())
			if err != nil {
				return nil, err
			}
			return p.WithSignature(s)
		}, nil
	}
	if key == "" {
		var err error
		if key, _, err = a.keyPair(""); err != nil {
			return nil, err
		}
	}
	data, err := readKeyFile(key, "private")
	if err != nil {
		return nil, err
	}
	signer, err := mwpkg.LoadSigner(data, func() ([]byte, error) { return a.password(false) })
	if err != nil {
		return nil, fmt.Errorf("%s: %w", key, err)
	}
	return func(p *mwpkg.Package) (*mwpkg.Package, error) { return p.Sign(signer) }, nil
}

func (a *app) pkgVerifyCommand() *cobra.Command {
	var key, trust string
	cmd := &cobra.Command{
		Use:   "verify FILE... [--key FILE | --trust FILE]",
		Short: "Verify packages without a region",
		Long: `Verify that packages are well-formed, are called what they hold, and are signed by a key that is trusted now. With --key
one key is trusted for packages of every publisher; a trust file names several with publisher, window and revocation. Without either
the key of the CLI context is. Exit status 1 and a reason when one of them is refused.`,
		Example: `  maestro pkg verify myflow-0.1.0.mwpkg.tgz
  maestro pkg verify --key cosign.pub myflow-0.1.0.mwpkg.tgz
  maestro pkg verify --trust trust.yaml *.mwpkg.tgz -o json`,
		Args: cobra.MinimumNArgs(1),
	}
	cmd.Flags().StringVar(&key, "key", "", "public key file (default: that of the CLI context)")
	cmd.Flags().StringVar(&trust, "trust", "", "trust file")
	cmd.MarkFlagsMutuallyExclusive("key", "trust")
	cmd.RunE = a.action(func(_ context.Context, args []string) error {
		trusted, err := a.trusted(key, trust)
		if err != nil {
			return err
		}
		lines := []packageLine{}
		for _, path := range args {
			p, err := readPackage(path)
			if err != nil {
				return err
			}
			if err := p.CheckFilename(filepath.Base(path)); err != nil {
				return fmt.Errorf("%s: %w", path, err)
			}
			verdict, err := p.Verify(trusted, time.Now())
			if err != nil {
				return fmt.Errorf("%s: %w", path, err)
			}
			line := lineOf(path, p)
			line.SignedBy, line.Publisher = []string{verdict.Key.ID.String()}, verdict.Key.Publisher
			lines = append(lines, line)
		}
		return a.print(map[string]any{"verified": lines}, func(w io.Writer) { printLines(w, "VERIFIED", lines) })
	})
	return cmd
}

// trusted gives the keys that verify believes.
func (a *app) trusted(key, trust string) (*mwpkg.Trust, error) {
	if trust != "" {
		data, err := os.ReadFile(trust)
		if err != nil {
			return nil, err
		}
		t, err := mwpkg.ParseTrust(data)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", trust, err)
		}
		return t, nil
	}
	if key == "" {
		var err error
		if _, key, err = a.keyPair(""); err != nil {
			return nil, err
		}
	}
	data, err := readKeyFile(key, "public")
	if err != nil {
		return nil, err
	}
	k, err := mwpkg.NewKey(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", key, err)
	}
	k.Publisher = mwpkg.AnyPublisher
	return &mwpkg.Trust{Keys: []mwpkg.Key{k}}, nil
}

func (a *app) pkgShowCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "show FILE",
		Short: "Show what a package is, asks for and holds",
		Long: `Show a package: name, digest, who is said to have signed it, inputs, capabilities, steps and files. The package must be
well-formed; signatures are listed and not verified.`,
		Example: `  maestro pkg show myflow-0.1.0.mwpkg.tgz
  maestro pkg show myflow-0.1.0.mwpkg.tgz -o json`,
		Args: cobra.ExactArgs(1),
		RunE: a.action(func(_ context.Context, args []string) error {
			p, err := readPackage(args[0])
			if err != nil {
				return err
			}
			return a.print(view(args[0], p), func(w io.Writer) { showPackage(w, p) })
		}),
	}
}

// packageView is what show prints as JSON.
type packageView struct {
	packageLine
	Title        string                 `json:"title"`
	Description  string                 `json:"description,omitempty"`
	License      string                 `json:"license,omitempty"`
	Engine       string                 `json:"engine"`
	Inputs       map[string]mwpkg.Input `json:"inputs"`
	Capabilities map[string][]string    `json:"capabilities"`
	Steps        []string               `json:"steps"`
	Files        []fileView             `json:"files"`
}

type fileView struct {
	Path  string `json:"path"`
	Bytes int    `json:"bytes"`
}

func view(path string, p *mwpkg.Package) packageView {
	m := p.Manifest
	v := packageView{
		packageLine: lineOf(path, p), Title: m.Metadata.Title, Description: m.Metadata.Description, License: m.Metadata.License,
		Engine: m.Engine, Inputs: m.Inputs, Capabilities: capabilities(m),
	}
	for _, s := range m.Workflow.Steps {
		v.Steps = append(v.Steps, s.ID)
	}
	for _, f := range p.Files {
		v.Files = append(v.Files, fileView{f.Path, len(f.Data)})
	}
	return v
}

func capabilities(m *mwpkg.Manifest) map[string][]string {
	used := m.Used()
	return map[string][]string{"egress": used.Network.Egress, "secrets": used.Secrets, "commands": used.Commands}
}

func showPackage(w io.Writer, p *mwpkg.Package) {
	m := p.Manifest
	used := m.Used()
	row := func(name, text string) {
		if text != "" {
			fmt.Fprintf(w, "%s\t%s\n", name, text)
		}
	}
	row("package", m.Ref().String())
	row("title", m.Metadata.Title)
	row("digest", p.Digest.String())
	for _, s := range p.Signatures {
		row("signed by", s.KeyID.String()+" (not verified)")
	}
	row("engine", m.Engine)
	row("network", strings.Join(used.Network.Egress, " "))
	row("secrets", strings.Join(used.Secrets, " "))
	row("commands", strings.Join(used.Commands, " "))
	fmt.Fprintln(w, "\nINPUT\tTYPE\tDEFAULT\tWHAT")
	for _, name := range m.InputNames() {
		in := m.Inputs[name]
		byDefault := "-"
		if in.Required {
			byDefault = "required"
		} else if in.Default != nil {
			byDefault = fmt.Sprint(in.Default)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", name, in.Type, byDefault, in.Description)
	}
	fmt.Fprintln(w, "\nSTEP\tRUNS\tNEEDS")
	for _, s := range m.Workflow.Steps {
		fmt.Fprintf(w, "%s\t%s\t%s\n", s.ID, strings.Join(s.Run, " "), strings.Join(s.Needs, " "))
	}
	fmt.Fprintln(w, "\nFILE\tBYTES")
	for _, f := range p.Files {
		fmt.Fprintf(w, "%s\t%d\n", f.Path, len(f.Data))
	}
}
