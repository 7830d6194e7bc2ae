// Package policies decides by policy packs: sets of Rego rules, each of which may deny a request and says
// why, when to try again and what to do about it. It makes packs, tests, signs and verifies them, and
// evaluates them, without a region and without a network.
//
// A pack has one root, such as mc/limits, and one partial set under it, violation. Its members are objects with
// rule, reason and, where time cures it, retryAfterMs. Nothing in the set means that the pack allows.
//
// Evaluation depends on the pack and the input alone: packs have no clock, no randomness, no network
// and no environment, and what bounds them is a count of steps, so that every node decides alike and a
// recorded decision can be replayed. An error of an evaluation is no decision; callers deny on it.
//
// Every pack that is opened is taken for hostile until Verify has said who signed it.
package policies
