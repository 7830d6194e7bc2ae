package certs

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// region makes a folder with an authority, two nodes and an administrator.
func region(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "certs")
	for _, err := range []error{
		CreateCA(dir),
		IssueNode(dir, "node-1", []string{"127.0.0.1", "localhost"}),
		IssueNode(dir, "node-2", []string{"::1", "node-2.example.com"}),
		IssueAdmin(dir),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func pool(t *testing.T, dir string) *x509.CertPool {
	t.Helper()
	data, err := os.ReadFile(CAPath(dir))
	if err != nil {
		t.Fatal(err)
	}
	p := x509.NewCertPool()
	if !p.AppendCertsFromPEM(data) {
		t.Fatal("ca.pem holds no certificate")
	}
	return p
}

func keyPair(t *testing.T, p Paths) tls.Certificate {
	t.Helper()
	cert, err := tls.LoadX509KeyPair(p.Cert, p.Key)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// handshake connects a client to a server that demands certificates, and returns what the
// server knows of the client and the error of either side.
func handshake(t *testing.T, serverCA, clientCA string, server, client Paths, host string) (*x509.Certificate, error) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	clientEnd, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer clientEnd.Close()
	serverEnd, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer serverEnd.Close()
	s := tls.Server(serverEnd, &tls.Config{
		Certificates: []tls.Certificate{keyPair(t, server)},
		ClientAuth:   tls.RequireAndVerifyClientCert, ClientCAs: pool(t, serverCA), MinVersion: tls.VersionTLS13,
	})
	c := tls.Client(clientEnd, &tls.Config{
		Certificates: []tls.Certificate{keyPair(t, client)},
		RootCAs:      pool(t, clientCA), ServerName: host, MinVersion: tls.VersionTLS13,
	})
	serverErr := make(chan error, 1)
	go func() {
		serverErr <- s.Handshake()
	}()
	err = c.Handshake()
	if err != nil {
		_ = clientEnd.Close()
	}
	if err := errors.Join(err, <-serverErr); err != nil {
		return nil, err
	}
	return s.ConnectionState().PeerCertificates[0], nil
}

func TestHandshakes(t *testing.T) {
	ours, foreign := region(t), region(t)
	node1, node2, admin := NodePaths(ours, "node-1"), NodePaths(ours, "node-2"), AdminPaths(ours)

	peer, err := handshake(t, ours, ours, node1, node2, "127.0.0.1")
	if err != nil {
		t.Fatalf("node to node: %v", err)
	}
	if name, ok := NodeName(peer); !ok || name != "node-2" || IsAdmin(peer) {
		t.Errorf("the server took node-2 for %q, %v, admin %v", name, ok, IsAdmin(peer))
	}
	peer, err = handshake(t, ours, ours, node2, admin, "node-2.example.com")
	if err != nil {
		t.Fatalf("administrator to node: %v", err)
	}
	if name, ok := NodeName(peer); ok || !IsAdmin(peer) {
		t.Errorf("the server took the administrator for node %q, admin %v", name, IsAdmin(peer))
	}

	for _, tc := range []struct {
		name               string
		serverCA, clientCA string
		server, client     Paths
		host, want         string
	}{
		{"another host", ours, ours, node1, node2, "example.com", "not example.com"},
		{"administrator as a server", ours, ours, admin, node2, "127.0.0.1", "IP SANs"},
		{"foreign client", ours, ours, node1, NodePaths(foreign, "node-2"), "127.0.0.1", "unknown authority"},
		{"foreign server", ours, ours, NodePaths(foreign, "node-1"), node2, "127.0.0.1", "unknown authority"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := handshake(t, tc.serverCA, tc.clientCA, tc.server, tc.client, tc.host)
			if err == nil || (!strings.Contains(err.Error(), tc.want) && !strings.Contains(err.Error(), "valid for")) {
				t.Errorf("got %v, want an error with %q", err, tc.want)
			}
		})
	}
}

func TestNothingIsOverwritten(t *testing.T) {
	dir := region(t)
	before, err := os.ReadFile(filepath.Join(dir, "ca.key"))
	if err != nil {
		t.Fatal(err)
	}
	for what, err := range map[string]error{
		"the CA": CreateCA(dir), "node-1": IssueNode(dir, "node-1", []string{"localhost"}), "the administrator": IssueAdmin(dir),
	} {
		if !errors.Is(err, ErrExists) {
			t.Errorf("%s again: %v, want ErrExists", what, err)
		}
	}
	after, err := os.ReadFile(filepath.Join(dir, "ca.key"))
	if err != nil || string(before) != string(after) {
		t.Errorf("the CA key changed (%v)", err)
	}
	if err := IssueNode(dir, "node-3", []string{"localhost"}); err != nil {
		t.Errorf("one more node: %v", err)
	}
}

func TestKeysAreForTheirOwnerOnly(t *testing.T) {
	dir := region(t)
	for _, name := range []string{"ca.key", "node-1.key", "admin.key"} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", name, info.Mode().Perm())
		}
	}
}

func TestBadInput(t *testing.T) {
	dir := region(t)
	for _, tc := range []struct {
		name  string
		err   error
		wants error
	}{
		{"name with a slash", IssueNode(dir, "../x", []string{"localhost"}), ErrName},
		{"name of the CA", IssueNode(dir, "ca", []string{"localhost"}), ErrName},
		{"name of the administrator", IssueNode(dir, "admin", []string{"localhost"}), ErrName},
		{"no hosts", IssueNode(dir, "node-9", nil), ErrName},
		{"host with a port", IssueNode(dir, "node-9", []string{"localhost:7400"}), ErrName},
		{"no CA", IssueNode(t.TempDir(), "node-9", []string{"localhost"}), ErrNoCA},
	} {
		if !errors.Is(tc.err, tc.wants) {
			t.Errorf("%s: got %v, want %v", tc.name, tc.err, tc.wants)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "ca.key"), []byte("not a key"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := IssueAdmin(dir); !errors.Is(err, ErrNoCA) {
		t.Errorf("a broken CA key: %v", err)
	}
	if NodePaths(dir, "node-9").Exists() {
		t.Error("a refused certificate left files behind")
	}
}

func TestValidName(t *testing.T) {
	for name, want := range map[string]bool{
		"a": true, "node-1": true, "1": true, strings.Repeat("x", 63): true,
		"": false, "-a": false, "a-": false, "A": false, "a.b": false, "a/b": false, strings.Repeat("x", 64): false,
	} {
		if ValidName(name) != want {
			t.Errorf("ValidName(%q) = %v", name, !want)
		}
	}
}
