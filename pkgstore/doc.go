// Package pkgstore is the catalog of signed workflow packages: what is published, by whose signature,
// who has it installed, and whether it may be used now. The format of a package is in the package
// mwpkg below it; where the catalog's records are kept, behind the interface Store, is node/meta.
//
// Nothing is taken from a package before its signature has been verified, at publish, at install and
// at every load, against the trust keys of that moment and by the region's own time. Every verification
// leaves a receipt. DESIGN.md has the invariants and the reasons.
package pkgstore
