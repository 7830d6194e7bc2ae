// Package elastic paces work that can wait, ingest and what nodes do in the background, so that work that cannot, checks, does
// not suffer from it: on a machine that is short of processor time or disk, each takes from
// the other, and only one of them has somebody waiting for it.
//
// The signal is the latency of checks, from the proposal until it is applied, of those that
// came through this node and of those that others sent to the leaders on it, because it holds everything
// that ingest can make scarce: processor, disk, the log, the state. It is compared with the same latency without ingest. What the
// processor's queue or the disk alone look like would need a bound for each machine.
package elastic
