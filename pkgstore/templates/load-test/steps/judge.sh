# Percentiles by the nearest rank. Errors count with their time, too: a fast error is no fast answer, and is bounded by itself.
. steps/lib.sh
results=$MAESTRO_ARTIFACTS/results.tsv
awk -F '\t' 'NF != 2 || $1 !~ /^[0-9][0-9][0-9]$/ || $2 !~ /^[0-9.]+$/ { printf "results, line %d cannot be read: %s\n", NR, $0; bad = 1 } END { exit bad || NR < 20 }' "$results" || die "there are no 20 results that can be read"
# percentile FILE P: in milliseconds.
percentile() { cut -f 2 "$1" | sort -n | awk -v p="$2" '{ v[NR] = $1 } END { r = p / 100 * NR; i = int(r); if (i < r) i++; printf "%d\n", v[i] * 1000 + 0.5 }'; }
p50=$(percentile "$results" 50) p95=$(percentile "$results" 95) p99=$(percentile "$results" 99)
requests=$(awk 'END { print NR }' "$results")
errors=$(awk '$1 !~ /^[23]/ { n++ } END { print n + 0 }' "$results")
failures=$MAESTRO_WORK/failures
: >"$failures"
[ "$p95" -le "$P95" ] || echo "p95 is $p95 ms; at most $P95 ms are allowed" >>"$failures"
[ "$p99" -le "$P99" ] || echo "p99 is $p99 ms; at most $P99 ms are allowed" >>"$failures"
awk -v e="$errors" -v n="$requests" -v max="$MAX_ERRORS" 'BEGIN { exit 100 * e / n > max + 0 }' || echo "$errors of $requests requests failed; at most $MAX_ERRORS % may" >>"$failures"
before='–'
if [ -f "$MAESTRO_WORK/baseline.tsv" ]; then
	before=$(percentile "$MAESTRO_WORK/baseline.tsv" 50)
	awk -v now="$p50" -v before="$before" -v max="$MAX_SLOWER" 'BEGIN { exit now > before * (1 + max / 100) }' || echo "the median is $p50 ms and was $before ms; it may grow by $MAX_SLOWER %" >>"$failures"
fi
{
	printf '# Load test\n\n| requests | errors | p50 | p95 | p99 | p50 before |\n|---|---|---|---|---|---|\n| %s | %s | %s ms | %s ms | %s ms | %s |\n\n' "$requests" "$errors" "$p50" "$p95" "$p99" "$before"
	if [ -s "$failures" ]; then sed 's/^/- /' "$failures"; else echo "All bounds hold."; fi
} >"$MAESTRO_ARTIFACTS/report.md"
cat "$MAESTRO_ARTIFACTS/report.md"
out requests "$requests"
out errors "$errors"
out p50 "$p50"
out p95 "$p95"
out p99 "$p99"
if [ -s "$failures" ]; then out passed false; else out passed true; fi
