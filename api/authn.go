package api

import (
	"context"
	"net/http"
	"strings"
	"time"

	"github.com/maestro-conductor/maestro/internal/certs"
)

const (
	// TokenPrefix begins every API token, so that scanners find one that leaked.
	TokenPrefix = "mct_"
)

// credentials are what a request shows to be identified by. They are looked up anew whenever
// it matters: no answer is kept, so a revocation takes effect with the next request, and with
// the next message of a stream, once this node has heard of it.
type credentials struct {
	secret string
	admin  *adminCertificate
}

type adminCertificate struct {
	id       string
	notAfter time.Time
}

// credentialsOf reads the Authorization header or, without one, the client certificate that
// the TLS handshake verified.
func credentialsOf(r *http.Request) (credentials, *fault) {
	if values := r.Header["Authorization"]; len(values) > 0 {
		secret, ok := bearer(values)
		if !ok {
			return credentials{}, refuse(reasonTokenMalformed, "")
		}
		return credentials{secret: secret}, nil
	}
	if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 || len(r.TLS.VerifiedChains[0]) == 0 {
		return credentials{}, refuse(reasonCredentialsMissing, "")
	}
	leaf := r.TLS.VerifiedChains[0][0]
	if certs.IsAdmin(leaf) {
		return credentials{admin: &adminCertificate{
			id: "certificate:" + leaf.SerialNumber.Text(16), notAfter: leaf.NotAfter,
		}}, nil
	}
	return credentials{}, refuse(reasonCredentialsMissing, "the client certificate is not an administrator's and there is no API token")
}

func bearer(values []string) (string, bool) {
	if len(values) != 1 {
		return "", false
	}
	scheme, secret, _ := strings.Cut(values[0], " ")
	ok := strings.EqualFold(scheme, "bearer") && strings.HasPrefix(secret, TokenPrefix) && len(secret) <= maxSecretBytes
	return secret, ok
}

// identify finds the principal behind c.
func (s *server) identify(ctx context.Context, c credentials) (Principal, error) {
	if c.admin != nil {
		// The handshake checked the validity once; connections can be long.
		if s.now().After(c.admin.notAfter) {
			return Principal{}, refuse(reasonCertificateExpired, "")
		}
		return Principal{ID: c.admin.id, Tenant: AllTenants, Role: RoleAdmin}, nil
	}
	if s.deps.Authenticator == nil {
		return Principal{}, ErrServiceOff
	}
	return s.deps.Authenticator.Authenticate(ctx, c.secret)
}
