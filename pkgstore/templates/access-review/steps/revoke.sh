# Revokes each line, goes on after failures, and writes evidence: revoked.csv.
. steps/lib.sh
need curl
[ -n "$REVOKE_URL" ] || die "there is nothing to revoke with: give revokeUrl"
evidence=$MAESTRO_ARTIFACTS/revoked.csv
echo system,principal,role,status,at >"$evidence"
escape() { printf %s "$1" | od -An -v -tx1 | tr -d '\n' | sed 's/ /%/g'; }
failed=0
grep ',revoke,' "$MAESTRO_ARTIFACTS/review.csv" >"$MAESTRO_WORK/todo.csv" || exit 0
while IFS=, read -r system principal role _; do
	status=$(printf 'header = "Authorization: Bearer %s"\n' "${TOKEN:-}" |
		curl -K - -sS --max-time 30 -o /dev/null -w '%{http_code}' -X DELETE "$REVOKE_URL/$(escape "$system")/$(escape "$principal")/$(escape "$role")") || status=000
	printf '%s,%s,%s,%s,%s\n' "$system" "$principal" "$role" "$status" "$(date -u +%Y-%m-%dT%H:%M:%SZ)" >>"$evidence"
	case $status in 2?? | 404) ;; *) failed=$((failed + 1)) ;; esac
done <"$MAESTRO_WORK/todo.csv"
[ $failed -eq 0 ] || die "$failed revocations failed; revoked.csv says which"
