// Package interop tries a region and packages with the programs of others that they must work with. Its tests need
// a real Envoy, cosign and node, and are run by make interop; without the build tag interop there are none.
package interop
