// Package version says which build this is.
package version

import "runtime/debug"

// Version is the release.
const Version = "mc-0.4.0"

// commit is set by the Makefile, because builds from a checkout may be told not to stamp it.
var commit string

// Commit is the source's commit, or "unknown".
func Commit() string {
	if commit != "" {
		return commit
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				return s.Value
			}
		}
	}
	return "unknown"
}

// String is release and commit.
func String() string { return Version + "+" + short(Commit()) }

func short(c string) string { return c[:min(len(c), 12)] }
