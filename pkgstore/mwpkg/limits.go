package mwpkg

import "github.com/maestro-conductor/maestro/internal/blobsign"

// Limits of a package. They hold in every build of the format's version 1: a package that one
// build accepts is not refused by another for its size.
const (
	// MaxPackage bounds an archive, in bytes.
	MaxPackage = 32 << 20
	// MaxContent bounds the tar inside, in bytes. It may also not be larger than
	// MaxRatioBase and MaxRatio times the archive.
	MaxContent   = 32 << 20
	MaxRatioBase = 1 << 20
	MaxRatio     = 100
	// MaxFiles bounds the number of files, signatures included.
	MaxFiles = 1024
	// MaxPath bounds a path, in bytes: what the name field of a USTAR header holds.
	MaxPath = 100
	// MaxDepth bounds the folders of a path.
	MaxDepth = 8
	// MaxManifest bounds manifest.yaml, and each example, in bytes.
	MaxManifest = 64 << 10
	// MaxReadme bounds README.md, in bytes.
	MaxReadme = 256 << 10
	// MaxSignatures bounds the signatures of one package.
	MaxSignatures = 16
	// MaxBundle bounds a sigstore bundle, and a file of a blob signature, in bytes.
	MaxBundle = blobsign.MaxSize
	// MaxSteps bounds the steps of a workflow, MaxInputs its inputs and its outputs.
	MaxSteps  = 64
	MaxInputs = 64
	// MaxTrustKeys bounds the keys of a trust file.
	MaxTrustKeys = 1024
)

// Names inside a package.
const (
	ManifestPath = "manifest.yaml"
	ReadmePath   = "README.md"
	SumsPath     = "signatures/SHA256SUMS"
	// SignaturePath and BundlePath hold the primary signature: base64, and as a sigstore bundle.
	// Further ones are bundles beside them, named for their key: signatures/KEYID.sigstore.json.
	SignaturePath = "signatures/cosign.sig"
	BundlePath    = "signatures/bundle.sigstore.json"
	// Suffix ends the file name of a package.
	Suffix = ".mwpkg.tgz"
)
