# A day at a time. The same day always has the same Idempotency-Key, for APIs that know the header.
. steps/lib.sh
[ -n "$URL" ] || die "there is no job to run: give url"
case $URL in *'{date}'*) ;; *) die "url has no {date}: every day would be the same request" ;; esac
pause=$(awk -v r="$RATE" 'BEGIN { print 60 / r }')
row=0 failed=0
while read -r day; do
	if authorised -X POST -H "Idempotency-Key: backfill-$day" -o /dev/null "$(printf %s "$URL" | sed "s/{date}/$day/g")" </dev/null; then
		echo "$day" >>"$MAESTRO_WORK/done"
		echo "$day done"
		row=0
	else
		row=$((row + 1)) failed=$((failed + 1))
		echo "$day failed"
		[ $row -lt "$MAX_FAILURES" ] || die "$row days in a row failed"
	fi
	sleep "$pause"
done <"$MAESTRO_WORK/pending"
[ $failed -eq 0 ] || die "$failed days failed; the next run with this checkpoint does them"
