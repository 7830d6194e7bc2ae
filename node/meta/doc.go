// Package meta is the region's record store for what rarely changes and everybody needs: the
// limits, the API tokens, and the region's own settings. It is one Raft group; every node
// holds a replica and answers the hot questions, such as who is behind a token, from memory.
//
// A record belongs to a table, has an owner (the tenant whose it is), and carries its origin
// region, a version and a hybrid logical clock, so that regions can exchange records later.
// A command changes several records of one table or none of them. DESIGN.md has the
// invariants and the bytes on disk.
package meta
