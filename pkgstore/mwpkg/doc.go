// Package mwpkg is the package format of Maestro: workflows in a signed archive that is canonical or
// refused. It makes, reads, signs and verifies packages without a region and without a network.
//
// A package NAME-VERSION.mwpkg.tgz holds manifest.yaml, README.md, examples, the files of the workflow
// and the folder signatures. signatures/SHA256SUMS lists every other file; its SHA-256 is the
// identity of the content, and signatures sign exactly its bytes. So a package can be checked with tar,
// sha256sum -c and cosign verify-blob alone.
//
// Everything that is read is taken for hostile: Open bounds memory and time before it looks at
// content, accepts one serialisation of a content only, and writes nothing. Opening a package says
// that it is well-formed; only Verify says that somebody trusted has signed it.
package mwpkg
