package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/maestro-conductor/maestro/internal/client"
	"github.com/maestro-conductor/maestro/pkgstore/mwpkg"
)

func (a *app) pkgCommand() *cobra.Command {
	cmd := a.group(&cobra.Command{
		Use:   "pkg",
		Short: "Make, sign, run, publish and install packages of workflows",
		Long: `Make, sign, run, publish and install packages of workflows. A package is one file, NAME-VERSION.mwpkg.tgz, with manifest,
README, examples, the workflow's files and signatures. init, build, keygen, sign, verify, test and run need no region.`,
		Example: `  maestro pkg init myflow && cd myflow
  maestro pkg build
  maestro pkg keygen --out ../k
  maestro pkg sign --key ../k.key myflow-0.1.0.mwpkg.tgz
  maestro pkg verify --key ../k.pub myflow-0.1.0.mwpkg.tgz
  maestro pkg keys add ../k.pub --publisher '' --tenant acme
  maestro pkg publish myflow-0.1.0.mwpkg.tgz --tenant acme
  maestro pkg install myflow@0.1.0 --tenant acme`,
	})
	cmd.AddCommand(a.pkgInitCommand(), a.pkgBuildCommand(), a.pkgKeygenCommand(), a.pkgSignCommand(), a.pkgVerifyCommand(), a.pkgShowCommand(), a.pkgTestCommand(), a.pkgRunCommand())
	cmd.AddCommand(a.catalogCommands()...)
	return cmd
}

func (a *app) pkgInitCommand() *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use:   "init [PUBLISHER/]NAME",
		Short: "Write a new package that builds, to be changed",
		Long: `Write the files of a new package into a folder of its name: a workflow of one step with manifest, README and
an example. It builds and can be signed as it is. A folder in which there is anything is left alone.`,
		Example: `  maestro pkg init myflow
  maestro pkg init acme/restore-drill --dir .`,
		Args: cobra.ExactArgs(1),
	}
	cmd.Flags().StringVar(&dir, "dir", "", "folder to write into (default: the name without publisher)")
	cmd.RunE = a.action(func(_ context.Context, args []string) error {
		files, err := mwpkg.Scaffold(args[0])
		if err != nil {
			return usageError{err}
		}
		if dir == "" {
			dir = filepath.Base(args[0])
		}
		if err := writeNew(dir, files); err != nil {
			return err
		}
		paths := make([]string, len(files))
		for i, f := range files {
			paths[i] = filepath.Join(dir, f.Path)
		}
		return a.print(map[string]any{"name": args[0], "files": paths}, func(w io.Writer) {
			for _, path := range paths {
				fmt.Fprintln(w, path)
			}
		})
	})
	return cmd
}

// writeNew writes files into a folder that is new or empty.
func writeNew(dir string, files []mwpkg.File) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	if len(entries) > 0 {
		return hinted{fmt.Errorf("%s is not empty: it has %s", dir, entries[0].Name()), "give a new folder with --dir"}
	}
	return mwpkg.WriteTo(root, files)
}

func (a *app) pkgBuildCommand() *cobra.Command {
	var to string
	cmd := &cobra.Command{
		Use:   "build [FOLDER]",
		Short: "Build the package of a folder, the same bytes each time",
		Long: `Build NAME-VERSION.mwpkg.tgz of a folder, by default this one, without signatures. Everything in the folder
becomes part of it, except what begins with a dot, packages, and a folder signatures. The manifest is checked as publishing
would. The same files give the same bytes on every machine. A package of that name is replaced, and its signatures with it.`,
		Example: `  maestro pkg build
  maestro pkg build myflow --to dist`,
		Args: cobra.MaximumNArgs(1),
	}
	cmd.Flags().StringVar(&to, "to", ".", "folder to write the package into")
	cmd.RunE = a.action(func(_ context.Context, args []string) error {
		dir := "."
		if len(args) > 0 {
			dir = args[0]
		}
		root, err := os.OpenRoot(dir)
		if err != nil {
			return err
		}
		defer root.Close()
		p, err := mwpkg.Build(root.FS())
		if err != nil {
			return err
		}
		path := filepath.Join(to, p.Manifest.Ref().Filename())
		if err := writePackage(path, p); err != nil {
			return err
		}
		return a.print(lineOf(path, p), func(w io.Writer) {
			fmt.Fprintf(w, "file\t%s\npackage\t%s\ndigest\t%s\n", path, p.Manifest.Ref(), p.Digest)
		})
	})
	return cmd
}

// writePackage replaces the file at path as a whole.
func writePackage(path string, p *mwpkg.Package) error {
	data, err := p.Bytes()
	if err != nil {
		return err
	}
	if err := client.WriteFile(path, data); err != nil {
		return err
	}
	return os.Chmod(path, 0o644)
}

// readPackage opens a package file.
func readPackage(path string) (*mwpkg.Package, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	p, err := mwpkg.Read(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return p, nil
}

// packageLine is what build, sign and verify print of a package.
type packageLine struct {
	File      string   `json:"file"`
	Name      string   `json:"name"`
	Version   string   `json:"version"`
	Digest    string   `json:"digest"`
	SignedBy  []string `json:"signedBy"`
	Publisher string   `json:"publisher,omitempty"`
}

func lineOf(path string, p *mwpkg.Package) packageLine {
	line := packageLine{File: path, Name: p.Manifest.Metadata.Name, Version: p.Manifest.Metadata.Version, Digest: p.Digest.String(), SignedBy: []string{}}
	for _, s := range p.Signatures {
		line.SignedBy = append(line.SignedBy, s.KeyID.String())
	}
	return line
}

func printLines(w io.Writer, title string, lines []packageLine) {
	fmt.Fprintf(w, "%s\tDIGEST\tKEY\n", title)
	for _, l := range lines {
		fmt.Fprintf(w, "%s@%s\t%s\t%s\n", l.Name, l.Version, l.Digest, l.SignedBy[0])
	}
}

// packageHint is the advice of a refusal, and all problems when there are several.
func packageHint(err error) string {
	var e *mwpkg.Error
	if !errors.As(err, &e) {
		return ""
	}
	if len(e.Problems) < 2 {
		return e.Hint
	}
	text := "all that is wrong:"
	for _, p := range e.Problems {
		text += fmt.Sprintf("\n  %s: %s (%s)", p.Subject, p.Detail, p.Code)
	}
	return text
}
