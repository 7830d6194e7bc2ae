#!/usr/bin/env bash
# Checks everything that needs no running program. Prints what is wrong and exits 1.
set -euo pipefail
cd "$(dirname "$0")/.."
tool() { go tool -modfile=tools/go.mod "$@"; }
failed=0
noise=$(mktemp)
trap 'rm -f "$noise"' EXIT
check() {
	local name=$1
	shift
	# Messages on stderr alone, such as downloads, are no findings.
	if ! out=$("$@" 2>"$noise") || [ -n "$out" ]; then
		printf '%s:\n%s\n' "$name" "$out"
		cat "$noise"
		failed=1
	fi
}

check gofumpt bash -c "git ls-files --cached --others --exclude-standard '*.go' | grep -v '^api/gen/' | xargs go tool -modfile=tools/go.mod gofumpt -l"
check vet go vet ./...
check staticcheck tool staticcheck ./...
check 'vet interop' go vet -tags interop ./interop ./index ./internal/objectstore/...
check 'staticcheck interop' tool staticcheck -tags interop ./interop ./index ./internal/objectstore/...
check 'buf lint' tool buf lint
# Against the API as last released; a change that breaks clients fails here. After a release:
# go tool -modfile=tools/go.mod buf build -o api/baseline.binpb
check 'buf breaking' tool buf breaking --against api/baseline.binpb
check 'go.mod' go mod tidy -diff
check 'generated code' ./scripts/generate.sh --check
[ $failed = 0 ] && echo 'lint: ok'
exit $failed
