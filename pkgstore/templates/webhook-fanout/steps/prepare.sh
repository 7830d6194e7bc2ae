# Checks the receivers and signs the body.
. steps/lib.sh
fetch "$PAYLOAD" "$MAESTRO_WORK/payload"
fetch "$ENDPOINTS" "$MAESTRO_WORK/endpoints.raw"
grep -v '^\(#\|$\)' "$MAESTRO_WORK/endpoints.raw" >"$MAESTRO_WORK/endpoints.tsv" || die "there are no endpoints"
awk -F '\t' '
	NF != 2 || $1 !~ /^[A-Za-z0-9._-]+$/ || $2 !~ /^(https?:\/\/[^ "\\]+|spool:[A-Za-z0-9_-]+)$/ { printf "endpoints: this line cannot be read: %s\n", $0; bad = 1; next }
	$1 in seen { printf "endpoints: %s is there twice\n", $1; bad = 1 }
	{ seen[$1] = 1 }
	END { exit bad }
' "$MAESTRO_WORK/endpoints.tsv" || die "the endpoints are refused"
: >"$MAESTRO_WORK/signature"
if [ -n "${SIGNING_KEY:-}" ]; then
	need od
	# HMAC (RFC 2104) from sha256sum alone, so that the key is on no command line: keys of up to 64 bytes.
	hex() { od -An -v -tx1 | tr -d ' \n'; }
	# binary: hexadecimal digits to bytes.
	binary() { sed 's/../\\x&/g' | while read -r line; do env printf "$line"; done; }
	key=$(printf %s "$SIGNING_KEY" | hex)
	[ ${#key} -le 128 ] || key=$(printf %s "$SIGNING_KEY" | sha256sum | cut -c 1-64)
	# pad BYTE: the key, filled up with zeros to 64 bytes, each XOR BYTE.
	pad() {
		rest=$key n=0
		while [ $n -lt 64 ]; do
			byte=$(printf %.2s "$rest") rest=${rest#??} n=$((n + 1))
			printf %02x $((0x${byte:-00} ^ $1))
		done
		echo
	}
	inner=$({ pad 0x36 | binary; cat "$MAESTRO_WORK/payload"; } | sha256sum | cut -c 1-64)
	{ pad 0x5c | binary; printf '%s\n' "$inner" | binary; } | sha256sum | cut -c 1-64 >"$MAESTRO_WORK/signature"
fi
out endpoints "$(awk 'END { print NR }' "$MAESTRO_WORK/endpoints.tsv")"
