// Package raftfsm hosts Raft groups: many deterministic state machines on one node, with one
// Pebble for all state, one port for all traffic and one bolt file per group for its log. It
// knows nothing of limits or documents.
//
// A domain plugs in a Machine per group and then has
//
//   - Propose, which commits a command wherever the group's leader is and returns its result;
//   - Query, which reads with or without proof that nothing newer was acknowledged;
//   - a group time that no wall clock can disturb.
//
// The caller's duties:
//
//  1. Give every node the same groups and, when they have no state yet, the same members.
//  2. Never use a member's id again once its data is gone.
//  3. End the process when Fatal is called.
//  4. Close the host before the Mux.
//
// DESIGN.md tells how it works and why.
package raftfsm
