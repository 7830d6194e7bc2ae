package raftfsm

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"github.com/maestro-conductor/maestro/internal/certs"
)

// Classes of connections on the cluster port.
const (
	classRaft byte = 1 // one group's Raft RPCs
	classLink byte = 2 // proposals, queries and term confirmations of all groups
	// ClassBootstrap is for nodes that are not part of a cluster yet; the node handles it.
	ClassBootstrap byte = 3
	classCopy      byte = 4 // one transfer of one group's state to a follower
)

const (
	// headerFirst is spoken by builds of level 1. headerIDs goes on, after the same fields, with
	// the levels of the sender, its id and the id of whom it means.
	headerFirst = 1
	headerIDs   = 2
	headerLen   = 4 + 1 + 1 + 4 + 16 + 8
	// headerTimeout bounds the handshake of an incoming connection.
	headerTimeout = 5 * time.Second
)

// ClusterID identifies a cluster for its whole life; it is zero before bootstrap.
type ClusterID [16]byte

// Answers to a header.
const (
	answerOK            byte = 0
	answerOtherCluster  byte = 1
	answerNotMember     byte = 2
	answerUnknownTarget byte = 3
	answerVersion       byte = 4
	answerDuplicate     byte = 5
	answerOtherTarget   byte = 6
)

// Errors of the cluster port.
var (
	// ErrOtherCluster means that the peer belongs to another cluster.
	ErrOtherCluster = errors.New("peer belongs to another cluster")
	// ErrNotMember means that the peer does not count this node among its cluster's members.
	ErrNotMember = errors.New("peer does not know this node as a member of its cluster: it was removed, or not added yet")
	// ErrOtherTarget means that the node, or the replica, that was meant is not there.
	ErrOtherTarget = errors.New("peer is not the node, or does not host the replica, that was meant")
	// ErrTargetUnknown means that the peer does not serve the group or class (yet).
	ErrTargetUnknown = errors.New("peer does not serve this group yet")
	// ErrDuplicate means that another process is connected under this node's name: a second
	// one on a copy of its data must not vote.
	ErrDuplicate = errors.New("another process is connected under this node's name")
	// ErrVersion means that the peer speaks another version of the protocol.
	ErrVersion = errors.New("peer speaks another version of the cluster protocol")
)

// Mux owns the cluster port: one mutually authenticated TLS listener that hands each
// connection to its class and group. A connection starts with a header that names version,
// class, group, cluster, sender and target; the answer says why not. docs/FORMAT.md has the bytes.
type Mux struct {
	ln     net.Listener
	tls    *tls.Config
	log    *slog.Logger
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu       sync.Mutex
	cluster  ClusterID
	member   func(name string) bool
	handlers map[byte]func(group GroupID, peer string, c net.Conn) bool
	open     map[net.Conn]struct{}
	// self is this node's id and peers are the names of all members by id, once a host runs.
	self  string
	peers map[string]string
	// hosts tells whether this node hosts a replica, and first whether builds of level 1 are
	// part of the region, or may be.
	hosts func(group GroupID, replica string) bool
	first func() bool
	// live are the processes that have connections open to this one, by member id.
	live map[string]process
	// own identifies this process among those that may have the node's name.
	own uint64
}

// process is one run of a peer and how many connections it has open.
type process struct {
	id    uint64
	conns int
}

// NewMux serves ln. The configuration needs a certificate and the cluster's CA, both as root
// and as client CA; every certificate names its node in a URI SAN.
func NewMux(ln net.Listener, conf *tls.Config, log *slog.Logger) *Mux {
	ctx, cancel := context.WithCancel(context.Background())
	conf = conf.Clone()
	conf.ClientAuth = tls.RequireAndVerifyClientCert
	conf.MinVersion = tls.VersionTLS13
	m := &Mux{
		ln: ln, tls: conf, log: log, ctx: ctx, cancel: cancel,
		handlers: map[byte]func(GroupID, string, net.Conn) bool{}, open: map[net.Conn]struct{}{}, live: map[string]process{}, own: rand.Uint64(),
	}
	m.wg.Add(1)
	go m.accept()
	return m
}

// Join sets the cluster that this node is part of and who its members are. Until then only
// ClassBootstrap is served.
func (m *Mux) Join(id ClusterID, member func(name string) bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.cluster, m.member = id, member
}

// setMembers says who may connect: the names in the certificates, by id. Connections of others
// are closed.
func (m *Mux) setMembers(self string, names map[string]string) {
	m.mu.Lock()
	m.self, m.peers = self, names
	var gone []net.Conn
	for c := range m.open {
		if t, ok := c.(*trackedConn); ok && t.peer != "" && names[t.peer] == "" {
			gone = append(gone, c)
		}
	}
	m.mu.Unlock()
	for _, c := range gone {
		c.Close()
	}
}

// serve says what this node hosts, and whether builds of level 1 are spoken to.
func (m *Mux) serve(hosts func(GroupID, string) bool, first func() bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.hosts, m.first = hosts, first
}

// Handle serves a class. The handler owns the connection if it returns true; peer is the
// name in the verified certificate. It must not block.
func (m *Mux) Handle(class byte, h func(group GroupID, peer string, c net.Conn) bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.handlers[class] = h
}

// dropAll ends every connection that a handler owns, and serves only ClassBootstrap from now
// on.
func (m *Mux) dropAll() {
	m.mu.Lock()
	delete(m.handlers, classRaft)
	delete(m.handlers, classLink)
	delete(m.handlers, classCopy)
	m.hosts, m.first = nil, nil
	open := make([]net.Conn, 0, len(m.open))
	for c := range m.open {
		open = append(open, c)
	}
	m.mu.Unlock()
	for _, c := range open {
		c.Close()
	}
}

// Close stops listening, ends every connection and waits.
func (m *Mux) Close() error {
	m.cancel()
	err := m.ln.Close()
	m.dropAll()
	m.wg.Wait()
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

func (m *Mux) accept() {
	defer m.wg.Done()
	for {
		c, err := m.ln.Accept()
		if err != nil {
			if m.ctx.Err() != nil {
				return
			}
			// Out of file descriptors, for one: wait for some to come free.
			m.log.Error("cluster port cannot accept", "err", err)
			select {
			case <-m.ctx.Done():
				return
			case <-time.After(100 * time.Millisecond):
			}
			continue
		}
		m.wg.Add(1)
		go func() {
			defer m.wg.Done()
			if err := m.welcome(c); err != nil {
				m.log.Info("cluster connection refused", "from", c.RemoteAddr().String(), "err", err)
				c.Close()
			}
		}()
	}
}

func (m *Mux) welcome(raw net.Conn) error {
	tuneTCP(raw)
	if err := raw.SetDeadline(time.Now().Add(headerTimeout)); err != nil {
		return err
	}
	c := tls.Server(raw, m.tls)
	if err := c.HandshakeContext(m.ctx); err != nil {
		return fmt.Errorf("TLS handshake: %w", certs.Explain(err, "the caller"))
	}
	peer, err := PeerName(c.ConnectionState())
	if err != nil {
		return err
	}
	h, err := readHeader(c)
	if err != nil {
		return fmt.Errorf("header: %w", err)
	}
	answer, id, handler := m.admit(h, peer)
	if answer != answerOK {
		_, err := c.Write(h.answer(answer))
		return errors.Join(fmt.Errorf("node %q: %w", cmp.Or(h.sender, peer), answerError(answer)), err)
	}
	tracked := m.track(c, h.class, id, h.process)
	if _, err := c.Write(h.answer(answerOK)); err != nil {
		tracked.Close()
		return fmt.Errorf("answer: %w", err)
	}
	if err := raw.SetDeadline(time.Time{}); err != nil {
		tracked.Close()
		return err
	}
	if !handler(h.group, peer, tracked) {
		tracked.Close()
	}
	return nil
}

// admit decides about a connection, and says which member it is of.
func (m *Mux) admit(h header, name string) (answer byte, id string, handler func(GroupID, string, net.Conn) bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	handler = m.handlers[h.class]
	switch {
	case h.version != headerFirst && h.version != headerIDs:
		return answerVersion, "", nil
	case handler == nil:
		return answerUnknownTarget, "", nil
	case h.class == ClassBootstrap:
		return answerOK, "", handler
	case h.cluster != m.cluster:
		return answerOtherCluster, "", nil
	}
	if h.version == headerFirst {
		answer, id = m.admitName(name)
	} else {
		answer, id = m.admitID(h, name)
	}
	if answer == answerOK && m.live[id].conns > 0 && m.live[id].id != h.process {
		answer = answerDuplicate
	}
	return answer, id, handler
}

// admitName is for builds of level 1, which say only what their certificate says.
func (m *Mux) admitName(name string) (byte, string) {
	if m.peers == nil {
		if m.member == nil || !m.member(name) {
			return answerNotMember, ""
		}
		return answerOK, name
	}
	if m.first == nil || !m.first() {
		return answerVersion, ""
	}
	found := ""
	for id, n := range m.peers {
		if n == name && found != "" {
			return answerNotMember, "" // two members have the name; who knows which
		}
		if n == name {
			found = id
		}
	}
	if found == "" {
		return answerNotMember, ""
	}
	return answerOK, found
}

func (m *Mux) admitID(h header, name string) (byte, string) {
	switch {
	case m.peers == nil || m.hosts == nil:
		return answerUnknownTarget, ""
	case name == "" || m.peers[h.sender] != name:
		return answerNotMember, ""
	case h.class == classRaft && !m.hosts(h.group, h.target), h.class != classRaft && h.target != m.self:
		return answerOtherTarget, ""
	}
	return answerOK, h.sender
}

// track remembers an open connection so that Close can end it, and whose it is.
func (m *Mux) track(c net.Conn, class byte, peer string, from uint64) net.Conn {
	t := &trackedConn{Conn: c, mux: m}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.open[t] = struct{}{}
	if class != ClassBootstrap {
		t.peer = peer
		m.live[peer] = process{id: from, conns: m.live[peer].conns + 1}
	}
	if m.ctx.Err() != nil {
		c.Close()
	}
	return t
}

type trackedConn struct {
	net.Conn
	mux  *Mux
	peer string // "" for one that does not count
}

func (t *trackedConn) Close() error {
	t.mux.mu.Lock()
	if _, first := t.mux.open[t]; first && t.peer != "" {
		p := t.mux.live[t.peer]
		p.conns--
		t.mux.live[t.peer] = p
	}
	delete(t.mux.open, t)
	t.mux.mu.Unlock()
	return t.Conn.Close()
}

// Dial opens a connection to the node called name, whatever its id. It verifies that the
// certificate is that node's. It is for classes that serve nodes which are no members yet.
func (m *Mux) Dial(ctx context.Context, address, name string, class byte, group GroupID) (net.Conn, error) {
	c, _, err := m.connect(ctx, Member{Name: name, Address: address}, header{version: headerFirst, class: class, group: group})
	return c, err
}

// dial opens a connection to a member, and says which level the peer's build speaks. The target
// is the member's id, or that of a replica which it hosts. A build of level 1 that may be part of
// the region is spoken to as it knows it.
func (m *Mux) dial(ctx context.Context, to Member, class byte, group GroupID, target string) (net.Conn, int, error) {
	m.mu.Lock()
	h := header{version: headerIDs, class: class, group: group, sender: m.self, target: target}
	first := m.first
	m.mu.Unlock()
	c, level, err := m.connect(ctx, to, h)
	if errors.Is(err, ErrVersion) && first != nil && first() {
		h.version = headerFirst
		c, level, err = m.connect(ctx, to, h)
	}
	return c, level, err
}

// connect dials and greets.
func (m *Mux) connect(ctx context.Context, to Member, h header) (net.Conn, int, error) {
	m.mu.Lock()
	h.cluster, h.process = m.cluster, m.own
	m.mu.Unlock()
	d := net.Dialer{}
	raw, err := d.DialContext(ctx, "tcp", to.Address)
	if err != nil {
		return nil, 0, fmt.Errorf("node %s at %s: %w", to.Name, to.Address, err)
	}
	c, level, err := m.greet(ctx, raw, to.Name, h)
	if err != nil {
		raw.Close()
		return nil, 0, fmt.Errorf("node %s at %s: %w", to.Name, to.Address, err)
	}
	return c, level, nil
}

func (m *Mux) greet(ctx context.Context, raw net.Conn, name string, h header) (net.Conn, int, error) {
	tuneTCP(raw)
	deadline, ok := ctx.Deadline()
	if !ok {
		deadline = time.Now().Add(headerTimeout)
	}
	if err := raw.SetDeadline(deadline); err != nil {
		return nil, 0, err
	}
	conf := m.tls.Clone()
	// The address may be anything that routes there; identity is the name in the URI SAN.
	conf.InsecureSkipVerify = true
	conf.VerifyConnection = func(cs tls.ConnectionState) error { return verifyPeer(cs, conf.RootCAs, name) }
	c := tls.Client(raw, conf)
	peer := fmt.Sprintf("node %q", name)
	if err := c.HandshakeContext(ctx); err != nil {
		return nil, 0, fmt.Errorf("TLS handshake: %w", certs.Explain(err, peer))
	}
	if _, err := c.Write(h.encode()); err != nil {
		return nil, 0, fmt.Errorf("header: %w", err)
	}
	answer, level, err := h.readAnswer(c)
	if err != nil {
		// Where the peer refuses this node's certificate, that is its first word.
		return nil, 0, fmt.Errorf("header answer: %w", certs.Explain(err, peer))
	}
	if answer != answerOK {
		return nil, 0, answerError(answer)
	}
	return c, level, raw.SetDeadline(time.Time{})
}

func answerError(a byte) error {
	switch a {
	case answerOtherCluster:
		return ErrOtherCluster
	case answerNotMember:
		return ErrNotMember
	case answerUnknownTarget:
		return ErrTargetUnknown
	case answerDuplicate:
		return ErrDuplicate
	case answerVersion:
		return ErrVersion
	case answerOtherTarget:
		return ErrOtherTarget
	}
	return fmt.Errorf("unknown answer %d to the header", a)
}

// verifyPeer checks the chain against the cluster's CA and the name in the certificate.
func verifyPeer(cs tls.ConnectionState, roots *x509.CertPool, name string) error {
	inter := x509.NewCertPool()
	for _, c := range cs.PeerCertificates[1:] {
		inter.AddCert(c)
	}
	if _, err := cs.PeerCertificates[0].Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: inter,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}); err != nil {
		return err
	}
	got, err := PeerName(cs)
	if err != nil {
		return err
	}
	if got != name {
		return fmt.Errorf("certificate is of node %q, want %q", got, name)
	}
	return nil
}

// PeerName is the node that a peer's certificate names.
func PeerName(cs tls.ConnectionState) (string, error) {
	if len(cs.PeerCertificates) == 0 {
		return "", errors.New("peer sent no certificate")
	}
	name, ok := certs.NodeName(cs.PeerCertificates[0])
	if !ok {
		return "", errors.New("peer's certificate is not a node's: no URI SAN maestro://node/NAME")
	}
	return name, nil
}

// tuneTCP makes a dead peer noticed within seconds: a half-open connection would otherwise
// mute a group's follower for as long as the kernel retries.
func tuneTCP(c net.Conn) {
	t, ok := c.(*net.TCPConn)
	if !ok {
		return
	}
	_ = t.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: 2 * time.Second, Interval: time.Second, Count: 3})
	setUserTimeout(t, 5*time.Second)
}
