package index

import (
	"context"

	"github.com/maestro-conductor/maestro/index/query"
	"github.com/maestro-conductor/maestro/raftfsm"
)

// Groups is what the index needs of the cluster; *raftfsm.Host provides it.
type Groups interface {
	Propose(ctx context.Context, group raftfsm.GroupID, cmd raftfsm.Command) (raftfsm.Result, error)
	Query(ctx context.Context, group raftfsm.GroupID, query []byte, c raftfsm.Consistency) (raftfsm.Answer, error)
	// Level is what every member of the region understands.
	Level() int
}

// Shard is one group of the index.
type Shard struct {
	// Name is the group's name, such as "index-0".
	Name  string
	Group raftfsm.GroupID
}

// Refusal is one document that was not taken.
type Refusal struct {
	// Position counts from 0 in the batch.
	Position int
	ID       string
	// Reason is a stable snake_case code; Message says what is wrong and how to mend it.
	Reason  string
	Message string
}

// ShardPosition is how far a shard had applied its log when it acknowledged a write.
type ShardPosition struct {
	Shard   string
	Applied uint64
}

// IngestResult accounts for every document of a batch:
// Indexed + Existing + len(Refusals) is its length.
type IngestResult struct {
	Indexed  int
	Existing int
	// ExistingAt are the positions in the batch of those that were there already, in order.
	ExistingAt []int
	Refusals   []Refusal
	Positions  []ShardPosition
}

// SearchRequest is a query and where to stop.
type SearchRequest struct {
	// Query is in the search language; empty matches everything.
	Query string
	// Tenant restricts to one tenant; empty means all of them, which only the platform's own
	// identities may ask. The caller of Search has checked that.
	Tenant string
	// Pack and Digest are further conditions; From and To bound Time to [From, To) in
	// nanoseconds since 1970 UTC, 0 meaning open.
	Pack   string
	Digest string
	From   int64
	To     int64
	// Limit is the page's size, 1 to PageMax.
	Limit int
	// Cursor is the Next of the previous page.
	Cursor string
	// Exact asks for an exact total.
	Exact bool
	// RequireComplete makes a shard that cannot answer an error.
	RequireComplete bool
	// Follow gives the last page a Next too, for the documents that are stored later, and
	// requires completeness. All pages are asked for with it, lest a shard was missing on one.
	Follow bool
	// Order is in which order documents are found.
	Order Order
	// Facets are the fields of FacetFields whose FacetValues most frequent values among all
	// matches are counted, however many pages there are.
	Facets      []query.Field
	FacetValues int
	// Histogram counts all matches by time, in buckets of so many nanoseconds, or HistogramAuto.
	// With it or with Facets the total is exact.
	Histogram int64
	// Explain asks what the search did.
	Explain bool
}

// SearchResult is one page, in the order that was asked for.
type SearchResult struct {
	Items []Document
	// Next is the cursor of the next page; empty on the last, unless the search follows.
	Next string
	// Last is true on the last page; of a search that follows, on the last one of each round.
	Last bool
	// Total is how many documents match; TotalExact is false when counting stopped early.
	Total      int
	TotalExact bool
	// Complete is false when a shard could not answer.
	Complete bool
	Shards   []ShardState
	// Facets are in the order of the request; Histogram is nil when it was not asked for.
	Facets    []Facet
	Histogram *Histogram
	// Explain is nil when it was not asked for.
	Explain *Explain
}

// ShardState is one shard's part in an answer.
type ShardState struct {
	Shard string
	// State is "ok", "partial", "timeout", "unreachable" or "error".
	State   string
	Applied uint64
	// Message says why it could not answer, and Missing what is not among the documents found.
	Message string
	Missing string
}

// Names of ShardState.State.
const (
	ShardOK          = "ok"
	ShardPartial     = "partial" // it has answered without segments that it cannot read
	ShardTimeout     = "timeout"
	ShardUnreachable = "unreachable"
	ShardError       = "error"
)

const (
	// proposalsMax bounds the commands that all calls of Ingest have in flight on this node. They
	// have partBytes each, and the size of a document at most.
	proposalsMax = 128
	// partsInFlightMax bounds those of one batch in one shard, so that a batch at full speed does
	// not wait for a commit after each, and a large batch leaves room for others.
	partsInFlightMax = 8
)

// Pacer makes ingest give way to work that cannot wait; *elastic.Pacer is one.
type Pacer interface {
	// Enter admits a batch of so many bytes, or refuses it at once.
	Enter(bytes int) error
	// Wait waits until the next bytes of it may be proposed.
	Wait(ctx context.Context, bytes int) error
	// Leave takes back what was entered and not waited for.
	Leave(bytes int)
}

// Service stores and finds documents across the shards of a region. It is safe for
// concurrent use. Its only goroutines are those that look for a shard without a leader while
// searches want it.
type Service struct {
	groups    Groups
	shards    []Shard
	router    router
	cursorKey func() ([]byte, bool)
	proposals chan struct{}
	pacer     Pacer
	hedger    hedger
	missing   missing
}

// NewService serves the region's shards, which are fixed when it is created. cursorKey
// returns the region's secret for cursors, false while the node does not know it yet.
func NewService(groups Groups, shards []Shard, cursorKey func() ([]byte, bool), pacer Pacer) *Service {
	return &Service{
		groups:    groups,
		shards:    shards,
		router:    newRouter(shards),
		cursorKey: cursorKey,
		proposals: make(chan struct{}, proposalsMax),
		pacer:     pacer,
		missing:   missing{shards: make([]missingShard, len(shards))},
	}
}
