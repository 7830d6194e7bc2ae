# Copies what is not there yet and confirms each digest at its destination: promoted.tsv is the evidence.
. steps/lib.sh
. steps/registry.sh
need crane
evidence=$MAESTRO_ARTIFACTS/promoted.tsv
: >"$evidence"
while read -r source target; do
	digest=${source##*@}
	if [ "$(crane digest "$target" </dev/null 2>/dev/null)" = "$digest" ]; then
		state=there
	else
		crane copy "$source" "$target" </dev/null || die "$source cannot be copied"
		state=copied
	fi
	[ "$(crane digest "$target" </dev/null)" = "$digest" ] || die "$target has another digest than $digest"
	[ -z "$TAG" ] || crane tag "$target" "$TAG" </dev/null
	printf '%s\t%s\t%s\n' "$state" "$target" "$(date -u +%Y-%m-%dT%H:%M:%SZ)" >>"$evidence"
done <"$MAESTRO_WORK/plan.tsv"
out copied "$(awk '$1 == "copied" { n++ } END { print n + 0 }' "$evidence")"
