# Ranks error lines by their shape: what differs between two occurrences, numbers and ids, is left out.
. steps/lib.sh
cd "$MAESTRO_WORK/bundle"
cat logs.txt pod-logs.txt 2>/dev/null | grep -iE 'error|fatal|panic|exception|timeout' >../errors.txt || :
sed -E \
	-e 's/^[^ ]*[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9:.,]+(Z|[+-][0-9:]+)? *//' \
	-e 's/[0-9a-f]{8}-[0-9a-f-]{27}/ID/g' -e 's/0x[0-9a-fA-F]+/ID/g' -e 's/[0-9a-f]{12,}/ID/g' -e 's/[0-9]+/N/g' \
	../errors.txt | sort | uniq -c | sort -k1,1nr -k2 >../signatures.txt
errors=$(awk 'END { print NR }' ../errors.txt)
{
	printf '# Incident %s\n\n' "$INCIDENT"
	printf '%s error lines, %s signatures.\n' "$errors" "$(awk 'END { print NR }' ../signatures.txt)"
	if [ -s missing.txt ]; then printf '\nNot collected:\n\n'; sed 's/^/- /' missing.txt; fi
	printf '\n## Signatures\n\n'
	head -n "$TOP" ../signatures.txt | sed -E 's/^ *([0-9]+) (.*)$/- \1 × `\2`/'
	printf '\n## Timeline\n\n'
	{
		[ ! -f deployments.tsv ] || awk -F '\t' 'NF >= 2 { print $1 "\tdeployed: " $2 }' deployments.tsv
		grep -oE '[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:]{8}.*' ../errors.txt | sort | awk '{ at = substr($0, 1, 19) "Z"; sub(/^[^ ]+ */, "") } NR == 1 { print at "\tfirst error: " $0 } { last = at "\tlast error: " $0 } END { if (NR > 1) print last }'
	} | sort | sed -E 's/^([^\t]*)\t(.*)$/- \1 \2/'
} >summary.md
cp summary.md "$MAESTRO_ARTIFACTS/summary.md"
cat summary.md
out errors "$errors"
out signatures "$(awk 'END { print NR }' ../signatures.txt)"
