# Takes samples, each minute from Prometheus or all at once from a table, and judges them.
. steps/lib.sh
samples=$MAESTRO_ARTIFACTS/samples.txt
: >"$samples"
bad() { awk -v max="$MAX" '$1 + 0 > max + 0 { n++ } END { print n + 0 }' "$samples"; }
if [ -n "$SAMPLES" ]; then
	fetch "$SAMPLES" "$MAESTRO_WORK/samples"
	grep -v '^#' "$MAESTRO_WORK/samples" >"$samples" || die "$SAMPLES has no samples"
else
	[ -n "$PROMETHEUS" ] && [ -n "$QUERY" ] || die "nothing to judge by: give prometheus and query, or samples"
	minute=0
	while [ $minute -lt "$MINUTES" ]; do
		sleep 60
		minute=$((minute + 1))
		answer=$(authorised -G --data-urlencode "query=$QUERY" "$PROMETHEUS/api/v1/query") || die "Prometheus does not answer"
		value=$(printf %s "$answer" | sed -n 's/.*"value":\[[^,]*,"\([^"]*\)"\].*/\1/p')
		# No traffic yet gives no sample, or NaN: that is no proof of health.
		case $value in '' | NaN) value=1 ;; esac
		echo "$value" >>"$samples"
		[ "$(bad)" -le "$BEAR" ] || break
	done
fi
awk '$1 !~ /^[0-9.]+([eE][-+]?[0-9]+)?$/ { print "line " NR " is no number: " $1; bad = 1 } END { exit bad || NR == 0 }' "$samples" || die "the samples cannot be judged"
out samples "$(awk 'END { print NR }' "$samples")"
out bad "$(bad)"
out worst "$(sort -g "$samples" | tail -n 1)"
[ "$(bad)" -le "$BEAR" ] || die "$(bad) samples are above $MAX; $BEAR are borne"
