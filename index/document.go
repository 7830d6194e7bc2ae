package index

// Kinds of documents.
const (
	KindReceipt  = "receipt"
	KindEvent    = "event"
	KindDecision = "decision"
)

// Directions of a digest in a document.
const (
	DirectionInput   = "input"
	DirectionOutput  = "output"
	DirectionSubject = "subject"
)

// Document is a receipt, an event or a decision. It belongs to exactly one tenant.
type Document struct {
	// ID is unique in the tenant. Normalize sets an empty one to the SHA-256 of the
	// canonical content, in hex.
	ID     string
	Kind   string
	Tenant string
	Region string
	// Time is when it happened, in nanoseconds since 1970 UTC. TimeStamped is true when the
	// producer gave none: Time is then the server's stamp, or zero before the server has
	// stamped it, and is ignored when contents are compared.
	Time        int64
	TimeStamped bool
	Execution   string
	Task        string
	Pack        string
	Rule        string
	Decision    string
	Reason      string
	Runner      string
	Digests     []Digest
	// CostMicros is millionths of a unit of Currency; there is no cost when Currency is empty.
	CostMicros int64
	Currency   string
	DurationMs uint32
	// Attributes are sorted by name once normalised.
	Attributes []Attribute
}

// Digest is an artifact and its role in the document.
type Digest struct {
	// Algorithm is lower case, such as "sha256"; Value is lower-case hex. Normalize also
	// takes the other spellings of ParseDigest, whole in Value when Algorithm is empty.
	Algorithm string
	Value     string
	Direction string
	// Name is what the producer called the artifact; it may be empty.
	Name string
}

// Attribute is a free field, searched as attr.NAME.
type Attribute struct {
	Name  string
	Value string
}
