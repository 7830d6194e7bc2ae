#!/usr/bin/env bash
# Prints the path of an opa binary: OPA when it is set, else one that is built once, in some minutes, into
# .cache/opa from its Go module, whose version is the one of go.mod and whose checksum the Go checksum database has.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ -n "${OPA:-}" ]; then
	echo "$OPA"
	exit
fi
version=$(go list -m -f '{{.Version}}' github.com/open-policy-agent/opa)
dir=$PWD/.cache/opa/$version
if [ ! -x "$dir/opa" ]; then
	mkdir -p "$dir"
	echo "opa: building $version, once" >&2
	# Built aside and moved, so that a build that was broken off leaves nothing that looks like a binary.
	fresh=$(mktemp -d "$dir/build.XXXXXX")
	trap 'rm -rf "$fresh"' EXIT
	GOBIN=$fresh GOFLAGS= go install "github.com/open-policy-agent/opa@$version" >&2
	mv "$fresh/opa" "$dir/opa"
fi
echo "$dir/opa"
