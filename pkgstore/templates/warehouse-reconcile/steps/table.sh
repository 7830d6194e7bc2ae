# table FILE WHAT: checks partitions and puts them in order in $MAESTRO_WORK/WHAT.tsv.
table() {
	tr -d '\r' <"$1" | grep -v '^\(#\|$\)' >"$MAESTRO_WORK/$2.rows" || die "$2: there are no partitions"
	awk -F '\t' -v what="$2" '
		NF != 3 || $1 == "" || $2 !~ /^[0-9]+$/ || $3 == "" { printf "%s, line %d cannot be read: %s\n", what, NR, $0; bad = 1; next }
		$1 in seen { printf "%s: partition %s is there twice\n", what, $1; bad = 1 }
		{ seen[$1] = 1 }
		END { exit bad }
	' "$MAESTRO_WORK/$2.rows" || die "$2 cannot be read"
	sort "$MAESTRO_WORK/$2.rows" >"$MAESTRO_WORK/$2.tsv"
}
