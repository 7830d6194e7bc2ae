#!/usr/bin/env bash
# Prints the path of a cosign binary: COSIGN when it is set, else one that is built once, in some minutes, into
# .cache/cosign from its Go module, whose version is pinned here and whose checksum the Go checksum database has.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ -n "${COSIGN:-}" ]; then
	echo "$COSIGN"
	exit
fi
version=v3.1.3
dir=$PWD/.cache/cosign/$version
if [ ! -x "$dir/cosign" ]; then
	mkdir -p "$dir"
	echo "cosign: building $version, once" >&2
	# Built aside and moved, so that a build that was broken off leaves nothing that looks like a binary.
	fresh=$(mktemp -d "$dir/build.XXXXXX")
	trap 'rm -rf "$fresh"' EXIT
	GOBIN=$fresh GOFLAGS= go install "github.com/sigstore/cosign/v3/cmd/cosign@$version" >&2
	mv "$fresh/cosign" "$dir/cosign"
fi
echo "$dir/cosign"
