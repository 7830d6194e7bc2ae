# Compares each service with its own history. A day without a line costs nothing, and counts as 0.
. steps/lib.sh
fetch "$COSTS" "$MAESTRO_WORK/costs.csv"
[ "$(head -n 1 "$MAESTRO_WORK/costs.csv" | tr -d '\r')" = date,service,micros ] || die "costs: the header is not date,service,micros"
tr -d '\r' <"$MAESTRO_WORK/costs.csv" | awk -F , '
	NR == 1 || NF == 0 { next }
	NF != 3 || $1 !~ /^[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]$/ || $3 !~ /^-?[0-9]+$/ { printf "costs, line %d cannot be read: %s\n", NR, $0 > "/dev/stderr"; bad = 1; next }
	{ print $1 "\t" $2 "\t" $3 }
	END { exit bad }
' | sort >"$MAESTRO_WORK/costs.tsv"
[ -s "$MAESTRO_WORK/costs.tsv" ] || die "costs: there is no line that can be read"
day=${DAY:-$(tail -n 1 "$MAESTRO_WORK/costs.tsv" | cut -f 1)}
days=$MAESTRO_WORK/days
: >"$days"
n=1
while [ $n -le "$HISTORY" ]; do
	date -u -d "$day - $n days" +%F >>"$days"
	n=$((n + 1))
done
first=$(cut -f 1 "$MAESTRO_WORK/costs.tsv" | head -n 1)
awk -v first="$first" '$1 >= first' "$days" >"$days.known"
known=$(awk 'END { print NR }' "$days.known")
[ "$known" -ge 7 ] || die "there are $known days before $day; at least 7 make a history"
# One number a line, in order, gives the median without arrays that awk would have to sort.
cut -f 2 "$MAESTRO_WORK/costs.tsv" | sort -u >"$MAESTRO_WORK/services"
median() { sort -n | awk '{ v[NR] = $1 } END { print (NR % 2) ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'; }
while read -r service; do
	awk -F '\t' -v s="$service" 'FILENAME == ARGV[1] { want[$1] = 1; next } $2 == s && $1 in want { sum[$1] += $3 } END { for (d in want) print sum[d] + 0 }' "$days.known" "$MAESTRO_WORK/costs.tsv" >"$MAESTRO_WORK/values"
	now=$(awk -F '\t' -v s="$service" -v d="$day" '$2 == s && $1 == d { n += $3 } END { printf "%d", n }' "$MAESTRO_WORK/costs.tsv")
	middle=$(median <"$MAESTRO_WORK/values")
	spread=$(awk -v m="$middle" '{ x = $1 - m; print x < 0 ? -x : x }' "$MAESTRO_WORK/values" | median)
	# 1.4826 makes the deviation comparable with a standard deviation; a flat history gets 1 % of its level.
	awk -v s="$service" -v now="$now" -v m="$middle" -v mad="$spread" -v limit="$THRESHOLD" -v min="$MIN" 'BEGIN {
		scale = mad * 1.4826; floor = (m < 0 ? -m : m) / 100; if (scale < floor) scale = floor; if (scale < 1) scale = 1
		z = (now - m) / scale
		printf "%s\t%d\t%d\t%.1f\t%s\n", s, now, m, z, (z > limit && now - m >= min) ? "anomaly" : "usual"
	}'
done <"$MAESTRO_WORK/services" | sort -t "$(printf '\t')" -k5,5 -k4,4nr >"$MAESTRO_WORK/judged.tsv"
{
	printf '# Costs of %s against %s days\n\n| service | cost | median | increase | z | |\n|---|---|---|---|---|---|\n' "$day" "$known"
	awk -F '\t' '{ printf "| %s | %.2f | %.2f | %+.2f | %s | %s |\n", $1, $2 / 1e6, $3 / 1e6, ($2 - $3) / 1e6, $4, $5 }' "$MAESTRO_WORK/judged.tsv"
} >"$MAESTRO_ARTIFACTS/report.md"
cat "$MAESTRO_ARTIFACTS/report.md"
anomalies=$(awk -F '\t' '$5 == "anomaly" { n++ } END { print n + 0 }' "$MAESTRO_WORK/judged.tsv")
out services "$(awk 'END { print NR }' "$MAESTRO_WORK/services")"
out anomalies "$anomalies"
out increase "$(awk -F '\t' '$5 == "anomaly" { n += $2 - $3 } END { printf "%d\n", n }' "$MAESTRO_WORK/judged.tsv")"
if [ "$anomalies" -gt 0 ]; then out found true; else out found false; fi
