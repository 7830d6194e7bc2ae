# Writes the keyring as it is now.
. steps/lib.sh
now=$(date -u -d "${NOW:-now}" +%Y-%m-%dT%H:%M:%SZ)
new=$MAESTRO_ARTIFACTS/keyring.tsv
awk -F '\t' -v OFS='\t' -v demoted="$DEMOTED" -v retired=" ${RETIRED:-} " '
	/^#/ || NF < 4 { next }
	index(retired, " " $1 " ") { next }
	$1 == demoted { $3 = "retiring" }
	{ print }
' "$MAESTRO_WORK/keyring.tsv" >"$new"
if [ -n "${SHA256:-}" ]; then printf '%s\t%s\tactive\t%s\n' "$MINTED" "$now" "$SHA256" >>"$new"; fi
cat "$new"
out keys "$(awk 'END { print NR }' "$new")"
