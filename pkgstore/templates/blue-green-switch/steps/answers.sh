# Asks HEALTH until it has answered TIMES times in a row, or has failed three times as often.
. steps/lib.sh
row=0 failures=0
while [ $row -lt "$TIMES" ]; do
	if (fetch "$HEALTH" "$MAESTRO_WORK/answer.$MAESTRO_STEP") && { [ -z "$TEXT" ] || grep -qF -e "$TEXT" "$MAESTRO_WORK/answer.$MAESTRO_STEP"; }; then
		row=$((row + 1))
	else
		row=0 failures=$((failures + 1))
		[ $failures -lt $((TIMES * 3)) ] || die "$HEALTH did not answer as expected $failures times"
	fi
	sleep "$PAUSE"
done
