# Writes results.tsv: HTTP status (000 for none), seconds.
. steps/lib.sh
results=$MAESTRO_ARTIFACTS/results.tsv
[ -z "$BASELINE" ] || fetch "$BASELINE" "$MAESTRO_WORK/baseline.tsv"
if [ -n "$RESULTS" ]; then
	fetch "$RESULTS" "$results"
	exit 0
fi
[ -n "$URL" ] || die "nothing to measure: give url or results"
need curl xargs
# One curl for each worker reuses its connections; the header is a file, not an argument.
(umask 077 && printf 'header = "Authorization: Bearer %s"\n' "${TOKEN:-}" | { if [ -n "${TOKEN:-}" ]; then cat; fi; } >"$MAESTRO_WORK/curlrc")
each=$(((REQUESTS + CONCURRENCY - 1) / CONCURRENCY))
worker=0
while [ $worker -lt "$CONCURRENCY" ]; do
	n=0
	while [ $n -lt $each ]; do
		printf 'url = "%s"\noutput = "/dev/null"\n' "$URL"
		n=$((n + 1))
	done >"$MAESTRO_WORK/urls.$worker"
	echo $worker
	worker=$((worker + 1))
done | xargs -P "$CONCURRENCY" -I {} curl -sS --proto '=https,http' --max-time 60 -K "$MAESTRO_WORK/curlrc" -K "$MAESTRO_WORK/urls.{}" -w '%{http_code}\t%{time_total}\n' -o /dev/null >"$results" 2>"$MAESTRO_WORK/errors" || :
sort "$MAESTRO_WORK/errors" | uniq -c | sort -rn | head -n 5
