package mwpkg

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/pem"
	"slices"
	"strings"

	"github.com/sigstore/sigstore/pkg/cryptoutils"
	"github.com/sigstore/sigstore/pkg/signature"
)

// maxKeyFile bounds a file with a key, in bytes.
const maxKeyFile = 16 << 10

// privateTypes are the PEM types of private keys that are read.
var privateTypes = []string{
	string(cryptoutils.EncryptedSigstorePrivateKeyPEMType), "ENCRYPTED COSIGN PRIVATE KEY",
	string(cryptoutils.PrivateKeyPEMType), string(cryptoutils.ECPrivateKeyPEMType),
}

// NewKey is the key of a public key file, PEM of a SubjectPublicKeyInfo: ID and Public are set. The zero
// Publisher lets it sign names without a publisher only.
func NewKey(pemPublic []byte) (Key, error) {
	if len(pemPublic) > maxKeyFile {
		return Key{}, refuse(CodeKey, "", "the key file has %d bytes; at most %d are read", len(pemPublic), maxKeyFile)
	}
	b, rest := pem.Decode(pemPublic)
	switch {
	case b == nil || len(bytes.TrimSpace(rest)) > 0:
		return Key{}, refuse(CodeKey, "", "the file is not one public key in PEM").hint("maestro pkg keygen writes k.pub beside k.key")
	case b.Type != string(cryptoutils.PublicKeyPEMType):
		return Key{}, refuse(CodeKey, "", "the file holds %s and not a public key", quoted(b.Type)).hint("maestro pkg keygen writes k.pub beside k.key")
	}
	public, err := x509.ParsePKIXPublicKey(b.Bytes)
	if err != nil {
		return Key{}, refuse(CodeKey, "", "the public key cannot be read: %v", err)
	}
	return newKey(public)
}

func newKey(public crypto.PublicKey) (Key, error) {
	ec, ok := public.(*ecdsa.PublicKey)
	if !ok || ec.Curve != elliptic.P256() {
		return Key{}, refuse(CodeKey, "", "the key is not one of ECDSA on P-256, the only kind that signs packages").
			hint("maestro pkg keygen and cosign generate-key-pair make such keys")
	}
	der, err := x509.MarshalPKIXPublicKey(ec)
	if err != nil {
		return Key{}, refuse(CodeKey, "", "the public key cannot be written: %v", err)
	}
	return Key{ID: digestOf(der), Public: ec}, nil
}

// PEM is the public key file of k.
func (k *Key) PEM() ([]byte, error) {
	out, err := cryptoutils.MarshalPublicKeyToPEM(k.Public)
	if err != nil {
		return nil, refuse(CodeKey, k.ID.String(), "the public key cannot be written: %v", err)
	}
	return out, nil
}

// GenerateKey makes a key pair: a private key file as cosign writes it, encrypted with the
// password, which may be empty, and the public key as PEM.
func GenerateKey(password []byte) (private, public []byte, err error) {
	private, public, err = cryptoutils.GeneratePEMEncodedECDSAKeyPair(elliptic.P256(), func(bool) ([]byte, error) {
		return given(password), nil
	})
	if err != nil {
		return nil, nil, refuse(CodeKey, "", "no key could be made: %v", err)
	}
	return private, public, nil
}

// LoadSigner opens a private key file of cosign, or an unencrypted PEM of PKCS #8 or SEC 1. The
// password is asked for only when the file is encrypted; an error of it is returned as it is.
func LoadSigner(pemPrivate []byte, password func() ([]byte, error)) (signature.Signer, error) {
	if len(pemPrivate) > maxKeyFile {
		return nil, refuse(CodeKey, "", "the key file has %d bytes; at most %d are read", len(pemPrivate), maxKeyFile)
	}
	// Other encrypted files let whoever wrote them choose how long their password takes to check.
	b, rest := pem.Decode(pemPrivate)
	if b == nil || len(bytes.TrimSpace(rest)) > 0 || len(b.Headers) > 0 || !slices.Contains(privateTypes, b.Type) {
		return nil, refuse(CodeKey, "", "the file is not one private key as cosign writes it, nor one of PKCS #8 or SEC 1 without a password").
			hint("maestro pkg keygen and cosign generate-key-pair make such keys; cosign import-key-pair converts others")
	}
	var asked error
	private, err := cryptoutils.UnmarshalPEMToPrivateKey(pemPrivate, func(bool) ([]byte, error) {
		var word []byte
		word, asked = password()
		return given(word), asked
	})
	switch {
	case asked != nil:
		return nil, asked
	case err != nil && strings.Contains(err.Error(), "decryption failed"):
		return nil, refuse(CodeKeyPassword, "", "the password does not open the private key")
	case err != nil:
		return nil, refuse(CodeKey, "", "the private key cannot be read: %v", err).hint("maestro pkg keygen makes one")
	}
	ec, ok := private.(*ecdsa.PrivateKey)
	if !ok {
		return nil, refuse(CodeKey, "", "the private key is not one of ECDSA on P-256")
	}
	if _, err := newKey(ec.Public()); err != nil {
		return nil, err
	}
	signer, err := signature.LoadSigner(ec, crypto.SHA256)
	if err != nil {
		return nil, refuse(CodeKey, "", "the private key cannot be used: %v", err)
	}
	return signer, nil
}

// given is a password that is there even when it is empty: key files with an empty password are
// encrypted like others, and without one the library would take the ciphertext for a key.
func given(password []byte) []byte {
	if password == nil {
		return []byte{}
	}
	return password
}
