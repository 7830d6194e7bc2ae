package certs

import (
	"crypto/x509"
	"net/url"
	"regexp"
	"strings"
)

const (
	nodeURIPrefix = "maestro://node/"
	// AdminURI is the URI in an administrator's certificate.
	AdminURI = "maestro://admin"
)

var validName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// ValidName says whether a node or region may have this name: 1 to 63 lower-case letters,
// digits and inner hyphens, so that it can stand in host names, URIs and file names.
func ValidName(name string) bool { return validName.MatchString(name) }

// NodeURI is the URI in the certificate of the node with this name.
func NodeURI(name string) string { return nodeURIPrefix + name }

// NodeName returns the name of the node that a certificate was issued to, and false when it
// was not issued to a node. The caller has verified the certificate.
func NodeName(cert *x509.Certificate) (string, bool) {
	for _, u := range cert.URIs {
		if name, ok := strings.CutPrefix(u.String(), nodeURIPrefix); ok && ValidName(name) {
			return name, true
		}
	}
	return "", false
}

// IsAdmin says whether a certificate was issued to an administrator. The caller has verified
// the certificate.
func IsAdmin(cert *x509.Certificate) bool {
	for _, u := range cert.URIs {
		if u.String() == AdminURI {
			return true
		}
	}
	return false
}

func mustURI(s string) *url.URL {
	u, err := url.Parse(s)
	if err != nil {
		panic("certs: " + err.Error()) // names are checked before they become URIs
	}
	return u
}
