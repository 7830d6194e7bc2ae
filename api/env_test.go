package api

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/prometheus/client_golang/prometheus"

	commonv1 "github.com/maestro-conductor/maestro/api/gen/mc/common/v1"
)

// env is the API port on a loopback address, served by Serve with TLS, and what tests need
// to call it.
type env struct {
	services *fakeServices
	catalog  *fakeCatalog
	handler  *server
	registry *prometheus.Registry
	log      *logBuffer
	address  string
	url      string
	ca       *authority
	stop     func() // drains the server and waits for it

	// Connections that clients close before the drain, which would else wait a second for
	// each to notice that it is over.
	mu    sync.Mutex
	conns []func()
}

func newEnv(t testing.TB, change func(*Deps)) *env {
	t.Helper()
	e := &env{services: newServices(), catalog: &fakeCatalog{content: []byte("the archive")}, registry: prometheus.NewRegistry(), log: &logBuffer{}, ca: newAuthority(t)}
	deps := Deps{
		Authenticator: e.services, Checker: e.services, Holder: e.services, Lender: e.services, Limits: e.services, Index: e.services,
		Tokens: e.services, Cluster: e.services, Backups: e.services,
		Packages: func() (Packages, error) { return e.catalog, nil },
		Region:   "eu", Metrics: e.registry,
		Logger: slog.New(slog.NewTextHandler(e.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	if change != nil {
		change(&deps)
	}
	e.handler = NewHandler(deps).(*server)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	e.address = ln.Addr().String()
	e.url = "https://" + e.address
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- Serve(ctx, ln, e.ca.serverConfig(t), e.handler, deps.Logger) }()
	e.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-served; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	t.Cleanup(e.close)
	return e
}

// close ends the clients' connections and then the server.
func (e *env) close() {
	e.mu.Lock()
	conns := e.conns
	e.conns = nil
	e.mu.Unlock()
	for _, f := range conns {
		f()
	}
	e.stop()
}

func (e *env) onClose(f func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.conns = append(e.conns, f)
}

// client calls with HTTP/2 and, unless it is empty, a bearer token.
func (e *env) client(secret string) *http.Client {
	return e.clientWith(&tls.Config{RootCAs: e.ca.pool}, secret)
}

func (e *env) clientWith(config *tls.Config, secret string) *http.Client {
	transport := &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: true, DisableCompression: true}
	e.onClose(transport.CloseIdleConnections)
	return &http.Client{Transport: bearerTransport{transport, secret}}
}

type bearerTransport struct {
	http.RoundTripper
	secret string
}

func (b bearerTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	if b.secret != "" && r.Header.Get("Authorization") == "" {
		r = r.Clone(r.Context())
		r.Header.Set("Authorization", "Bearer "+b.secret)
	}
	return b.RoundTripper.RoundTrip(r)
}

// send makes one request by hand and returns the answer whole.
func (e *env) send(t testing.TB, secret, method, path, contentType string, body []byte, headers ...string) (*http.Response, []byte) {
	t.Helper()
	r, err := http.NewRequest(method, e.url+path, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if contentType != "" {
		r.Header.Set("Content-Type", contentType)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	res, err := e.client(secret).Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, answer
}

// detailOf is the detail that every error must carry.
func detailOf(t testing.TB, err error) *commonv1.ErrorDetail {
	t.Helper()
	ce, ok := err.(*connect.Error)
	if !ok {
		t.Fatalf("%v is not a Connect error", err)
	}
	for _, d := range ce.Details() {
		v, err := d.Value()
		if err != nil {
			t.Fatal(err)
		}
		if detail, ok := v.(*commonv1.ErrorDetail); ok {
			return detail
		}
	}
	t.Fatalf("%v carries no detail", err)
	return nil
}

func wantReason(t testing.TB, err error, code connect.Code, reason string) *commonv1.ErrorDetail {
	t.Helper()
	if err == nil {
		t.Fatalf("no error; want %s %s", code, reason)
	}
	if connect.CodeOf(err) != code {
		t.Errorf("code %s, want %s: %v", connect.CodeOf(err), code, err)
	}
	d := detailOf(t, err)
	if d.GetReason() != reason {
		t.Errorf("reason %q, want %q: %v", d.GetReason(), reason, err)
	}
	if d.GetHint() == "" || d.GetOutcome() == "" {
		t.Errorf("the detail lacks a hint or an outcome: %v", d)
	}
	return d
}

// logBuffer collects log lines from many goroutines.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// authority is a CA for one test.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test CA"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return &authority{cert: cert, key: key, pool: pool}
}

func (a *authority) issue(t testing.TB, uri string) tls.Certificate {
	t.Helper()
	name, err := url.Parse(uri)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(0xabc), URIs: []*url.URL{name}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}, a.cert, &key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func (a *authority) serverConfig(t testing.TB) *tls.Config {
	return &tls.Config{
		Certificates: []tls.Certificate{a.issue(t, "maestro://node/a")},
		ClientCAs:    a.pool, ClientAuth: tls.VerifyClientCertIfGiven, MinVersion: tls.VersionTLS13,
	}
}

func (a *authority) clientConfig(t testing.TB, uri string) *tls.Config {
	return &tls.Config{RootCAs: a.pool, Certificates: []tls.Certificate{a.issue(t, uri)}}
}
