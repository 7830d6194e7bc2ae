# Writes windows.tsv: window, good, total.
. steps/lib.sh
windows=$MAESTRO_WORK/windows.tsv
: >"$windows"
if [ -n "$PROMETHEUS" ]; then
	for window in 1h 6h 3d "${DAYS}d"; do
		for query in "$GOOD" "$TOTAL"; do
			case $query in *WINDOW*) ;; *) die "a query has no WINDOW" ;; esac
			answer=$(authorised -G --data-urlencode "query=$(printf %s "$query" | sed "s/WINDOW/$window/g")" ${NOW:+--data-urlencode "time=$NOW"} "$PROMETHEUS/api/v1/query") || die "Prometheus does not answer"
			value=$(printf %s "$answer" | sed -n 's/.*"value":\[[^,]*,"\([^"]*\)"\].*/\1/p')
			[ -n "$value" ] || die "Prometheus has no value for: $query"
			printf '%s\n' "$value"
		done | tr '\n' '\t' | { read -r good total && printf '%s\t%s\t%s\n' "$window" "$good" "$total"; } >>"$windows"
	done
	awk 'END { exit NR != 4 }' "$windows" || die "Prometheus gave no values"
	exit 0
fi
[ -n "$SAMPLES" ] || die "nothing to measure: give samples or prometheus"
fetch "$SAMPLES" "$MAESTRO_WORK/samples.csv"
[ "$(head -n 1 "$MAESTRO_WORK/samples.csv" | tr -d '\r')" = time,good,total ] || die "samples: the header is not time,good,total"
now=$(date -u -d "${NOW:-now}" +%s)
# Seconds since 1970 of a UTC time, by the civil calendar: awk has none of its own.
tr -d '\r' <"$MAESTRO_WORK/samples.csv" | awk -F , -v now="$now" -v days="$DAYS" '
	function seconds(t,  y, m, d, era, yoe, doy) {
		y = substr(t, 1, 4) + 0; m = substr(t, 6, 2) + 0; d = substr(t, 9, 2) + 0
		if (m <= 2) y--
		era = int(y / 400); yoe = y - era * 400
		doy = int((153 * (m + (m > 2 ? -3 : 9)) + 2) / 5) + d - 1
		return (era * 146097 + yoe * 365 + int(yoe / 4) - int(yoe / 100) + doy - 719468) * 86400 + substr(t, 12, 2) * 3600 + substr(t, 15, 2) * 60 + substr(t, 18, 2)
	}
	BEGIN { n = split("1h 6h 3d " days "d", name, " "); split("3600 21600 259200 " days * 86400, length_, " ") }
	NR == 1 || NF == 0 { next }
	NF != 3 || $1 !~ /^[0-9-]+T[0-9:]+Z$/ || $2 !~ /^[0-9]+$/ || $3 !~ /^[0-9]+$/ || $2 + 0 > $3 + 0 { printf "samples, line %d cannot be read: %s\n", NR, $0 > "/dev/stderr"; bad = 1; next }
	{ age = now - seconds($1); if (age < 0) next; for (i = 1; i <= n; i++) if (age < length_[i]) { good[i] += $2; total[i] += $3 } }
	END { for (i = 1; i <= n; i++) printf "%s\t%d\t%d\n", name[i], good[i], total[i]; exit bad }
' >"$windows" || die "samples cannot be read"
