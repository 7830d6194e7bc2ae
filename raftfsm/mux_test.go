package raftfsm_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"

	"github.com/maestro-conductor/maestro/internal/certs"
	"github.com/maestro-conductor/maestro/raftfsm"
	"github.com/maestro-conductor/maestro/raftfsm/hosttest"
)

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

const testClass = 9

// port starts a node's cluster port that serves testClass with one byte.
func port(t *testing.T, dir, name string, cluster raftfsm.ClusterID, members ...string) (*raftfsm.Mux, string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m := raftfsm.NewMux(ln, hosttest.TLS(t, dir, name), quiet)
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	m.Join(cluster, func(n string) bool {
		for _, known := range members {
			if n == known {
				return true
			}
		}
		return false
	})
	m.Handle(testClass, func(_ raftfsm.GroupID, peer string, c net.Conn) bool {
		_, _ = c.Write([]byte{'!'})
		return false
	})
	return m, ln.Addr().String()
}

func authority(t *testing.T, names ...string) string {
	t.Helper()
	dir := t.TempDir()
	if err := certs.CreateCA(dir); err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		if err := certs.IssueNode(dir, n, []string{"127.0.0.1"}); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// The cluster port admits members of its own cluster and tells everybody else why not.
func TestClusterPortAdmitsOnlyMembers(t *testing.T) {
	ours, theirs := raftfsm.ClusterID{1}, raftfsm.ClusterID{2}
	dir := authority(t, "a", "b", "stranger")
	server, addr := port(t, dir, "a", ours, "a", "b")
	_ = server
	member, _ := port(t, dir, "b", ours, "a", "b")
	foreign, _ := port(t, dir, "b", theirs, "a", "b")
	stranger, _ := port(t, dir, "stranger", ours, "a", "b")
	impostor, _ := port(t, authority(t, "b"), "b", ours, "a", "b")

	ctx := context.Background()
	c, err := member.Dial(ctx, addr, "a", testClass, 0)
	if err != nil {
		t.Fatalf("a member was refused: %v", err)
	}
	if b, err := io.ReadAll(c); err != nil || string(b) != "!" {
		t.Fatalf("a member got %q, %v", b, err)
	}
	c.Close()
	if _, err := foreign.Dial(ctx, addr, "a", testClass, 0); !errors.Is(err, raftfsm.ErrOtherCluster) {
		t.Errorf("a node of another cluster: %v", err)
	}
	if _, err := stranger.Dial(ctx, addr, "a", testClass, 0); !errors.Is(err, raftfsm.ErrNotMember) {
		t.Errorf("a node that is no member: %v", err)
	}
	if _, err := impostor.Dial(ctx, addr, "a", testClass, 0); err == nil {
		t.Error("a certificate of another authority was accepted")
	}
	if _, err := member.Dial(ctx, addr, "c", testClass, 0); err == nil || !strings.Contains(err.Error(), `certificate is of node "a", want "c"`) {
		t.Errorf("a node under another name: %v", err)
	}
	if _, err := member.Dial(ctx, addr, "a", 77, 0); !errors.Is(err, raftfsm.ErrTargetUnknown) {
		t.Errorf("a class that nobody serves: %v", err)
	}
}

// A second process under a node's name, such as one on a copy of its data, is kept out for as
// long as the first is connected, and no longer.
func TestSecondProcessOfANode(t *testing.T) {
	dir := authority(t, "a", "b")
	server, addr := port(t, dir, "a", raftfsm.ClusterID{1}, "a", "b")
	held := make(chan net.Conn, 1)
	server.Handle(testClass, func(_ raftfsm.GroupID, _ string, c net.Conn) bool {
		held <- c
		return true
	})
	original, _ := port(t, dir, "b", raftfsm.ClusterID{1}, "a", "b")
	clone, _ := port(t, dir, "b", raftfsm.ClusterID{1}, "a", "b")
	ctx := context.Background()
	c, err := original.Dial(ctx, addr, "a", testClass, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := clone.Dial(ctx, addr, "a", testClass, 0); !errors.Is(err, raftfsm.ErrDuplicate) {
		t.Fatalf("a second process: %v", err)
	}
	first := <-held
	first.Close()
	second, err := clone.Dial(ctx, addr, "a", testClass, 0)
	if err != nil {
		t.Fatalf("after the first has gone: %v", err)
	}
	second.Close()
	(<-held).Close()
}

// Bytes that are not the protocol end the connection and nothing else.
func TestClusterPortSurvivesNoise(t *testing.T) {
	dir := authority(t, "a", "b")
	_, addr := port(t, dir, "a", raftfsm.ClusterID{1}, "a", "b")
	member, _ := port(t, dir, "b", raftfsm.ClusterID{1}, "a", "b")
	for _, noise := range []string{"", "GET / HTTP/1.1\r\n\r\n", strings.Repeat("\x00", 4096)} {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(c, noise); err != nil {
			t.Fatal(err)
		}
		c.Close()
		conf := hosttest.TLS(t, dir, "b")
		conf.InsecureSkipVerify = true // the noise below is the test, not the server's name
		tc, err := tls.Dial("tcp", addr, conf)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(tc, noise+strings.Repeat("x", 64))
		if b, err := io.ReadAll(tc); err == nil && len(b) > 0 {
			t.Errorf("noise %q was answered with %q", noise, b)
		}
		tc.Close()
	}
	c, err := member.Dial(context.Background(), addr, "a", testClass, 0)
	if err != nil {
		t.Fatalf("after the noise a member was refused: %v", err)
	}
	c.Close()
}
