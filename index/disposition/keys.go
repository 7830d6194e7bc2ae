package disposition

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// KeyName and PublicKeyName are the files of a region's key beside its certificate authority.
const (
	KeyName       = "disposition.key"
	PublicKeyName = "disposition.pub"
)

// ErrExists: the folder has a key already; another one would make records that the first does not verify.
var ErrExists = errors.New("disposition: the key exists already")

// Create makes a key in a folder: the private one with mode 0600, and the public one for auditors.
func Create(dir string) error {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return fmt.Errorf("disposition: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return fmt.Errorf("disposition: %w", err)
	}
	if err := write(filepath.Join(dir, KeyName), "PRIVATE KEY", der, 0o600); err != nil {
		return err
	}
	if der, err = x509.MarshalPKIXPublicKey(public); err != nil {
		return fmt.Errorf("disposition: %w", err)
	}
	return write(filepath.Join(dir, PublicKeyName), "PUBLIC KEY", der, 0o644)
}

// Exists tells whether a folder has a key.
func Exists(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, KeyName))
	return err == nil
}

func write(path, kind string, der []byte, mode fs.FileMode) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%w: %s", ErrExists, path)
	}
	if err != nil {
		return fmt.Errorf("disposition: %w", err)
	}
	err = errors.Join(pem.Encode(f, &pem.Block{Type: kind, Bytes: der}), f.Sync(), f.Close())
	if err != nil {
		return fmt.Errorf("disposition: write %s: %w", path, err)
	}
	return nil
}

// LoadKey reads a private key.
func LoadKey(path string) (ed25519.PrivateKey, error) {
	b, err := os.ReadFile(filepath.Clean(path))
	if err != nil {
		return nil, fmt.Errorf("disposition: %w", err)
	}
	block, _ := pem.Decode(b)
	if block == nil {
		return nil, fmt.Errorf("disposition: %s holds no PEM; make a key with maestro certs create", path)
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("disposition: %s: %w", path, err)
	}
	private, ok := key.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("disposition: %s is not an Ed25519 key", path)
	}
	return private, nil
}

// ParsePublicKeys reads one or more public keys: a key of earlier years verifies what it has signed.
func ParsePublicKeys(b []byte) (keys []ed25519.PublicKey, err error) {
	for block, rest := pem.Decode(b); block != nil; block, rest = pem.Decode(rest) {
		key, err := x509.ParsePKIXPublicKey(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("disposition: %w", err)
		}
		public, ok := key.(ed25519.PublicKey)
		if !ok {
			return nil, errors.New("disposition: a key is not an Ed25519 public key")
		}
		keys = append(keys, public)
	}
	if len(keys) == 0 {
		return nil, errors.New("disposition: no public key in PEM; take disposition.pub of the region")
	}
	return keys, nil
}
