// Package certs is a region's certificate authority: ECDSA P-256 certificates for nodes and
// administrators, kept as PEM files in one folder.
//
//	ca.pem, ca.key          the authority; whoever has the key can join and administer
//	NAME.pem, NAME.key      a node: URI maestro://node/NAME, its hosts, server and client use
//	admin.pem, admin.key    an administrator: URI maestro://admin, client use only
//
// Keys are written with mode 0600. Nothing that exists is ever overwritten.
package certs

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// Validity of certificates. There is no renewal protocol: a node's certificate is replaced by
// issuing a new one, so it lives long enough to be a planned act.
const (
	caValidity   = 10 * 365 * 24 * time.Hour
	leafValidity = 2 * 365 * 24 * time.Hour
	// clockSlack is how far the clock of a machine that verifies may be behind.
	clockSlack = time.Hour
)

var (
	// ErrExists: a file that would be written is there already.
	ErrExists = errors.New("certs: already exists")
	// ErrNoCA: the folder holds no usable certificate authority.
	ErrNoCA = errors.New("certs: no certificate authority")
	// ErrName: a name or host cannot stand in a certificate.
	ErrName = errors.New("certs: bad name")
)

// Paths are a certificate's files.
type Paths struct{ Cert, Key string }

// CAPath is the CA certificate's file in dir.
func CAPath(dir string) string { return filepath.Join(dir, "ca.pem") }

// NodePaths are the files of a node's certificate in dir.
func NodePaths(dir, name string) Paths { return paths(dir, name) }

// AdminPaths are the files of the administrator's certificate in dir.
func AdminPaths(dir string) Paths { return paths(dir, "admin") }

func paths(dir, base string) Paths {
	return Paths{Cert: filepath.Join(dir, base+".pem"), Key: filepath.Join(dir, base+".key")}
}

// Exists says whether both files are there.
func (p Paths) Exists() bool {
	for _, f := range []string{p.Cert, p.Key} {
		if _, err := os.Stat(f); err != nil {
			return false
		}
	}
	return true
}

// CreateCA makes a certificate authority in dir, which is created if needed. It fails with
// ErrExists when dir holds one already: replacing it would lock every node out.
func CreateCA(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("certs: create %s: %w", dir, err)
	}
	key, template, err := prepare(pkix.Name{CommonName: "maestro CA"}, caValidity)
	if err != nil {
		return err
	}
	template.IsCA = true
	template.BasicConstraintsValid = true
	template.MaxPathLenZero = true
	template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return fmt.Errorf("certs: sign the CA: %w", err)
	}
	return write(paths(dir, "ca"), der, key)
}

// IssueNode makes the certificate of the node with this name, valid for hosts (DNS names and
// IP addresses), signed by the authority in dir.
func IssueNode(dir, name string, hosts []string) error {
	switch {
	case !ValidName(name):
		return fmt.Errorf("%w: node %q; use 1 to 63 lower-case letters, digits and inner hyphens", ErrName, name)
	case name == "ca" || name == "admin":
		return fmt.Errorf("%w: node %q; its files would be those of the CA or the administrator", ErrName, name)
	case len(hosts) == 0:
		return fmt.Errorf("%w: node %s has no host; callers verify the host they dial", ErrName, name)
	}
	return issue(dir, name, NodeURI(name), hosts, x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth)
}

// IssueAdmin makes the administrator's certificate, signed by the authority in dir.
func IssueAdmin(dir string) error {
	return issue(dir, "admin", AdminURI, nil, x509.ExtKeyUsageClientAuth)
}

func issue(dir, base, uri string, hosts []string, usage ...x509.ExtKeyUsage) error {
	ca, caKey, err := loadCA(dir)
	if err != nil {
		return err
	}
	key, template, err := prepare(pkix.Name{CommonName: base}, leafValidity)
	if err != nil {
		return err
	}
	if template.NotAfter.After(ca.NotAfter) {
		template.NotAfter = ca.NotAfter
	}
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.ExtKeyUsage = usage
	template.URIs = append(template.URIs, mustURI(uri))
	if err := addHosts(template, hosts); err != nil {
		return err
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca, &key.PublicKey, caKey)
	if err != nil {
		return fmt.Errorf("certs: sign %s: %w", base, err)
	}
	return write(paths(dir, base), der, key)
}

var validHost = regexp.MustCompile(`^[a-zA-Z0-9_]([a-zA-Z0-9_-]*[a-zA-Z0-9_])?(\.[a-zA-Z0-9_]([a-zA-Z0-9_-]*[a-zA-Z0-9_])?)*$`)

func addHosts(template *x509.Certificate, hosts []string) error {
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
			continue
		}
		if len(h) > 253 || !validHost.MatchString(h) {
			return fmt.Errorf("%w: host %q; give DNS names or IP addresses, without a port", ErrName, h)
		}
		template.DNSNames = append(template.DNSNames, strings.ToLower(h))
	}
	return nil
}

func prepare(subject pkix.Name, validity time.Duration) (*ecdsa.PrivateKey, *x509.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("certs: make a key: %w", err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, nil, fmt.Errorf("certs: make a serial number: %w", err)
	}
	now := time.Now()
	return key, &x509.Certificate{
		SerialNumber: serial,
		Subject:      subject,
		NotBefore:    now.Add(-clockSlack),
		NotAfter:     now.Add(validity),
	}, nil
}

func loadCA(dir string) (*x509.Certificate, *ecdsa.PrivateKey, error) {
	p := paths(dir, "ca")
	certDER, err := readPEM(p.Cert, "CERTIFICATE")
	if err != nil {
		return nil, nil, err
	}
	keyDER, err := readPEM(p.Key, "PRIVATE KEY")
	if err != nil {
		return nil, nil, err
	}
	cert, err := x509.ParseCertificate(certDER)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %s: %w", ErrNoCA, p.Cert, err)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(keyDER)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %s: %w", ErrNoCA, p.Key, err)
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok || !key.PublicKey.Equal(cert.PublicKey) {
		return nil, nil, fmt.Errorf("%w: %s does not hold the key of %s", ErrNoCA, p.Key, p.Cert)
	}
	return cert, key, nil
}

func readPEM(path, kind string) ([]byte, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoCA, err)
	}
	block, _ := pem.Decode(data)
	if block == nil || block.Type != kind {
		return nil, fmt.Errorf("%w: %s holds no PEM block %q", ErrNoCA, path, kind)
	}
	return block.Bytes, nil
}

// write stores the key first: a certificate without its key is of no use, and a key alone
// can be told apart.
func write(p Paths, der []byte, key *ecdsa.PrivateKey) error {
	for _, f := range []string{p.Cert, p.Key} {
		if _, err := os.Lstat(f); err == nil {
			return fmt.Errorf("%w: %s; choose another folder or keep using it", ErrExists, f)
		} else if !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("certs: %w", err)
		}
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fmt.Errorf("certs: encode a key: %w", err)
	}
	if err := writePEM(p.Key, "PRIVATE KEY", keyDER, 0o600); err != nil {
		return err
	}
	if err := writePEM(p.Cert, "CERTIFICATE", der, 0o644); err != nil {
		_ = os.Remove(p.Key)
		return err
	}
	return nil
}

func writePEM(path, kind string, der []byte, mode os.FileMode) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		if errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("%w: %s", ErrExists, path)
		}
		return fmt.Errorf("certs: %w", err)
	}
	err = pem.Encode(f, &pem.Block{Type: kind, Bytes: der})
	err = errors.Join(err, f.Sync(), f.Close())
	if err != nil {
		_ = os.Remove(path)
		return fmt.Errorf("certs: write %s: %w", path, err)
	}
	return nil
}
