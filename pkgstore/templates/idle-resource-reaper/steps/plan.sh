# Writes plan.tsv: namespace, name, replicas, ground; in order, so that the same usage gives the same digest.
. steps/lib.sh
fetch "$USAGE" "$MAESTRO_WORK/usage.csv"
[ "$(head -n 1 "$MAESTRO_WORK/usage.csv" | tr -d '\r')" = namespace,name,replicas,cpu_millis,requests_per_day,last_request ] || die "usage: the header is another one"
limit=$(date -u -d "${NOW:-today} - $IDLE days" +%F)
tr -d '\r' <"$MAESTRO_WORK/usage.csv" | awk -F , -v limit="$limit" -v cpu="$MAX_CPU" '
	NR == 1 || NF == 0 { next }
	NF != 6 || $1 !~ /^[a-z0-9-]+$/ || $2 !~ /^[a-z0-9.-]+$/ || $3 !~ /^[0-9]+$/ || $4 !~ /^[0-9]+$/ || $5 !~ /^[0-9]+$/ { printf "usage, line %d cannot be read: %s\n", NR, $0 > "/dev/stderr"; bad = 1; next }
	$3 == 0 || $4 > cpu + 0 || $5 > 0 { next }
	$6 == "" || $6 < limit { print $1 "\t" $2 "\t" $3 "\t" ($6 == "" ? "no request on record" : "no request since " $6) }
	END { exit bad }
' | sort >"$MAESTRO_WORK/idle.tsv" || die "usage cannot be read"
set -f # patterns in PROTECTED are for case, not for files
tab=$(printf '\t')
while IFS=$tab read -r namespace name replicas ground; do
	for pattern in $PROTECTED; do
		case $pattern in */*) ;; *) pattern=$pattern/* ;; esac
		# The pattern is meant to be one.
		# shellcheck disable=SC2254
		case $namespace/$name in $pattern) continue 2 ;; esac
	done
	printf '%s\t%s\t%s\t%s\n' "$namespace" "$name" "$replicas" "$ground"
done <"$MAESTRO_WORK/idle.tsv" >"$MAESTRO_ARTIFACTS/plan.tsv"
cat "$MAESTRO_ARTIFACTS/plan.tsv"
# Undoing must not need this package.
awk -F '\t' 'BEGIN { print "#!/bin/sh\nset -e" } { printf "kubectl -n %s scale deployment/%s --replicas=%s\n", $1, $2, $3 }' "$MAESTRO_ARTIFACTS/plan.tsv" >"$MAESTRO_ARTIFACTS/undo.sh"
sum=$(sha256sum <"$MAESTRO_ARTIFACTS/plan.tsv")
echo "to approve this plan, run again with approvedPlan=${sum%% *}"
out idle "$(awk 'END { print NR }' "$MAESTRO_ARTIFACTS/plan.tsv")"
out sha256 "${sum%% *}"
