package raftfsm_test

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"testing"

	"github.com/maestro-conductor/maestro/raftfsm"
	"github.com/maestro-conductor/maestro/raftfsm/hosttest"
)

// firstHeader is what builds of level 1 send.
func firstHeader(class byte, group uint32, process uint64) []byte {
	b := append([]byte("mcnd"), 1, class)
	b = binary.BigEndian.AppendUint32(b, group)
	b = append(b, append([]byte{1}, make([]byte, 15)...)...) // the cluster's id
	return binary.BigEndian.AppendUint64(b, process)
}

// greet sends a header to node i as a node called name and returns the bytes of the answer.
func greet(t *testing.T, c *hosttest.Cluster, i int, name string, header []byte) []byte {
	t.Helper()
	conf := c.TLS(name)
	conf.InsecureSkipVerify = true // the names on loopback are not what is tested
	conn, err := tls.Dial("tcp", c.Members()[i].Address, conf)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if _, err := conn.Write(header); err != nil {
		t.Fatal(err)
	}
	answer := make([]byte, 1)
	if _, err := io.ReadFull(conn, answer); err != nil {
		t.Fatal(err)
	}
	return answer
}

// alone has a second member that never answers, so that its region may hold builds of level 1.
func alone(_ int, o *raftfsm.Options) {
	o.Members = append(o.Members, raftfsm.Member{ID: "node-2.a", Name: "node-2", Address: "127.0.0.1:1"})
	o.Join = true
}

// A build of level 1 is admitted by its name while it may be part of the region, and not once
// every member is known to be younger.
func TestFirstHeader(t *testing.T) {
	c := hosttest.Start(t, 1, twoGroups, hosttest.Configure(alone))
	c.Certificate("node-2")
	c.Certificate("stranger")
	if a := greet(t, c, 0, "node-2", firstHeader(2, 0, 7)); a[0] != 0 {
		t.Errorf("a member of level 1 is answered %d", a)
	}
	if a := greet(t, c, 0, "stranger", firstHeader(2, 0, 8)); a[0] != 2 {
		t.Errorf("a stranger is answered %d", a)
	}
	settled := hosttest.Start(t, 1, twoGroups, hosttest.Configure(alone), hosttest.Configure(func(_ int, o *raftfsm.Options) { o.Level = raftfsm.LevelCurrent }))
	settled.Certificate("node-2")
	if a := greet(t, settled, 0, "node-2", firstHeader(2, 0, 9)); a[0] != 4 {
		t.Errorf("a build of level 1 in a region of level 2 is answered %d", a)
	}
}

// A later header must name a member by id and name, and mean this node or a replica that it hosts.
func TestHeaderNamesSenderAndTarget(t *testing.T) {
	c := hosttest.Start(t, 1, twoGroups, hosttest.Configure(func(i int, o *raftfsm.Options) {
		o.Members = append(o.Members, raftfsm.Member{ID: "node-2.a", Name: "node-2", Address: "127.0.0.1:1"})
	}))
	c.Certificate("node-2")
	self := c.Members()[0].ID
	for _, h := range []struct {
		what           string
		class          byte
		group          uint32
		sender, target string
		want           byte
	}{
		{"a link", 2, 0, "node-2.a", self, 0},
		{"a replica", 1, uint32(groupA), "node-2.a", self, 0},
		{"another incarnation of the sender", 2, 0, "node-2.b", self, 2},
		{"another name than the certificate's", 2, 0, self, self, 2},
		{"another incarnation of this node", 2, 0, "node-2.a", "node-1.b", 6},
		{"another generation of the replica", 1, uint32(groupA), "node-2.a", self + ".1", 6},
		{"a group that does not exist", 1, 77, "node-2.a", self, 6},
	} {
		b := firstHeader(h.class, h.group, 7)
		b[4] = 2
		b = append(b, 1, 2)
		b = append(append(b, byte(len(h.sender))), h.sender...)
		b = append(append(b, byte(len(h.target))), h.target...)
		if a := greet(t, c, 0, "node-2", b); a[0] != h.want {
			t.Errorf("%s: answered %d, want %d", h.what, a[0], h.want)
		}
	}
}

// A build of level 1 answers a later header with one byte. It is dialled again as it knows it, and
// the host works with it as one that hosts every group under its member's id.
func TestPeerOfLevelOne(t *testing.T) {
	addr := make(chan string, 1)
	c := hosttest.Start(t, 1, twoGroups, hosttest.Configure(func(_ int, o *raftfsm.Options) {
		o.Members = append(o.Members, raftfsm.Member{ID: "node-2.a", Name: "node-2", Address: <-addr})
		o.Join = true
	}), hosttest.Hold())
	c.Certificate("node-2")
	ln, err := tls.Listen("tcp", "127.0.0.1:0", func() *tls.Config {
		conf := c.TLS("node-2")
		conf.ClientAuth = tls.RequireAndVerifyClientCert
		return conf
	}())
	if err != nil {
		t.Fatal(err)
	}
	versions := make(chan byte, 16)
	go func() {
		for {
			conn, err := ln.Accept()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			h := make([]byte, 34)
			if _, err := io.ReadFull(conn, h); err != nil {
				conn.Close()
				continue
			}
			select {
			case versions <- h[4]:
			default:
			}
			if h[4] != 1 {
				_, _ = conn.Write([]byte{4})
				conn.Close()
				continue
			}
			_, _ = conn.Write([]byte{0})
			go func() { _, _ = io.Copy(io.Discard, conn); conn.Close() }()
		}
	}()
	t.Cleanup(func() { ln.Close() })
	addr <- ln.Addr().String()
	c.Start(0)
	if a, b := <-versions, <-versions; a != 2 || b != 1 {
		t.Errorf("the headers were of version %d and %d, want 2 and then 1", a, b)
	}
	if c.Host(0).Level() != raftfsm.LevelFirst {
		t.Errorf("the region's level is %d", c.Host(0).Level())
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := c.Host(0).Describe(ctx, groupA); err == nil {
		t.Error("a peer of level 1 described a group")
	}
}
