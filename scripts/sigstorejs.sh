#!/usr/bin/env bash
# Prints the folder of modules that interop/sigstorejs needs: they are fetched once from npm into .cache/sigstorejs,
# with the versions and checksums of its package-lock.json. Needs node 20 or later.
set -euo pipefail
cd "$(dirname "$0")/.."
if ! command -v node >/dev/null || ! command -v npm >/dev/null; then
	echo "sigstorejs: node and npm are needed, version 20 or later of node, from https://nodejs.org or the distribution" >&2
	exit 1
fi
sum=$(cat interop/sigstorejs/package.json interop/sigstorejs/package-lock.json | sha256sum | cut -c1-16)
dir=$PWD/.cache/sigstorejs/$sum
if [ ! -d "$dir/node_modules" ]; then
	mkdir -p "$PWD/.cache/sigstorejs"
	fresh=$(mktemp -d "$PWD/.cache/sigstorejs/fetch.XXXXXX")
	trap 'rm -rf "$fresh"' EXIT
	cp interop/sigstorejs/package.json interop/sigstorejs/package-lock.json "$fresh"
	(cd "$fresh" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error) >&2
	mv "$fresh" "$dir"
fi
echo "$dir/node_modules"
