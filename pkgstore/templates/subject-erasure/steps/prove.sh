# Counts again and writes evidence.tsv. A table that was blanked keeps its rows, unless the map blanks the
# column that names the subject.
. steps/lib.sh
. steps/tables.sh
left=0
evidence=$MAESTRO_ARTIFACTS/evidence.tsv
if [ -n "${SALT:-}" ]; then who=$(printf '%s\n%s' "$SALT" "$SUBJECT" | sha256sum); else who='-'; fi
{
	printf '# subject\t%s\n# at\t%s\n# table\taction\tbefore\tafter\n' "${who%% *}" "$(date -u +%Y-%m-%dT%H:%M:%SZ)"
} >"$evidence"
while read -r table column action columns; do
	before=$(awk -F '\t' -v t="$table" '$1 == t { print $2; exit }' "$MAESTRO_WORK/found.tsv")
	after=$(count "$table" "$column" </dev/null)
	printf '%s\t%s\t%s\t%s\n' "$table" "$action" "$before" "$after" >>"$evidence"
	case $action,$columns, in delete,* | *,"$column",*) left=$((left + after)) ;; esac
done <"$MAESTRO_WORK/map.tsv"
cat "$evidence"
sum=$(sha256sum <"$evidence")
out left $left
out evidence "${sum%% *}"
[ $left -eq 0 ] || die "$left rows still name the subject"
