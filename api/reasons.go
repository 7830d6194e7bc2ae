package api

import (
	"context"
	"net/http"

	"connectrpc.com/connect"

	"github.com/maestro-conductor/maestro/index"
	"github.com/maestro-conductor/maestro/limiter"
	"github.com/maestro-conductor/maestro/raftfsm"
)

// reason is one kind of failure as callers see it.
type reason struct {
	// name is the stable snake_case code that callers compare.
	name string
	code connect.Code
	// status is the HTTP status in REST; 0 means the usual one of code.
	status int
	// title is what happened, in general. It is the message when the error's own words are
	// not meant for callers.
	title string
	// hint says what the caller can do.
	hint string
	// retryAfterMs is when a retry can succeed, in milliseconds; 0 when unknown or never.
	retryAfterMs uint32
	// unknown is true when a write that ends so may have taken effect. An error of raftfsm
	// that says otherwise goes first.
	unknown bool
	// opaque errors keep their own words from the caller: they may name what is inside.
	opaque bool
	// sentinels are the errors that mean this; test with errors.Is.
	sentinels []error
}

// Who calls.
var (
	reasonCredentialsMissing = &reason{
		name: "credentials_missing", code: connect.CodeUnauthenticated,
		title: "the request names no identity",
		hint:  "send the header Authorization: Bearer TOKEN with a token of `maestro token create`, or the administrator's client certificate; node certificates are no identities here",
	}
	reasonTokenMalformed = &reason{
		name: "token_malformed", code: connect.CodeUnauthenticated,
		title: "the Authorization header holds no API token",
		hint:  "send exactly one header of the form Authorization: Bearer mct_...",
	}
	reasonTokenUnknown = &reason{
		name: "token_unknown", code: connect.CodeUnauthenticated,
		title: "the API token is not known in this region", opaque: true,
		hint: "check that the token is whole and belongs to this region", sentinels: []error{ErrTokenUnknown},
	}
	reasonTokenExpired = &reason{
		name: "token_expired", code: connect.CodeUnauthenticated,
		title: "the API token has expired", opaque: true,
		hint: "ask an administrator of the tenant for a new token", sentinels: []error{ErrTokenExpired},
	}
	reasonTokenRevoked = &reason{
		name: "token_revoked", code: connect.CodeUnauthenticated,
		title: "the API token was revoked", opaque: true,
		hint: "ask an administrator of the tenant for a new token", sentinels: []error{ErrTokenRevoked},
	}
	reasonCertificateExpired = &reason{
		name: "certificate_expired", code: connect.CodeUnauthenticated,
		title: "the client certificate is outside its validity",
		hint:  "make a new administrator certificate with `maestro certs create` and connect again",
	}
)

// What the identity may do.
var (
	reasonRoleInsufficient = &reason{
		name: "role_insufficient", code: connect.CodePermissionDenied,
		title: "the role of the identity does not allow this",
		hint:  "use a token with the role that the message names, or a higher one",
	}
	reasonPlatformOnly = &reason{
		name: "platform_only", code: connect.CodePermissionDenied,
		title: "only an administrator of the platform may do this",
		hint:  "use the administrator's client certificate, or a token of tenant * with role admin",
	}
	reasonTenantForeign = &reason{
		name: "tenant_foreign", code: connect.CodePermissionDenied,
		title: "the request names another tenant than the identity's",
		hint:  "leave the tenant empty to mean your own, or use a token of that tenant",
	}
	reasonTenantMissing = &reason{
		name: "tenant_missing", code: connect.CodeInvalidArgument,
		title: "the request names no tenant, and the identity belongs to none",
		hint:  "name the tenant: identities of the platform have no own one",
	}
	reasonLimitForeign = &reason{
		name: "limit_foreign", code: connect.CodePermissionDenied,
		title: "a limit with this id belongs to another tenant",
		hint:  "choose another id: ids of limits are unique in the region", sentinels: []error{ErrLimitForeign},
	}
)

// What was sent.
var (
	reasonRouteUnknown = &reason{
		name: "route_unknown", code: connect.CodeUnimplemented, status: http.StatusNotFound,
		title: "there is nothing at this path",
		hint:  "check the path; gRPC reflection lists the procedures",
	}
	reasonMethodNotAllowed = &reason{
		name: "method_not_allowed", code: connect.CodeUnimplemented, status: http.StatusMethodNotAllowed,
		title: "the path does not take this HTTP method",
		hint:  "use the method in the Allow header",
	}
	reasonContentTypeUnknown = &reason{
		name: "content_type_unknown", code: connect.CodeUnimplemented, status: http.StatusUnsupportedMediaType,
		title: "the procedure does not take this content type",
		hint:  "use application/json or application/proto, or a content type of gRPC or gRPC-Web",
	}
	reasonCompressionUnknown = &reason{
		name: "compression_unknown", code: connect.CodeUnimplemented, status: http.StatusUnsupportedMediaType,
		title: "the body is compressed in a way the server does not read",
		hint:  "send gzip or no compression",
	}
	reasonHTTP2Required = &reason{
		name: "http2_required", code: connect.CodeUnimplemented, status: http.StatusHTTPVersionNotSupported,
		title: "a stream in both directions needs HTTP/2",
		hint:  "connect with HTTP/2, or send single requests",
	}
	reasonHeaderMalformed = &reason{
		name: "header_malformed", code: connect.CodeInvalidArgument,
		title: "a header of the protocol cannot be read",
		hint:  "mend the header that the message names, or leave it out",
	}
	reasonMessageMalformed = &reason{
		name: "message_malformed", code: connect.CodeInvalidArgument,
		title: "the body is not the message that the procedure takes",
		hint:  "compare the body with the procedure's message in api/proto; JSON must name known fields only",
	}
	reasonBodyTooLarge = &reason{
		name: "body_too_large", code: connect.CodeResourceExhausted, status: http.StatusRequestEntityTooLarge,
		title: "the body is larger than the procedure takes, as sent or decompressed",
		hint:  "split the batch",
	}
	reasonParameterMalformed = &reason{
		name: "parameter_malformed", code: connect.CodeInvalidArgument,
		title: "a parameter of the URL is unknown, repeated or unreadable",
		hint:  "mend the parameter that the message names",
	}
	reasonTenantMalformed = &reason{
		name: "tenant_malformed", code: connect.CodeInvalidArgument,
		title: "the text cannot name a tenant",
		hint:  "use 1 to 63 of a-z, 0-9, '.', '_' and '-'",
	}
	reasonFieldTooLong = &reason{
		name: "field_too_long", code: connect.CodeInvalidArgument,
		title: "a field is longer than allowed",
		hint:  "shorten the field that the message names",
	}
	reasonFieldMalformed = &reason{
		name: "field_malformed", code: connect.CodeInvalidArgument,
		title: "a field has a value outside its range",
		hint:  "mend the field that the message names", sentinels: []error{index.ErrCondition},
	}
	reasonBatchTooLarge = &reason{
		name: "batch_too_large", code: connect.CodeInvalidArgument,
		title: "the request holds more items than allowed",
		hint:  "split the request; nothing of it was done",
	}
	reasonDocumentRefused = &reason{
		name: "document_refused", code: connect.CodeInvalidArgument, status: http.StatusUnprocessableEntity,
		title: "the only document of the request is refused",
		hint:  "mend what the message names; its first word is the reason, listed below",
	}
	reasonMappingMalformed = &reason{
		name: "mapping_malformed", code: connect.CodeInvalidArgument,
		title: "the mapping for JSON records cannot be used",
		hint:  "mend the mapping at the place that the message names; nothing was ingested",
	}
	reasonLimitInvalid = &reason{
		name: "limit_invalid", code: connect.CodeInvalidArgument,
		title: "a limit or a check is not valid",
		hint:  "mend the field that the message names; nothing was changed", sentinels: []error{limiter.ErrInvalid},
	}
	reasonQueryMalformed = &reason{
		name: "query_malformed", code: connect.CodeInvalidArgument,
		title: "the search query has a mistake",
		hint:  "mend the query at the position that the message names", sentinels: []error{index.ErrQuery},
	}
	reasonCursorMalformed = &reason{
		name: "cursor_malformed", code: connect.CodeInvalidArgument,
		title:     "the cursor is not one that this region made for this search",
		hint:      "pass the next of the previous page unchanged, with the same query and conditions; or start again without a cursor",
		sentinels: []error{index.ErrCursor},
	}
)

// What is there.
var (
	reasonEnvoyDomain = &reason{
		name: "envoy_domain_unknown", code: connect.CodeNotFound,
		title: "the file of envoy_mapping does not list this domain",
		hint:  "add the domain to the file of every node and restart them one by one, or mend the domain in Envoy's configuration; nothing was taken",
	}
	reasonLimitUnknown = &reason{
		name: "limit_unknown", code: connect.CodeNotFound,
		title: "there is no such limit",
		hint:  "list the limits to see their ids; nothing was changed", sentinels: []error{ErrLimitUnknown},
	}
	reasonReservationUnknown = &reason{
		name: "reservation_unknown", code: connect.CodeNotFound,
		title: "the tenant has no reservation with this id",
		hint:  "an id is known until ten minutes after the reservation has expired, and not after a restore; nothing was changed", sentinels: []error{limiter.ErrReservationUnknown},
	}
	reasonSlotUnknown = &reason{
		name: "slot_unknown", code: connect.CodeNotFound,
		title: "the tenant holds no slot with this id",
		hint:  "it has expired or was released: acquire a new one before going on", sentinels: []error{limiter.ErrSlotUnknown},
	}
	reasonRequestUnknown = &reason{
		name: "request_unknown", code: connect.CodeNotFound,
		title: "no check with this request id is known to have taken anything",
		hint:  "checks that were allowed, and had a request id, can be refunded for ten minutes; nothing was changed", sentinels: []error{limiter.ErrRequestUnknown},
	}
	reasonTooManyHeld = &reason{
		name: "too_many_held", code: connect.CodeResourceExhausted,
		title: "the tenant has 100,000 open reservations and held slots",
		hint:  "settle and release them; those that nobody settles count until ten minutes after they have expired; nothing was taken", retryAfterMs: 1000, sentinels: []error{limiter.ErrTooManyHeld},
	}
	reasonPlanUnassigned = &reason{
		name: "plan_unassigned", code: connect.CodeNotFound,
		title: "a tenant that is to leave its plan is on none",
		hint:  "leave out the tenant that the message names; `maestro limit plan list` shows who is on a plan; nothing was changed", sentinels: []error{ErrPlanNone},
	}
	reasonTokenIDUnknown = &reason{
		name: "token_id_unknown", code: connect.CodeNotFound,
		title: "there is no token with this id",
		hint:  "list the tokens to see their ids",
	}
	reasonRequestIDReused = &reason{
		name: "request_id_reused", code: connect.CodeAlreadyExists,
		title: "the request id came with other content before", opaque: true,
		hint: "use a fresh request id for a new request, and the same content for a retry", sentinels: []error{raftfsm.ErrRequestReused},
	}
	reasonAlreadyInitialised = &reason{
		name: "already_initialised", code: connect.CodeFailedPrecondition,
		title: "the region was started before",
		hint:  "nothing is to be done: a region is started once", sentinels: []error{ErrAlreadyInitialised},
	}
	reasonSeedsNotReady = &reason{
		name: "seeds_not_ready", code: connect.CodeFailedPrecondition,
		title: "a seed of the region is not reachable or not empty",
		hint:  "start every node of the seed list with an empty data folder, then repeat", sentinels: []error{ErrSeedsNotReady},
	}
	reasonNotInitialised = &reason{
		name: "not_initialised", code: connect.CodeFailedPrecondition,
		title: "the region has not been started",
		hint:  "run `maestro cluster init` once, with the administrator's certificate", sentinels: []error{ErrNotInitialised},
	}
	reasonNodeUnfit = &reason{
		name: "node_unfit", code: connect.CodeFailedPrecondition,
		title: "the node cannot become a member of the region",
		hint:  "mend what the message lists, then repeat; nothing was changed", sentinels: []error{ErrNodeUnfit},
	}
	reasonNodeNameTaken = &reason{
		name: "node_name_taken", code: connect.CodeAlreadyExists,
		title: "another member has the node's name",
		hint:  "let the new node take its place with `maestro cluster replace`, or give it another name; nothing was changed", sentinels: []error{ErrNodeNameTaken},
	}
	reasonNodeUnknown = &reason{
		name: "node_unknown", code: connect.CodeNotFound,
		title: "no member of the region has this name",
		hint:  "`maestro cluster status` lists the members; nothing was changed", sentinels: []error{ErrNodeUnknown},
	}
	reasonTooFewNodes = &reason{
		name: "too_few_nodes", code: connect.CodeFailedPrecondition,
		title: "fewer than three members would be left",
		hint:  "use `maestro cluster replace`, or add a node first; nothing was changed", sentinels: []error{ErrTooFewNodes},
	}
	reasonTooManyNodes = &reason{
		name: "too_many_nodes", code: connect.CodeFailedPrecondition,
		title: "the region has as many members as it may have",
		hint:  "remove a member, or use `maestro cluster replace`; nothing was changed", sentinels: []error{ErrTooManyNodes},
	}
	reasonNotVoter = &reason{
		name: "not_voter", code: connect.CodeFailedPrecondition,
		title: "the node does not vote in this group, so that it cannot lead it",
		hint:  "choose one of the group's voters in `maestro cluster status`; nothing was changed", sentinels: []error{ErrNotVoter, raftfsm.ErrNotVoter},
	}
	reasonGroupName = &reason{
		name: "group_name_unknown", code: connect.CodeNotFound,
		title: "the region has no group of this name",
		hint:  "`maestro cluster status` lists the groups; nothing was changed", sentinels: []error{ErrGroupName},
	}
	reasonLevel = &reason{
		name: "level_too_low", code: connect.CodeFailedPrecondition,
		title: "a member of the region runs a build that does not know this, or has not been heard of yet",
		hint:  "upgrade every node, and see in `maestro cluster status` that all are reachable; nothing was changed", sentinels: []error{ErrLevel, limiter.ErrLevel},
	}
	reasonMembersChanged = &reason{
		name: "members_changed", code: connect.CodeUnavailable,
		title: "other changes of members got in between",
		hint:  "retry; nothing was changed", retryAfterMs: 200, sentinels: []error{ErrMembersChanged},
	}
	reasonGroupNotEmpty = &reason{
		name: "group_not_empty", code: connect.CodeFailedPrecondition,
		title: "a group to be restored holds other data",
		hint:  "restore into a new region, in which nothing has been done since `maestro cluster init`; nothing was changed in this group", sentinels: []error{raftfsm.ErrNotEmpty},
	}
	reasonRestoreRefused = &reason{
		name: "restore_refused", code: connect.CodeFailedPrecondition,
		title: "a step of a restore does not fit what the group has, or what it can read",
		hint:  "check the backup with `maestro cluster verify`, and use a build that is not older than the one that made it; nothing was changed by this step", sentinels: []error{raftfsm.ErrRestoreRefused},
	}
	reasonBackupGone = &reason{
		name: "backup_gone", code: connect.CodeAborted,
		title: "the reading of the group was ended: its leader changed, or nobody read on for a minute",
		hint:  "read the group again from chunk 0; `maestro cluster backup` does so by itself", sentinels: []error{raftfsm.ErrBackupGone},
	}
	reasonTooManyLimits = &reason{
		name: "too_many_limits", code: connect.CodeFailedPrecondition,
		title: "more than 64 limits match the request",
		hint:  "make the selectors of the limits narrower; nothing was taken", sentinels: []error{limiter.ErrTooManyLimits},
	}
	reasonIndexReadOnly = &reason{
		name: "index_read_only", code: connect.CodeFailedPrecondition, status: http.StatusServiceUnavailable,
		title: "the region's index takes no documents at present; nothing was stored",
		hint:  "keep the documents and send them again once an administrator of the platform has run `maestro index write on`", sentinels: []error{index.ErrReadOnly},
	}
	reasonIndexOff = &reason{
		name: "index_off", code: connect.CodeFailedPrecondition, status: http.StatusServiceUnavailable,
		title: "the region's index is switched off: it neither takes documents nor answers searches",
		hint:  "an administrator of the platform switches it on with `maestro index write on`, or to reading with `maestro index write read-only`", sentinels: []error{index.ErrOff},
	}
	reasonRetentionUnknown = &reason{
		name: "retention_rule_unknown", code: connect.CodeNotFound,
		title: "there is no such rule of retention, or it cannot be",
		hint:  "`maestro index retention list` shows the rules by name; nothing was changed", sentinels: []error{index.ErrRetention},
	}
	reasonRetentionKey = &reason{
		name: "disposition_key_missing", code: connect.CodeFailedPrecondition,
		title: "the node has no key to sign records of dispositions with; nothing was changed",
		hint:  "make disposition.key with `maestro certs create`, name it as disposition_key in the configuration of every node, and restart them one by one", sentinels: []error{index.ErrRetentionKey},
	}
	reasonServiceOff = &reason{
		name: "service_off", code: connect.CodeUnimplemented,
		title: "the service is switched off on this node",
		hint:  "ask a node whose configuration lists the service", sentinels: []error{ErrServiceOff},
	}
)

// What the cluster can do now.
var (
	reasonOverloaded = &reason{
		name: "overloaded", code: connect.CodeResourceExhausted,
		title: "too many requests are under way", opaque: true,
		hint: "retry later, with fewer requests at a time", retryAfterMs: 200, sentinels: []error{raftfsm.ErrOverloaded},
	}
	reasonTenantOverloaded = &reason{
		name: "tenant_overloaded", code: connect.CodeResourceExhausted,
		title: "the tenant has too many requests under way",
		hint:  "retry later, with fewer requests at a time", retryAfterMs: 200,
	}
	reasonRestoring = &reason{
		name: "restoring", code: connect.CodeUnavailable,
		title: "the group that owns the data is being restored from a backup", opaque: true,
		hint: "retry once the restore has ended; if it was interrupted, repeat `maestro cluster restore` with the same folder", retryAfterMs: 5000,
		sentinels: []error{raftfsm.ErrRestoring},
	}
	reasonDiskFull = &reason{
		name: "disk_full", code: connect.CodeResourceExhausted,
		title: "the disks of the group that owns the data are nearly full", opaque: true,
		hint: "retry later; reads, checks and administration go on, and an operator has to make room on the nodes", retryAfterMs: 5000,
		sentinels: []error{raftfsm.ErrDiskFull},
	}
	reasonCommandTooLarge = &reason{
		name: "command_too_large", code: connect.CodeResourceExhausted, status: http.StatusRequestEntityTooLarge,
		title: "the write is larger than the replicated log takes at once", opaque: true,
		hint: "split the request", sentinels: []error{raftfsm.ErrTooLarge},
	}
	reasonNoLeader = &reason{
		name: "no_leader", code: connect.CodeUnavailable,
		title: "the group that owns the data has no leader within reach", opaque: true,
		hint: "retry: a group elects a leader within seconds while a majority of its nodes is up", retryAfterMs: 500,
		sentinels: []error{raftfsm.ErrNoLeader},
	}
	reasonLost = &reason{
		name: "lost", code: connect.CodeUnavailable,
		title: "the leader or the link to it was lost during the request", opaque: true,
		hint: "retry with the same request id to learn what became of it", retryAfterMs: 500, unknown: true,
		sentinels: []error{raftfsm.ErrLost},
	}
	reasonIncomplete = &reason{
		name: "incomplete", code: connect.CodeUnavailable,
		title: "a shard could not answer, and the search asked for all of them", opaque: true,
		hint: "retry, or take what the other shards have by not requiring completeness", retryAfterMs: 500,
		sentinels: []error{index.ErrIncomplete},
	}
	reasonNotReady = &reason{
		name: "not_ready", code: connect.CodeUnavailable,
		title: "the node has not caught up with the region since its start",
		hint:  "retry, or ask another node of the region", retryAfterMs: 500, opaque: true,
		sentinels: []error{ErrNotReady, index.ErrNotReady},
	}
	reasonMetaStale = &reason{
		name: "meta_stale", code: connect.CodeUnavailable,
		title: "this node is cut off from the group meta and may not know of revocations, so it refuses all but checks that its leases decide",
		hint:  "retry on another node of the region; nothing was done here", retryAfterMs: 500,
		opaque: true, sentinels: []error{ErrMetaStale},
	}
	reasonVersionMismatch = &reason{
		name: "version_mismatch", code: connect.CodeUnavailable,
		title: "nodes of different versions do not understand each other", opaque: true,
		hint: "retry: the upgrade that is under way ends it; nothing was changed", retryAfterMs: 1000,
		sentinels: []error{limiter.ErrRefused, raftfsm.ErrVersion},
	}
	reasonNotMember = &reason{
		name: "not_member", code: connect.CodeUnavailable,
		title: "this node is not a member of the region's cluster", opaque: true,
		hint:      "ask another node of the region; an operator sees the members in `maestro cluster status`",
		sentinels: []error{raftfsm.ErrOtherCluster, raftfsm.ErrNotMember, raftfsm.ErrOtherTarget, raftfsm.ErrDuplicate},
	}
	reasonNodeRemoved = &reason{
		name: "node_removed", code: connect.CodeUnavailable,
		title: "this node was removed from the region",
		hint:  "ask another node; the operator of this one can stop it, or empty its data folder and add it as a new node", sentinels: []error{ErrNodeRemoved},
	}
	reasonGroupUnknown = &reason{
		name: "group_unknown", code: connect.CodeUnavailable,
		title: "this node does not host the group that owns the data", opaque: true,
		hint: "ask another node of the region", sentinels: []error{raftfsm.ErrUnknownGroup, raftfsm.ErrTargetUnknown},
	}
	reasonShutdown = &reason{
		name: "shutting_down", code: connect.CodeUnavailable,
		title: "the node is stopping", opaque: true,
		hint: "retry on another node of the region", retryAfterMs: 100, sentinels: []error{raftfsm.ErrShutdown},
	}
	reasonDeadline = &reason{
		name: "deadline_exceeded", code: connect.CodeDeadlineExceeded,
		title: "the deadline passed before the request was done", opaque: true,
		hint: "retry with the same request id, and a longer deadline", unknown: true, sentinels: []error{context.DeadlineExceeded},
	}
	reasonCanceled = &reason{
		name: "canceled", code: connect.CodeCanceled,
		title: "the client ended the request before it was done", opaque: true,
		hint: "repeat a write with the same request id to learn what became of it", unknown: true, sentinels: []error{context.Canceled},
	}
	reasonInternal = &reason{
		name: "internal", code: connect.CodeInternal,
		title: "the server failed in a way it should not", opaque: true,
		hint: "report the id in the message: the node's log has the cause under it", unknown: true,
	}
)

// reasons is the table of all failures, in the order of docs/errors.md. The first row with a
// matching sentinel wins.
var reasons = append([]*reason{
	reasonCredentialsMissing, reasonTokenMalformed, reasonTokenUnknown, reasonTokenExpired, reasonTokenRevoked,
	reasonCertificateExpired,
	reasonRoleInsufficient, reasonPlatformOnly, reasonTenantForeign, reasonTenantMissing, reasonLimitForeign,
	reasonRouteUnknown, reasonMethodNotAllowed, reasonContentTypeUnknown, reasonCompressionUnknown, reasonHTTP2Required,
	reasonHeaderMalformed, reasonMessageMalformed, reasonBodyTooLarge, reasonParameterMalformed, reasonTenantMalformed,
	reasonFieldTooLong, reasonFieldMalformed, reasonBatchTooLarge, reasonDocumentRefused, reasonMappingMalformed, reasonLimitInvalid,
	reasonQueryMalformed, reasonCursorMalformed,
	reasonEnvoyDomain, reasonLimitUnknown, reasonPlanUnassigned, reasonReservationUnknown, reasonSlotUnknown, reasonRequestUnknown, reasonTooManyHeld, reasonTokenIDUnknown, reasonRequestIDReused, reasonAlreadyInitialised, reasonSeedsNotReady,
	reasonNotInitialised, reasonNodeUnfit, reasonNodeNameTaken, reasonNodeUnknown, reasonTooFewNodes, reasonTooManyNodes,
	reasonNotVoter, reasonGroupName, reasonLevel, reasonGroupNotEmpty, reasonRestoreRefused, reasonBackupGone, reasonTooManyLimits, reasonIndexReadOnly, reasonIndexOff, reasonRetentionUnknown, reasonRetentionKey, reasonServiceOff,
	reasonIncomplete, reasonNotReady, reasonMetaStale, reasonOverloaded, reasonTenantOverloaded, reasonRestoring, reasonDiskFull, reasonCommandTooLarge, reasonNoLeader, reasonLost,
	reasonVersionMismatch, reasonMembersChanged, reasonNodeRemoved, reasonNotMember, reasonGroupUnknown, reasonShutdown, reasonDeadline, reasonCanceled, reasonInternal,
}, packageReasons()...)
