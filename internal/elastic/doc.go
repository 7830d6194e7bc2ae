// Package elastic paces work that can wait, ingest and what nodes do in the background, so that work that cannot, checks and
// searches, does not suffer from it: on a machine that is short of processor time or disk, each takes from
// the other, and only one of them has somebody waiting for it.
//
// There are three signals. What is felt: the time from a check's arrival to its answer, and how late a
// goroutine wakes, which holds the queues of the system and of Go's scheduler that a request waits in before
// anybody can time it. The latency of checks that groups decide, from the proposal until it is applied, of
// those that came through this node and of those that others sent to the leaders on it, because it holds the
// log, the disk and the network as well. And the time to answer a search. Each is compared with its own value without
// elastic work: what the processor's queue or the disk alone look like would need a bound for each machine. What
// nodes decide is told to their peers, and each goes at the least pace of all.
package elastic
