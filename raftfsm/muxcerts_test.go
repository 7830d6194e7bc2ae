package raftfsm_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/maestro-conductor/maestro/internal/certs"
	"github.com/maestro-conductor/maestro/raftfsm"
	"github.com/maestro-conductor/maestro/raftfsm/hosttest"
)

// reissued is a node's configuration with a certificate of the same CA whose validity is another one.
func reissued(t *testing.T, dir, name string, from, until time.Time) *tls.Config {
	t.Helper()
	conf := hosttest.TLS(t, dir, name)
	ca, err := tls.LoadX509KeyPair(certs.CAPath(dir), strings.TrimSuffix(certs.CAPath(dir), ".pem")+".key")
	if err != nil {
		t.Fatal(err)
	}
	id, err := url.Parse(certs.NodeURI(name))
	if err != nil {
		t.Fatal(err)
	}
	template := *conf.Certificates[0].Leaf
	template.NotBefore, template.NotAfter, template.URIs = from, until, []*url.URL{id}
	key := conf.Certificates[0].PrivateKey.(*ecdsa.PrivateKey)
	der, err := x509.CreateCertificate(rand.Reader, &template, ca.Leaf, &key.PublicKey, ca.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	conf.Certificates = []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}}
	return conf
}

// Certificates that are expired, not yet good, or of another region's CA are refused on both sides, and
// whoever dials is told whose it is, why, and what to do.
func TestCertificatesAreRefusedWithARemedy(t *testing.T) {
	ours := raftfsm.ClusterID{1}
	dir, foreign := authority(t, "a", "b"), authority(t, "a", "b")
	_, good := port(t, dir, "a", ours, "a", "b")
	now := time.Now()
	serve := func(conf *tls.Config) (*raftfsm.Mux, string) {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		m := raftfsm.NewMux(ln, conf, quiet)
		t.Cleanup(func() {
			if err := m.Close(); err != nil {
				t.Error(err)
			}
		})
		return m, ln.Addr().String()
	}
	expired, expiredAt := serve(reissued(t, dir, "b", now.Add(-2*time.Hour), now.Add(-time.Hour)))
	early, _ := serve(reissued(t, dir, "b", now.Add(time.Hour), now.Add(2*time.Hour)))
	other, otherAt := serve(hosttest.TLS(t, foreign, "b"))
	fine, _ := serve(hosttest.TLS(t, dir, "b"))
	for name, c := range map[string]struct {
		from   *raftfsm.Mux
		to, at string
		want   []string
	}{
		"an expired one dials":        {expired, "a", good, []string{`node "a" says that this node's is outside its validity`, "certs create", "NTP"}},
		"one of the future dials":     {early, "a", good, []string{`node "a" says that this node's is outside its validity`, "certs create", "NTP"}},
		"an expired one is dialed":    {fine, "b", expiredAt, []string{`that of node "b" is outside its validity`, "certs create", "NTP"}},
		"one of another CA dials":     {other, "a", good, []string{`node "a"`, "another CA", "tls.ca"}},
		"one of another CA is dialed": {fine, "b", otherAt, []string{`that of node "b" is not trusted`, "another CA", "tls.ca"}},
	} {
		ctx, cancel := context.WithTimeout(context.Background(), hosttest.Patience)
		_, err := c.from.Dial(ctx, c.at, c.to, testClass, 0)
		cancel()
		if !errors.Is(err, certs.ErrRefused) {
			t.Errorf("%s: %v", name, err)
			continue
		}
		for _, part := range c.want {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%s: %v, want %q in it", name, err, part)
			}
		}
	}
}
