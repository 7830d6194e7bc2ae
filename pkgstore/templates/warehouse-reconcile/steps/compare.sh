# Writes differences.tsv, and repair.txt: the partitions to export again.
. steps/lib.sh
awk -F '\t' -v OFS='\t' -v tolerance="$TOLERANCE" -v last="$IGNORE_AFTER" '
	# Text, also where a partition looks like a number.
	last != "" && ($1 "") > (last "") { next }
	FILENAME == ARGV[1] { rows[$1] = $2; sum[$1] = $3; next }
	!($1 in rows) { print "extra", $1, "-", $2; next }
	{
		gap = rows[$1] - $2; if (gap < 0) gap = -gap
		if (gap > rows[$1] * tolerance / 100) print "count", $1, rows[$1], $2
		else if (gap == 0 && sum[$1] != "-" && $3 != "-" && sum[$1] != $3) print "checksum", $1, rows[$1], $2
		else print "equal", $1, rows[$1], $2
		delete rows[$1]
	}
	END { for (p in rows) print "missing", p, rows[p], "-" }
' "$MAESTRO_WORK/source.tsv" "$MAESTRO_WORK/warehouse.tsv" | sort >"$MAESTRO_WORK/all.tsv"
awk -F '\t' '$1 != "equal"' "$MAESTRO_WORK/all.tsv" >"$MAESTRO_ARTIFACTS/differences.tsv"
awk -F '\t' '$1 != "equal" && $1 != "extra" { print $2 }' "$MAESTRO_WORK/all.tsv" | sort >"$MAESTRO_ARTIFACTS/repair.txt"
cat "$MAESTRO_ARTIFACTS/differences.tsv"
n() { awk -F '\t' -v s="$1" 'index(" " s " ", " " $1 " ") { n++ } END { print n + 0 }' "$MAESTRO_WORK/all.tsv"; }
out partitions "$(awk 'END { print NR }' "$MAESTRO_WORK/all.tsv")"
out equal "$(n equal)"
out missing "$(n missing)"
out extra "$(n extra)"
out differing "$(n 'count checksum')"
out repairs "$(n 'missing extra count checksum')"
