# Shared by the steps of this package, and the same in all templates.
set -eu

die() {
	printf 'error: %s\n' "$*" >&2
	exit 1
}

# need TOOL...: fails in words when the runner lacks a tool.
need() {
	for tool; do
		command -v "$tool" >/dev/null 2>&1 || die "$tool is not installed on this runner"
	done
}

# out NAME VALUE: an output of the step.
out() { printf '%s=%s\n' "$1" "$2" >>"$MAESTRO_OUTPUT"; }

# authorised CURL-ARGUMENTS...: curl, with $TOKEN as bearer token where it is set. The token
# goes through standard input, so that no process list shows it.
authorised() {
	need curl
	if [ -n "${TOKEN:-}" ]; then
		printf 'header = "Authorization: Bearer %s"\n' "$TOKEN"
	fi | curl -K - -fsS --proto '=https,http' --max-time 60 "$@"
}

# fetch LOCATION FILE: LOCATION is an http(s) URL or the path of a file in this package.
fetch() {
	case $1 in
	https://* | http://*) authorised --retry 3 -o "$2" "$1" || die "cannot fetch $1" ;;
	/* | *..* | *://*) die "$1 is neither an http(s) URL nor a file of this package" ;;
	*)
		[ -f "$1" ] || die "there is no file $1 in this package"
		cat "$1" >"$2"
		;;
	esac
}
