// Package limiter is the state machine and the service that decide whether a tenant, a token
// or a key may do something now, and if not, when.
//
// A limit is a token bucket over exact integers. All limits of one tenant live in one Raft
// group, so that a check against several limits is one atomic step: it debits every matching
// limit or none. Time is the group's own time, which never runs faster than real time, so no
// clock step and no failover can mint a token.
//
// Groups lend tokens to nodes, which answer most checks from these alone: see Leases.
//
// Callers use Service; the node hosts one Machine in each limiter group. DESIGN.md has the
// invariants and the bytes on disk.
package limiter
