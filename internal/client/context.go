package client

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/maestro-conductor/maestro/internal/strictyaml"
)

// ErrContext marks a CLI context that cannot be used.
var ErrContext = errors.New("client: context")

// Context is the region and identity that a user's commands use unless flags say otherwise.
// It is the file context.yaml in the configuration folder.
type Context struct {
	// Endpoints are as in Options.
	Endpoints []string `yaml:"endpoints"`
	// CA and TokenFile are paths, as PackageKey is; relative ones start at the folder of the context's file.
	CA        string `yaml:"ca,omitempty"`
	TokenFile string `yaml:"token_file,omitempty"`
	// Token is the token itself, for those who keep the whole file secret.
	Token string `yaml:"token,omitempty"`
	// Tenant is the tenant of commands that name none.
	Tenant string `yaml:"tenant,omitempty"`
	// PackageKey is the key pair that signs packages, and whose packages are trusted, when no other is named: PackageKey.key
	// and PackageKey.pub. Empty means package in the configuration folder.
	PackageKey string `yaml:"package_key,omitempty"`
}

// ConfigDir is the configuration folder: dir if given, else MAESTRO_CONFIG_DIR, else maestro
// in the user's own configuration folder.
func ConfigDir(dir string) (string, error) {
	if dir != "" {
		return dir, nil
	}
	if dir = os.Getenv("MAESTRO_CONFIG_DIR"); dir != "" {
		return dir, nil
	}
	dir, err := os.UserConfigDir()
	if err != nil {
		return "", fmt.Errorf("%w: %w; give --config-dir or MAESTRO_CONFIG_DIR", ErrContext, err)
	}
	return filepath.Join(dir, "maestro"), nil
}

// ContextPath is the context's file in a configuration folder.
func ContextPath(dir string) string { return filepath.Join(dir, "context.yaml") }

// LoadContext reads the context in dir. A folder without one gives the empty context.
func LoadContext(dir string) (Context, error) {
	path := ContextPath(dir)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Context{}, nil
	}
	if err != nil {
		return Context{}, fmt.Errorf("%w: %w", ErrContext, err)
	}
	var c Context
	if problems := strictyaml.Decode(data, &c); len(problems) > 0 {
		return Context{}, fmt.Errorf("%w: %s: %s", ErrContext, path, strings.Join(problems, "; "))
	}
	if c.Token != "" && c.TokenFile != "" {
		return Context{}, fmt.Errorf("%w: %s gives both token and token_file; keep one", ErrContext, path)
	}
	for _, p := range []*string{&c.CA, &c.TokenFile, &c.PackageKey} {
		if *p != "" && !filepath.IsAbs(*p) {
			*p = filepath.Join(dir, *p)
		}
	}
	return c, nil
}

// Save writes the context into dir, readable by its owner only, replacing an older one as a
// whole.
func (c Context) Save(dir string) error {
	data, err := yaml.Marshal(c)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrContext, err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("%w: %w", ErrContext, err)
	}
	return WriteFile(ContextPath(dir), data)
}

// ReadToken returns the context's token, from its file if it names one.
func (c Context) ReadToken() (string, error) {
	if c.TokenFile == "" {
		return c.Token, nil
	}
	data, err := os.ReadFile(c.TokenFile)
	if err != nil {
		return "", fmt.Errorf("%w: token file: %w", ErrContext, err)
	}
	token := strings.TrimSpace(string(data))
	if token == "" {
		return "", fmt.Errorf("%w: token file %s is empty", ErrContext, c.TokenFile)
	}
	return token, nil
}

// WriteFile replaces the file at path as a whole, with mode 0600: a reader sees the old
// content or the new, never a part.
func WriteFile(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}
