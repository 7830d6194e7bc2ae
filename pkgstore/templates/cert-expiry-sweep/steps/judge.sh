# Sorts certificates.tsv by days left and writes report.md.
. steps/lib.sh
now=$(date -u -d "${NOW:-now}" +%s) || die "now is no date: $NOW"
judged=$MAESTRO_WORK/judged.tsv
tab=$(printf '\t')
while IFS=$tab read -r host end; do
	if [ "$end" = unreachable ]; then
		printf '%s\t-99999\tunreachable\n' "$host"
		continue
	fi
	at=$(date -u -d "$end" +%s) || die "$host: \"$end\" is no date"
	days=$(((at - now) / 86400))
	if [ "$at" -lt "$now" ] || [ "$days" -lt "$CRITICAL" ]; then state=critical
	elif [ "$days" -lt "$WARN" ]; then state=expiring
	else state=fine; fi
	printf '%s\t%s\t%s\n' "$host" "$days" "$state"
done <"$MAESTRO_WORK/certificates.tsv" | sort -t "$tab" -k2,2n -k1,1 >"$judged"
{
	printf '# Certificates, %s\n\n| host | days left | state |\n|---|---|---|\n' "$(date -u -d "@$now" +%Y-%m-%dT%H:%M:%SZ)"
	awk -F '\t' '{ printf "| %s | %s | %s |\n", $1, ($3 == "unreachable" ? "?" : $2), $3 }' "$judged"
} >"$MAESTRO_ARTIFACTS/report.md"
cat "$MAESTRO_ARTIFACTS/report.md"
for state in fine expiring critical unreachable; do
	out $state "$(awk -F '\t' -v s=$state '$3 == s { n++ } END { print n + 0 }' "$judged")"
done
