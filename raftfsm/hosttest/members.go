package hosttest

import (
	"crypto/tls"
	"fmt"
	"os"

	"github.com/maestro-conductor/maestro/internal/certs"
	"github.com/maestro-conductor/maestro/internal/testport"
	"github.com/maestro-conductor/maestro/raftfsm"
)

// addMember makes a node that has not started.
func (c *Cluster) addMember(join bool) int {
	i := len(c.nodes)
	name := fmt.Sprintf("node-%d", i+1)
	must(c.t, certs.IssueNode(c.certs, name, []string{"127.0.0.1"}))
	c.nodes = append(c.nodes, &node{addr: testport.Address(c.t), join: join})
	c.members = append(c.members, raftfsm.Member{ID: name + ".a", Name: name, Address: c.nodes[i].addr})
	return i
}

// Certificate issues a certificate of the cluster's authority, for TLS.
func (c *Cluster) Certificate(name string) {
	c.t.Helper()
	must(c.t, certs.IssueNode(c.certs, name, []string{"127.0.0.1"}))
}

// TLS is the configuration of the node called name.
func (c *Cluster) TLS(name string) *tls.Config { return TLS(c.t, c.certs, name) }

// Add starts one more node, which every node gets to know, and returns its number. It has no
// replica until it is placed.
func (c *Cluster) Add() int {
	c.t.Helper()
	i := c.addMember(true)
	c.Tell()
	c.Start(i)
	return i
}

// Wipe stops node i, if it runs, and empties its data folder. It becomes another member with the
// same name, unknown to the others until it is started by Rejoin. It returns the old member.
func (c *Cluster) Wipe(i int) raftfsm.Member {
	c.t.Helper()
	if c.nodes[i].host != nil {
		c.Stop(i)
	}
	must(c.t, os.RemoveAll(c.Dir(i)))
	old := c.members[i]
	c.members[i].ID += "x"
	c.nodes[i].join, c.nodes[i].started = true, false
	return old
}

// Rejoin starts a node that was wiped. The others know both its members until Forget.
func (c *Cluster) Rejoin(i int, old raftfsm.Member) {
	c.t.Helper()
	for j, n := range c.nodes {
		if j != i && n.host != nil {
			n.host.SetMembers(append([]raftfsm.Member{old}, c.members...))
		}
	}
	c.Start(i)
}

// Forget tells every running node but i that node i is no member any more; it runs on.
func (c *Cluster) Forget(i int) {
	c.t.Helper()
	members := append(append([]raftfsm.Member{}, c.members[:i]...), c.members[i+1:]...)
	for j, n := range c.nodes {
		if j != i && n.host != nil {
			n.host.SetMembers(members)
		}
	}
}

// Tell gives every running node the list of members; those that were wiped away are not in it.
func (c *Cluster) Tell() {
	for _, n := range c.nodes {
		if n.host != nil {
			n.host.SetMembers(c.members)
		}
	}
}

// Place tells every node, also those that start later, where replicas belong.
func (c *Cluster) Place(p map[raftfsm.GroupID]raftfsm.Placement) {
	c.placements = p
	for _, n := range c.nodes {
		if n.host != nil {
			n.host.Place(p)
		}
	}
}

// Voters is a placement of voters on nodes, under the members' own ids.
func (c *Cluster) Voters(nodes ...int) raftfsm.Placement {
	var p raftfsm.Placement
	for _, i := range nodes {
		p.Voters = append(p.Voters, c.members[i].ID)
	}
	return p
}
