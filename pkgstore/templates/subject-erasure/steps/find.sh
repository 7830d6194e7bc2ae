# Counts what there is: found.tsv.
. steps/lib.sh
. steps/tables.sh
fetch "$MAP" "$MAESTRO_WORK/map.raw"
grep -v '^\(#\|$\)' "$MAESTRO_WORK/map.raw" >"$MAESTRO_WORK/map.tsv" || die "the map is empty"
awk -F '\t' '
	NF != 4 || $1 !~ /^[a-z_][a-z0-9_]*(\.[a-z_][a-z0-9_]*)?$/ || $2 !~ /^[a-z_][a-z0-9_]*$/ || ($3 == "delete") != ($4 == "-") || ($3 != "delete" && $3 != "blank") || ($3 == "blank" && $4 !~ /^[a-z_][a-z0-9_]*(,[a-z_][a-z0-9_]*)*$/) {
		printf "map: this line cannot be read: %s\n", $0; bad = 1
	}
	END { exit bad }
' "$MAESTRO_WORK/map.tsv" || die "the map is refused"
if [ -n "$FILES" ]; then
	case $FILES in *..* | /*) die "$FILES is no folder of this package" ;; esac
	mkdir -p "$MAESTRO_WORK/tables"
	cp "$FILES"/*.csv "$MAESTRO_WORK/tables/"
fi
total=0
: >"$MAESTRO_WORK/found.tsv"
while read -r table column _ _; do
	rows=$(count "$table" "$column" </dev/null)
	printf '%s\t%s\n' "$table" "$rows" >>"$MAESTRO_WORK/found.tsv"
	total=$((total + rows))
done <"$MAESTRO_WORK/map.tsv"
cat "$MAESTRO_WORK/found.tsv"
out found $total
