package certs

import (
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Remedies of certificates that are refused.
const (
	remedyExpired = "make another with maestro certs create, in the folder with the region's ca.key, from which the old files were moved away, " +
		"and start the node again with it; if it is good by the calendar, set this machine's clock right (NTP)"
	remedyOtherCA = "it comes from another CA than the one in tls.ca: all certificates of a region come from one, and maestro certs create " +
		"uses the ca.key that is in its folder"
)

// ErrRefused marks certificates that one side of a connection does not accept.
var ErrRefused = errors.New("certificate refused")

// Explain adds to an error of a TLS handshake, or of a certificate's verification, what to do about it.
// whose says whose certificate this side was looking at; the other side's complaint is about our own.
func Explain(err error, whose string) error {
	if err == nil {
		return nil
	}
	var invalid x509.CertificateInvalidError
	var unknown x509.UnknownAuthorityError
	switch {
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return fmt.Errorf("%w: that of %s is outside its validity: %w; %s", ErrRefused, whose, err, remedyExpired)
	case errors.As(err, &unknown):
		return fmt.Errorf("%w: that of %s is not trusted: %w; %s", ErrRefused, whose, err, remedyOtherCA)
	// The library has no types for what the other side complains of.
	case strings.HasSuffix(err.Error(), "remote error: tls: expired certificate"):
		return fmt.Errorf("%w: %s says that this node's is outside its validity: %w; %s", ErrRefused, whose, err, remedyExpired)
	case strings.HasSuffix(err.Error(), "remote error: tls: unknown certificate authority"):
		return fmt.Errorf("%w: %s does not trust this node's: %w; %s", ErrRefused, whose, err, remedyOtherCA)
	}
	return err
}

// expiresSoon is how long before its end a certificate is worth a warning.
const expiresSoon = 30 * 24 * time.Hour

// Warning says that a certificate will soon end, or has ended; empty when it is good for long.
func Warning(cert *x509.Certificate, now time.Time) string {
	left := cert.NotAfter.Sub(now)
	if left > expiresSoon {
		return ""
	}
	return fmt.Sprintf("the node's certificate ends at %s: before that, %s", cert.NotAfter.UTC().Format(time.RFC3339), remedyExpired)
}
