package mwpkg

import (
	"errors"
	"io"
	"io/fs"
	"time"

	"github.com/sigstore/sigstore/pkg/signature"
)

// Package is a package whose form is checked. It is not changed once made: signing gives
// another one with the same content.
type Package struct {
	Manifest *Manifest
	// Files are all files outside the folder signatures, by path. Data must not be changed.
	Files []File
	// Digest is the SHA-256 of SHA256SUMS: the identity of the content.
	Digest Digest
	// Signatures has at most one of each key; the first is the primary one, which cosign.sig
	// holds, the others stand by key id. None means that the package is not signed.
	Signatures []Signature
	// Examples are those that the manifest names, in its order.
	Examples []Example
	sums     []byte
}

// File is one file of a package.
type File struct {
	Path string
	Data []byte
}

var errTODO = errors.New("mwpkg: not written yet")

// Open reads a package. It refuses whatever is not written exactly as Bytes writes it; an error is an
// *Error. Data must not be changed afterwards.
func Open(data []byte) (*Package, error) { return nil, errTODO }

// Read is Open for a stream, of which it reads MaxPackage bytes at most.
func Read(r io.Reader) (*Package, error) { return nil, errTODO }

// Build makes a package, without signatures, of a folder: every file in it but those in signatures and
// those whose name begins with a dot.
func Build(fsys fs.FS) (*Package, error) { return nil, errTODO }

// Sums are the bytes of SHA256SUMS, which signatures sign.
func (p *Package) Sums() []byte { return p.sums }

// Bytes is the package as an archive: the same bytes for the same content and signatures.
func (p *Package) Bytes() ([]byte, error) { return nil, errTODO }

// Sign signs the package and gives it with the new signature as the primary one.
func (p *Package) Sign(signer signature.Signer) (*Package, error) { return nil, errTODO }

// WithSignature gives the package with s as its primary signature, beside the others. One
// of the same key is replaced.
func (p *Package) WithSignature(s Signature) (*Package, error) { return nil, errTODO }

// Verify says whether a key of trust has signed the package, for the moment at: when the
// signatures were there by a clock that is trusted. Offline that is now; a catalog has recorded it.
// One valid signature is enough. Without one the error is the *Error of the most telling signature.
func (p *Package) Verify(trust *Trust, at time.Time) (Verdict, error) { return Verdict{}, errTODO }

// Check judges one signature by itself: whether it is of sums, for the package called name, by a
// key of trust that was good at that moment. A catalog that knows since when it has each signature
// asks for each with its own moment.
func (t *Trust) Check(name string, sums []byte, s Signature, at time.Time) (Key, error) {
	return Key{}, errTODO
}

// CheckFilename refuses a file name, without its folder, that is not the one of this package.
func (p *Package) CheckFilename(base string) error { return errTODO }

// ParseManifest reads manifest.yaml and checks it, without the files it names.
func ParseManifest(data []byte) (*Manifest, error) { return nil, errTODO }

// Resolve checks values for the inputs of a run and gives them with the defaults of those that
// are absent. Numbers may be any Go number; integers come back as int64, numbers as float64.
func (m *Manifest) Resolve(values map[string]any) (map[string]any, error) { return nil, errTODO }

// NewKey is the key of a public key: ID and Public are set.
func NewKey(pemPublic []byte) (Key, error) { return Key{}, errTODO }

// ParseTrust reads a trust file; see docs/packages.md.
func ParseTrust(data []byte) (*Trust, error) { return nil, errTODO }

// GenerateKey makes a key pair: a private key file as cosign writes it, encrypted with the
// password, which may be empty, and the public key as PEM.
func GenerateKey(password []byte) (private, public []byte, err error) { return nil, nil, errTODO }

// LoadSigner opens a private key file of cosign, or an unencrypted PEM of PKCS #8 or SEC 1. The password is
// asked for only when the file is encrypted.
func LoadSigner(pemPrivate []byte, password func() ([]byte, error)) (signature.Signer, error) {
	return nil, errTODO
}
