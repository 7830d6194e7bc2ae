#!/usr/bin/env bash
# Regenerates api/gen from api/proto. With --check it changes nothing and fails if the
# committed code is not what the protos give.
set -euo pipefail
cd "$(dirname "$0")/.."
plugins=$(mktemp -d)
trap 'rm -rf "$plugins"' EXIT
# buf finds its plugins by name on the PATH.
go build -modfile=tools/go.mod -o "$plugins/" google.golang.org/protobuf/cmd/protoc-gen-go connectrpc.com/connect/cmd/protoc-gen-connect-go
export PATH=$plugins:$PATH
if [ "${1:-}" = --check ]; then
	go tool -modfile=tools/go.mod buf generate -o "$plugins/out"
	diff -r "$plugins/out/api/gen" api/gen
else
	go tool -modfile=tools/go.mod buf generate
	go test ./api -run TestErrorsDocument -update >/dev/null
fi
