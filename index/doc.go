// Package index is the search index of documents: who ran what, from which inputs, under
// which decision, at what cost. Machine is the replicated state machine of one shard;
// Service stores and finds documents across all shards of a region.
//
// Callers bring documents into their canonical form with Normalize (package ingest reads
// foreign formats), store them with Service.Ingest, and find them with Service.Search in the
// language of package query. They have checked before that the identity behind a call may
// reach the tenants it names. DESIGN.md has invariants, flow, limits and formats.
package index
