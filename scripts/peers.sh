#!/usr/bin/env bash
# peers.sh redis|ratelimit: prints the path of a limiter that make bench-limiter measures beside ours. REDIS_SERVER and
# RATELIMIT name other ones. Else each is fetched once into a cache folder: redis-server from the distribution's
# packages, which need not be installed, and ratelimit as a Go module, whose version is pinned here.
set -euo pipefail
cache=${XDG_CACHE_HOME:-$HOME/.cache}/maestro-bench
version=v1.4.1-0.20260122083618-3fb702589d36
packages=(redis-server redis-tools libatomic1 libjemalloc2 liblzf1)

fresh=
trap 'if [ -n "$fresh" ]; then rm -rf "$fresh"; fi' EXIT

redis() {
	if [ -n "${REDIS_SERVER:-}" ]; then
		echo "$REDIS_SERVER"
		return
	fi
	if [ -n "$(type -P redis-server)" ]; then
		type -P redis-server
		return
	fi
	local dir=$cache/redis
	if [ ! -x "$dir/redis-server" ]; then
		if ! type -P apt-get dpkg >/dev/null; then
			echo "peers: no redis-server, and no apt-get and dpkg to fetch one; install Redis or set REDIS_SERVER to its path" >&2
			return 1
		fi
		mkdir -p "$cache"
		fresh=$(mktemp -d "$cache/fetch.XXXXXX")
		if ! (cd "$fresh" && apt-get -qq -o APT::Sandbox::User=root download "${packages[@]}" >&2); then
			echo "peers: apt-get cannot fetch Redis; try apt-get update, or set REDIS_SERVER to the path of a redis-server" >&2
			return 1
		fi
		for package in "$fresh"/*.deb; do
			dpkg -x "$package" "$fresh/root"
		done
		# The libraries lie beside the program, wherever the distribution put them.
		mkdir "$fresh/redis" "$fresh/redis/lib"
		cp -L "$fresh/root/usr/bin/redis-server" "$fresh/redis/redis-server.bin"
		find "$fresh/root" -name '*.so.*' -exec cp -P {} "$fresh/redis/lib/" \;
		printf '#!/bin/sh\nexec env LD_LIBRARY_PATH=%q %q "$@"\n' "$dir/lib" "$dir/redis-server.bin" >"$fresh/redis/redis-server"
		chmod +x "$fresh/redis/redis-server"
		rm -rf "$dir"
		mv "$fresh/redis" "$dir"
	fi
	if ! "$dir/redis-server" --version >/dev/null; then
		echo "peers: $dir/redis-server does not start here; remove $dir, install Redis or set REDIS_SERVER to its path" >&2
		return 1
	fi
	echo "$dir/redis-server"
}

ratelimit() {
	if [ -n "${RATELIMIT:-}" ]; then
		echo "$RATELIMIT"
		return
	fi
	local dir=$cache/ratelimit/$version
	if [ ! -x "$dir/service_cmd" ]; then
		mkdir -p "$dir"
		# Outside of this module, whose versions are not ratelimit's.
		(cd "$dir" && GOBIN=$dir ${GO:-go} install "github.com/envoyproxy/ratelimit/src/service_cmd@$version" >&2)
	fi
	echo "$dir/service_cmd"
}

case ${1:-} in
redis | ratelimit) "$1" ;;
*)
	echo "usage: peers.sh redis|ratelimit" >&2
	exit 2
	;;
esac
