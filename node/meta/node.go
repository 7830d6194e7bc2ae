package meta

import (
	"encoding/binary"
	"fmt"
	"math"
	"net"
	"slices"
	"strings"

	"github.com/maestro-conductor/maestro/internal/certs"
	"github.com/maestro-conductor/maestro/internal/wire"
)

// MembersMax bounds the active members of a region. Every member holds a replica of meta and
// a link to every other one, so the idle cost grows with the square; fifteen is far more than
// the groups of a region can use, and three times the largest region that is started at once.
const MembersMax = 15

const (
	addressBytesMax       = 300 // a host name of 253 bytes, a port, and some more
	votersMax             = 5
	nodeValueVersion      = 1
	placementValueVersion = 1
)

// NodeState says what a member is there for.
type NodeState byte

// States of a member.
const (
	// NodeActive members hold replicas.
	NodeActive NodeState = 1
	// NodeLeaving members give theirs to others, and are then removed. There is no way back.
	NodeLeaving NodeState = 2
)

func (s NodeState) String() string {
	if s == NodeLeaving {
		return "leaving"
	}
	return "active"
}

// Node is a member of the region.
type Node struct {
	// ID is the node's name and the incarnation of its data folder. It never comes back once
	// the member was removed.
	ID   string
	Name string
	// Cluster and API are HOST:PORT as others dial them.
	Cluster, API string
	State        NodeState
	// Successor is the id of the member that takes the replicas of a leaving one; empty means
	// whoever has the fewest.
	Successor string
}

// Placement is where the voting replicas of a group belong.
type Placement struct {
	// Group is the group's name.
	Group string
	// Voters are replica ids: the member's id, or MEMBERID.GEN for one that was placed later.
	// The first is the preferred leader.
	Voters []string
	// Generation is the last GEN that was given out in the group.
	Generation uint32
}

// MemberOf is the member whose a replica is: NAME.INCARNATION of NAME.INCARNATION.GEN.
func MemberOf(replica string) string {
	if strings.Count(replica, ".") < 2 {
		return replica
	}
	return replica[:strings.LastIndexByte(replica, '.')]
}

// NameOf is the name in a member's or a replica's id.
func NameOf(id string) string {
	name, _, _ := strings.Cut(id, ".")
	return name
}

func encodeNode(n Node) []byte {
	b := wire.AppendString([]byte{nodeValueVersion}, n.Name)
	b = wire.AppendString(b, n.Cluster)
	b = wire.AppendString(b, n.API)
	b = append(b, byte(n.State))
	return wire.AppendString(b, n.Successor)
}

// decodeNode reads the record of a member. A sealed one is leaving, whatever it says.
func decodeNode(rec record) (Node, error) {
	r := wire.NewReader(rec.value)
	v := r.Byte(nodeValueVersion)
	n := Node{
		ID:        rec.key,
		Name:      r.String(nameBytesMax),
		Cluster:   r.String(addressBytesMax),
		API:       r.String(addressBytesMax),
		State:     NodeState(r.Byte(byte(NodeLeaving))),
		Successor: r.String(keyBytesMax),
	}
	if err := r.Done(); err != nil || v != nodeValueVersion || n.State == 0 {
		return Node{}, errRow("node " + rec.key)
	}
	if rec.sealed {
		n.State = NodeLeaving
	}
	return n, nil
}

func validNode(id string, value []byte) error {
	n, err := decodeNode(record{key: id, value: value})
	if err != nil {
		return err
	}
	_, clusterPort, clusterErr := net.SplitHostPort(n.Cluster)
	_, apiPort, apiErr := net.SplitHostPort(n.API)
	switch {
	case !certs.ValidName(n.Name) || NameOf(id) != n.Name || strings.Count(id, ".") != 1 || strings.HasSuffix(id, "."):
		return fmt.Errorf("%w: node %q has the id %q", errCodec, n.Name, id)
	case clusterErr != nil || apiErr != nil || clusterPort == "" || apiPort == "":
		return fmt.Errorf("%w: node %s has the addresses %q and %q", errCodec, id, n.Cluster, n.API)
	}
	return nil
}

func encodePlacement(p Placement) []byte {
	b := binary.AppendUvarint([]byte{placementValueVersion}, uint64(p.Generation))
	b = binary.AppendUvarint(b, uint64(len(p.Voters)))
	for _, v := range p.Voters {
		b = wire.AppendString(b, v)
	}
	return b
}

func decodePlacement(group string, value []byte) (Placement, error) {
	r := wire.NewReader(value)
	v := r.Byte(placementValueVersion)
	p := Placement{Group: group, Generation: uint32(r.Uvarint(math.MaxUint32))}
	for n := r.Count(votersMax); n > 0 && !r.Failed(); n-- {
		p.Voters = append(p.Voters, r.String(keyBytesMax))
	}
	if err := r.Done(); err != nil || v != placementValueVersion {
		return Placement{}, errRow("placement of " + group)
	}
	return p, nil
}

// validPlacement refuses what no group can run on: no voter, or two on one member.
func validPlacement(group string, value []byte) error {
	p, err := decodePlacement(group, value)
	if err != nil {
		return err
	}
	members := make([]string, len(p.Voters))
	for i, v := range p.Voters {
		members[i] = MemberOf(v)
	}
	slices.Sort(members)
	if len(members) == 0 || len(slices.Compact(members)) != len(p.Voters) {
		return fmt.Errorf("%w: group %s placed on %v", errCodec, group, p.Voters)
	}
	return nil
}
