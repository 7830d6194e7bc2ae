package policies

import "encoding/json"

// Input is what packs decide on. What it holds is what may be recorded; it is recorded as JSON, and the rules of
// packs see it under the names of that JSON.
type Input struct {
	// Tenant is the tenant that the request names, empty when it names none.
	Tenant  string  `json:"tenant"`
	Subject Subject `json:"subject"`
	// Action is a procedure of the API (/mc.limiter.v1.Limiter/Check), or a verb of the orchestrator (execution.start).
	Action      string   `json:"action"`
	Resource    Resource `json:"resource"`
	ExecutionID string   `json:"executionId,omitempty"`
	Token       string   `json:"token,omitempty"`
	Key         string   `json:"key,omitempty"`
	// Cost is what the request takes of limits and quotas.
	Cost uint64 `json:"cost"`
	// Limits are those that the request meets, by level (global, tenant, token, key) and id.
	Limits map[string]map[string]Limit `json:"limits,omitempty"`
	// Quotas are the tenant's, by name.
	Quotas map[string]Quota `json:"quotas,omitempty"`
	// Package and TenantPolicy are set for actions on a package.
	Package      *PackageFacts `json:"package,omitempty"`
	TenantPolicy *TenantPolicy `json:"tenantPolicy,omitempty"`
}

// Subject is who asks.
type Subject struct {
	ID string `json:"id"`
	// Tenant is the subject's own, or * for the platform.
	Tenant     string            `json:"tenant"`
	Roles      []string          `json:"roles"`
	Attributes map[string]string `json:"attributes,omitempty"`
}

// Resource is what the action is on.
type Resource struct {
	Kind       string            `json:"kind,omitempty"`
	ID         string            `json:"id,omitempty"`
	Attributes map[string]string `json:"attributes,omitempty"`
}

// Kinds of limits.
const (
	KindRate        = "rate"
	KindConcurrency = "concurrency"
	KindBanned      = "banned"
)

// Limit is one limit and its use at the moment of the request.
type Limit struct {
	// Kind is rate, concurrency or banned.
	Kind  string `json:"kind"`
	Limit uint64 `json:"limit"`
	Used  uint64 `json:"used"`
	// RetryAfterMs is when a limit of kind rate would admit the cost; 0 for others.
	RetryAfterMs uint64 `json:"retryAfterMs,omitempty"`
}

// Quota is how much of something a tenant may have.
type Quota struct {
	Limit uint64 `json:"limit"`
	Used  uint64 `json:"used"`
	// RetryAfterMs is when the quota begins anew; 0 for one that does not.
	RetryAfterMs uint64 `json:"retryAfterMs,omitempty"`
}

// PackageFacts are what is known of a package after its verification.
type PackageFacts struct {
	Name      string `json:"name"`
	Version   string `json:"version"`
	Digest    string `json:"digest,omitempty"`
	Publisher string `json:"publisher"`
	// Status is empty, deprecated, yanked or blocked.
	Status string `json:"status"`
	// Signers are the ids of the keys whose signatures hold.
	Signers []string `json:"signers"`
	// Capabilities are such as network, secret:NAME and command:NAME; Egress are HOST:PORT.
	Capabilities []string `json:"capabilities"`
	Egress       []string `json:"egress"`
}

// TenantPolicy is what a tenant wants of packages. A list that is nil does not restrict, but for Publishers; an
// empty one admits nothing.
type TenantPolicy struct {
	MinSigners   uint64   `json:"minSigners,omitempty"`
	Signers      []string `json:"signers,omitzero"`
	Publishers   []string `json:"publishers,omitzero"`
	Capabilities []string `json:"capabilities,omitzero"`
	Egress       []string `json:"egress,omitzero"`
}

// MaxInput bounds an input, in bytes of its strings and 16 for each of its values.
const MaxInput = 64 << 10

// ParseInput reads a recorded input. Fields that it does not know are refused: what is not
// evaluated again must not be in the record.
func ParseInput(data []byte) (*Input, error) {
	if len(data) > 4*MaxInput {
		return nil, refuse(CodeInput, "", "the input has %d bytes; at most %d are read", len(data), 4*MaxInput)
	}
	if err := checkJSON(data); err != nil {
		return nil, refuse(CodeInput, "", "the input is not one JSON value: %v", err)
	}
	in := new(Input)
	if err := strictUnmarshal(data, in); err != nil {
		return nil, refuse(CodeInput, "", "the input cannot be read: %v", err)
	}
	return in, nil
}

// Record is the input as JSON, as it is recorded: the same bytes for the same input.
func (in *Input) Record() ([]byte, error) {
	data, err := json.Marshal(in)
	if err != nil {
		return nil, refuse(CodeInput, "", "the input cannot be written: %v", err)
	}
	return data, nil
}
