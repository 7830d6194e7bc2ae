#!/usr/bin/env bash
# Starts a region as an earlier build and upgrades its nodes one by one, with traffic and kills
# on the way. $1: the new binary; $2: the earlier commit.
set -euo pipefail
cd "$(dirname "$0")/.."
binary=$1 commit=$2
if ! git cat-file -e "$commit^{commit}" 2>/dev/null; then
	echo "upgrade: this clone does not hold commit $commit; fetch the whole history (git fetch --unshallow)" >&2
	exit 1
fi
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
git archive "$commit" | tar -x -C "$dir"
(cd "$dir" && ${GO:-go} build -o "$dir/earlier" ./cmd/maestro)
${GO:-go} run ./jepsen -binary "$binary" -upgrade-from "$dir/earlier" -duration 1s "${@:3}"
