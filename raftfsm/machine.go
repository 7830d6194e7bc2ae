package raftfsm

import (
	"context"
	"errors"
)

// GroupID names a Raft group on every node of a region. It is fixed when the region is
// created and is part of every key and of every connection header.
type GroupID uint32

// Entry is one committed log entry as a machine sees it: one or more commands that were
// proposed close together and share one index and one stamp.
type Entry struct {
	// Index and Term are the entry's place in the group's log.
	Index uint64
	Term  uint64
	// Time is the group's time in microseconds: it starts at 0, never goes back, never runs
	// faster than real time, and is unaffected by wall clocks.
	Time int64
	// Wall is the leader's wall clock when it proposed the entry, in nanoseconds since 1970
	// UTC. It is for people; it may go back.
	Wall int64
	// Commands are the payloads in the order they take effect.
	Commands [][]byte
}

// Machine is the deterministic state machine of one group.
//
// Apply must depend only on the state and the entry: no clock, no randomness, no order of
// map iteration. The host calls Load and Apply from one goroutine; Query may run beside
// them, so the machine guards the memory they share. An error from Load or Apply means that
// the state cannot be trusted, and ends the process; a refused command is a result, not an
// error.
type Machine interface {
	// Load forgets what is in memory and rebuilds it from store. It is called once before
	// the first Apply, and again whenever a snapshot has replaced the state.
	Load(store *Store) error
	// Apply executes the commands of e, writing through tx, and returns one result for each
	// command. Commands see the writes of earlier ones through tx.
	Apply(tx *Tx, e Entry) (results [][]byte, err error)
	// Query answers a read. The host has made sure that the state is as fresh as the caller
	// asked for.
	Query(ctx context.Context, query []byte) ([]byte, error)
	// Close ends the machine's goroutines and waits for them. Nothing is called after it.
	Close() error
}

// Suspender is a Machine whose goroutines work on the store on their own. Suspend ends them
// and waits, before the host replaces the group's rows by a snapshot; Load follows.
type Suspender interface {
	Suspend()
}

// ErrInterrupted is what Apply may return after Interrupt: the entry is applied when the replica is opened again.
var ErrInterrupted = errors.New("raftfsm: interrupted")

// Interrupter is a Machine whose Apply may wait for other nodes. Interrupt, which any goroutine may call, has it
// return ErrInterrupted soon, and so all later calls until Load: the replica is about to be closed.
type Interrupter interface {
	Interrupt()
}

// Command is one proposal.
type Command struct {
	// Data is what Machine.Apply receives.
	Data []byte
	// RequestID, when not zero, makes the command take effect at most once: the group
	// remembers the id with its result for RequestMemory and answers a repeat from it.
	RequestID RequestID
	// host commands are for the host, not the machine.
	host bool
}

// RequestID identifies a write across retries. Build one with NewRequestID.
type RequestID [16]byte

// Result is what an applied command returned.
type Result struct {
	// Data is what Machine.Apply returned for the command.
	Data []byte
	// Index is the log index at which the command took effect, for reading it elsewhere.
	Index uint64
	// Repeated is true when the request id was known and Data is the first answer.
	Repeated bool
}

// Consistency says how fresh a read must be.
type Consistency uint8

const (
	// Linearizable reads see every write acknowledged before the read began.
	Linearizable Consistency = iota
	// Bounded reads answer from the local replica, however far it has come.
	Bounded
)

// Answer is what a query returned.
type Answer struct {
	Data []byte
	// Applied is the log index that the answering replica had applied at least.
	Applied uint64
}
