package api

import (
	"time"

	"github.com/maestro-conductor/maestro/index"
	"github.com/maestro-conductor/maestro/limiter"
	"github.com/maestro-conductor/maestro/pkgstore"
)

// Limits of the API port. docs/errors.md lists them beside the reasons they are refused with.
const (
	// MaxBodyBytes bounds the body of a request, before and after decompression. On a stream
	// it bounds each message.
	MaxBodyBytes = 4 << 20
	// MaxHeaderBytes bounds the header of a request.
	MaxHeaderBytes = 16 << 10
	// MaxPage is the most items a page of a search holds; DefaultPage is what 0 means.
	MaxPage     = index.PageMax
	DefaultPage = 50
	// DefaultFacetValues is how many values of a facet are told when the request does not say.
	DefaultFacetValues = 10
	// How far a walk goes when the request does not say; the most are in package index.
	DefaultLineageDepth     = 5
	DefaultLineageDocuments = 1000
	DefaultLineageDigests   = 10_000
	// MaxBatchDocuments bounds the documents of one ingest, those in its records included.
	MaxBatchDocuments = 5000
	// MaxBatchLimits bounds the limits, and the ids of limits, in one request.
	MaxBatchLimits = 1000
	// MaxBatchPlans bounds the assignments to plans in one request, and in one page of a list.
	MaxBatchPlans = 1000
	// MaxBatchChecks bounds the checks in one request.
	MaxBatchChecks = 1000
	// MaxBusyKeys is the most keys that Top tells of; DefaultBusyKeys is what 0 means.
	MaxBusyKeys     = 100
	DefaultBusyKeys = 20
	// MaxLeaseAsks and MaxLeaseReports bound one message about leases, and one of its asks.
	MaxLeaseAsks    = 100
	MaxLeaseReports = 64
	// maxLeaseTokens bounds the numbers of a report: no epoch is granted more.
	maxLeaseTokens = 1 << 62
	// MaxStreamMessages bounds the messages of one stream of checks that are decided at the same time.
	MaxStreamMessages = 16
	// MaxTokenBytes and MaxKeyBytes bound what a check names.
	MaxTokenBytes = limiter.SubjectBytesMax
	MaxKeyBytes   = limiter.SubjectBytesMax
	// MaxRequestIDBytes bounds the id that a caller chooses for a write.
	MaxRequestIDBytes = limiter.RequestIDBytesMax
	// MaxDescriptionBytes bounds the description of an API token.
	MaxDescriptionBytes = 256
	// MaxQueryBytes bounds a search query, and MaxCursorBytes the cursor beside it.
	MaxQueryBytes  = 8 << 10
	MaxCursorBytes = 4 << 10
	// maxSecretBytes bounds the API token in the Authorization header.
	maxSecretBytes = 256
)

// Deadlines that the server sets when the client sends none. MaxDeadline holds whatever the
// client asks for, so that no request keeps its place in the queue for good.
const (
	DeadlineCheck  = 5 * time.Second
	DeadlineSearch = 10 * time.Second
	DeadlineIngest = 30 * time.Second
	DeadlineAdmin  = 15 * time.Second
	MaxDeadline    = 60 * time.Second
	// maxFreshWait is how long a request waits on a node that is cut off from meta before it is
	// refused: meta gets a new leader within it.
	maxFreshWait = 2 * time.Second
	// StreamIdle is how long a stream may stay without a message.
	StreamIdle = 2 * time.Minute
)

// classLimit bounds one class of procedures on a node. Beyond it a request is shed at once with
// the reason overloaded; beyond half of it, which is the share of one tenant, with
// tenant_overloaded. The platform's identities serve many tenants and have no share.
type classLimit struct {
	name string
	// requests may be under way at the same time; a stream is one.
	requests int
	// bytes of their bodies, as sent, may be in memory.
	bytes int64
	// body bounds a message, as sent and inflated.
	body int
}

// classLimits have rooms of their own, so that a heavy ingest cannot starve checks.
var classLimits = [classes]classLimit{
	// Checks and searches have a few hundred bytes; the body's bound is for JSON with every field
	// at its longest and escaped.
	classCheck:  {"check", 4096, 32 << 20, 64 << 10},
	classSearch: {"search", 256, 8 << 20, 64 << 10},
	// Ten thousand digests as long as there are.
	classLookup: {"lookup", 32, 32 << 20, MaxBodyBytes},
	// Eight of the largest batches of one tenant. More only wait for the shards.
	classIngest: {"ingest", 32, 64 << 20, MaxBodyBytes},
	classStream: {"stream", 64, 64 << 20, MaxBodyBytes},
	classAdmin:  {"admin", 64, 32 << 20, MaxBodyBytes},
	// Twice the readings that a leader serves.
	classBackup: {"backup", 8, 8 << 20, MaxBodyBytes},
	// A batch of checks whose fields are all at their longest.
	classBatch: {"batch", 128, 32 << 20, 1 << 20},
	// Each message of these streams takes a place among the batches while it is decided.
	classCheckStream: {"check_stream", 256, 64 << 20, 1 << 20},
	// Answers to messages of these streams, until they are sent: all of them without levels.
	classCheckAnswer: {"check_answer", 4096, 64 << 20, 0},
	// Archives of packages, one message each: as they arrive, or read to be verified.
	classPackage:     {"package", 16, 128 << 20, pkgstore.ArchiveBytesMax},
	classPackageRead: {"package_read", 64, 8 << 20, 64 << 10},
	// A stream of each client or sidecar that decides by itself.
	classLease: {"lease", 1024, 32 << 20, 1 << 20},
}

// Connections of the listener; see NewServer.
const (
	maxConnections       = 4096
	maxConcurrentStreams = 1024
	readHeaderTimeout    = 10 * time.Second
	readTimeout          = 60 * time.Second
	writeTimeout         = 90 * time.Second
	idleTimeout          = 2 * time.Minute
	drainTimeout         = 10 * time.Second
)
