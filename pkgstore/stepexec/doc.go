// Package stepexec runs the workflow of a package on this machine: each step one program in a
// sandbox, with the inputs that the package declares and nothing else of its surroundings.
//
// Run takes a package that mwpkg has read and gives a Report: how each step ended, and what
// went in and came out, by digest. Steps get a clean environment, a folder with the package's
// files, folders of the run to work and to leave artifacts in, and the values that their
// manifest names. They get no network unless the manifest declares it and the caller grants it,
// and no more time, memory, output or room than the limits say; at its end nothing that a step
// started is left.
//
// Duties of the caller: call sandbox.Init first thing in main; verify the package's signature,
// which this package does not; and decide about Options.AllowNetwork and
// Options.AllowUnisolated, which are off.
package stepexec
