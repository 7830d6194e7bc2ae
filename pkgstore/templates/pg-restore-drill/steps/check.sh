# Compares what is there with what is expected.
. steps/lib.sh
cp "$MAESTRO_WORK/counts.tsv" "$MAESTRO_ARTIFACTS/counts.tsv"
awk -F '\t' '
	FILENAME == ARGV[1] { have[$1] = $2; next }
	/^#/ || NF < 2 { next }
	!($1 in have) { printf "%s is missing\n", $1; bad = 1; next }
	have[$1] + 0 < $2 + 0 { printf "%s has %d rows; at least %d are expected\n", $1, have[$1], $2; bad = 1 }
	END { exit bad }
' "$MAESTRO_WORK/counts.tsv" "$MAESTRO_WORK/expected.tsv" || die "the backup does not hold what it should"
out tables "$(awk 'END { print NR }' "$MAESTRO_WORK/counts.tsv")"
out rows "$(awk -F '\t' '{ n += $2 } END { print n + 0 }' "$MAESTRO_WORK/counts.tsv")"
