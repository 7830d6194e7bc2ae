package pkgstore

// PlatformTenant is whose the receipts are of what belongs to no tenant.
const PlatformTenant = "_platform"

// Stage is when a package was verified.
type Stage string

// The stages of verification.
const (
	StagePublish Stage = "publish"
	StageInstall Stage = "install"
	StageLoad    Stage = "load"
)

// Receipt is what one verification came to.
type Receipt struct {
	Stage Stage
	// Tenant is who was to use or to have the package, PlatformTenant for public ones.
	Tenant string
	// Package is NAME@VERSION, as far as it was known; Digest its content, and Archive the bytes that were
	// looked at; all zeros when not known.
	Package         string
	Digest, Archive Digest
	// Key is the key whose signature counted.
	Key Digest
	// Reason is empty when the package was found good, else the code of the refusal, and Message its words.
	Reason, Message string
	// By is the identity that asked.
	By string
	// At is the node's wall clock, in nanoseconds since 1970 UTC.
	At int64
}

// Receipts takes receipts. It never blocks: what it cannot take is counted and lost, and the verification
// stands.
type Receipts interface {
	Record(r Receipt)
}
