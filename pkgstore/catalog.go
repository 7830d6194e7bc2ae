package pkgstore

import "github.com/maestro-conductor/maestro/pkgstore/mwpkg"

// Public is the namespace of packages that every tenant may use, and of the platform's trust keys.
const Public = "*"

// Bounds of what the catalog keeps. Beyond one a call is refused with an error that names it.
const (
	// ArchiveBytesMax bounds a package as it is sent.
	ArchiveBytesMax = mwpkg.MaxPackage
	// ChunkBytes is how much of an archive one command carries, and one row keeps: below what a command
	// of the log may hold, and enough that a megabyte is four commits.
	ChunkBytes = 256 << 10
	// PackagesMax bounds the versions of packages in a region, InstallsMax the installed ones.
	PackagesMax = 100_000
	InstallsMax = 100_000
	// KeysMax bounds the trust keys of a region, revoked ones included, which stay.
	KeysMax = 1000
	// PackagesOfOneMax, InstallsOfOneMax and KeysOfOneMax bound those of a tenant.
	PackagesOfOneMax = PackagesMax / 10
	InstallsOfOneMax = 1000
	KeysOfOneMax     = 64
	// SignaturesMax bounds the signatures of one package version.
	SignaturesMax = mwpkg.MaxSignatures
	// HistoryMax is how many earlier versions of an install a rollback can reach.
	HistoryMax = 10
	// UploadsMax bounds archives that have begun to arrive and are not published, in a region, and
	// UploadsOfOneMax those of a tenant.
	UploadsMax      = 64
	UploadsOfOneMax = 16
	// NameBytesMax and VersionBytesMax bound what a package is called; KeyBytesMax a namespace and both.
	NameBytesMax    = 128
	VersionBytesMax = 64
	KeyBytesMax     = 63 + 1 + NameBytesMax + 1 + VersionBytesMax
	// TextBytesMax bounds a title, a description, a comment and the reason of a yank as they are kept.
	TextBytesMax = 1024
	// CapabilitiesMax bounds the capabilities of a package that a search can ask for, and
	// CapabilityBytesMax one of them.
	CapabilitiesMax    = 32
	CapabilityBytesMax = 280
)

// Digest is a SHA-256.
type Digest = mwpkg.Digest

// Stamp is what every record of the region carries.
type Stamp struct {
	// Origin is the region where the record was last changed.
	Origin string
	// Version counts its changes.
	Version uint64
	// Wall is the hybrid logical clock of the last change, in nanoseconds since 1970 UTC.
	Wall int64
}

// Package is one version of a package.
type Package struct {
	// Namespace is the tenant whose private package it is, or Public.
	Namespace     string
	Name, Version string
	// Digest identifies the content: the SHA-256 of signatures/SHA256SUMS. No signature changes it.
	Digest Digest
	// Archive is the SHA-256 of the .mwpkg.tgz as it is served, of Size bytes. A new signature changes it.
	Archive Digest
	Size    uint64
	// Title and Description are of the manifest, cut to TextBytesMax.
	Title, Description string
	// Capabilities are what the manifest declares, as words for a search.
	Capabilities []string
	// Publisher is the identity that published it, Published when, in nanoseconds since 1970 UTC.
	Publisher string
	Published int64
	// Signatures were all good when the region saw them; they are only ever added.
	Signatures []Signature
	Yank       Yank
	Stamp      Stamp
}

// Signature is by a trust key over SHA256SUMS.
type Signature struct {
	// Namespace and Key name the trust key.
	Namespace string
	Key       Digest
	// Bytes is the ASN.1 form of an ECDSA signature.
	Bytes []byte
	// At is when the region saw it first, by its own time. What a signer claims is nowhere.
	At int64
}

// ID is the name that people use.
func (p *Package) ID() string { return p.Name + "@" + p.Version }

// YankKind says how much a version is taken back.
type YankKind byte

// The kinds of yank, from least to most.
const (
	// YankNone is nothing.
	YankNone YankKind = iota
	// Deprecated versions can be used; whoever installs one is told.
	Deprecated
	// Yanked versions are not installed any more; where they are, they go on, and a lock file that has
	// them can be installed again.
	Yanked
	// Blocked versions are not installed and not loaded. There is no way back.
	Blocked
)

var yankNames = [...]string{"", "deprecated", "yanked", "blocked"}

func (k YankKind) String() string { return yankNames[k] }

// ParseYank is the inverse of String; the empty text lifts a yank.
func ParseYank(s string) (YankKind, bool) {
	for k, name := range yankNames {
		if s == name {
			return YankKind(k), true
		}
	}
	return 0, false
}

// Yank takes a version back.
type Yank struct {
	Kind   YankKind
	Reason string
	At     int64
}

// Install is a package that a tenant uses.
type Install struct {
	Tenant, Name string
	Ref
	// By is the identity that installed it, At when.
	By string
	At int64
	// History are the versions before it, the latest first.
	History []Ref
	Stamp   Stamp
}

// Ref is a version of a package whose name is known, pinned to its content.
type Ref struct {
	Version string
	// Namespace is where the package is: the tenant's own, or Public.
	Namespace string
	Digest    Digest
}
