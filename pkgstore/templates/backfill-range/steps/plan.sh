# Lists the days that are not done yet: pending.
. steps/lib.sh
for day in "$FROM" "$TO"; do
	[ "$(date -u -d "$day" +%F 2>/dev/null)" = "$day" ] || die "$day is no day"
done
first=$(date -u -d "$FROM" +%s) last=$(date -u -d "$TO" +%s)
count=$(((last - first) / 86400 + 1))
[ $count -ge 1 ] || die "$TO is before $FROM"
[ $count -le "$MAX_DAYS" ] || die "$count days are more than maxDays=$MAX_DAYS"
: >"$MAESTRO_WORK/done"
if [ -n "$CHECKPOINT" ]; then
	fetch "$CHECKPOINT" "$MAESTRO_WORK/checkpoint"
	grep -vE '^[0-9]{4}-[0-9]{2}-[0-9]{2}$|^(#.*)?$' "$MAESTRO_WORK/checkpoint" && die "the checkpoint has lines that are no days"
	grep -E '^[0-9]' "$MAESTRO_WORK/checkpoint" | sort -u >"$MAESTRO_WORK/done" || :
fi
n=0
while [ $n -lt $count ]; do
	date -u -d "@$((first + n * 86400))" +%F
	n=$((n + 1))
done >"$MAESTRO_WORK/days"
# comm wants both in order, and they are.
comm -23 "$MAESTRO_WORK/days" "$MAESTRO_WORK/done" >"$MAESTRO_WORK/pending"
if [ "$NEWEST_FIRST" = true ]; then sort -r -o "$MAESTRO_WORK/pending" "$MAESTRO_WORK/pending"; fi
cp "$MAESTRO_WORK/pending" "$MAESTRO_ARTIFACTS/plan.txt"
cat "$MAESTRO_WORK/pending"
out days $count
out pending "$(awk 'END { print NR }' "$MAESTRO_WORK/pending")"
