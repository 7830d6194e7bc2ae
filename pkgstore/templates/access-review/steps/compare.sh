# Gives each line of access a verdict with its ground: review.csv.
. steps/lib.sh
fetch "$MEMBERS" "$MAESTRO_WORK/members.csv"
fetch "$DECISIONS" "$MAESTRO_WORK/decisions.csv"
[ "$(head -n 1 "$MAESTRO_WORK/members.csv")" = system,principal,role,last_used ] || die "members: the header is not system,principal,role,last_used"
[ "$(head -n 1 "$MAESTRO_WORK/decisions.csv")" = system,principal,role,decision,reviewer ] || die "decisions: the header is not system,principal,role,decision,reviewer"
limit=$(date -u -d "${NOW:-today} - $INACTIVE days" +%F) || die "now is no date: $NOW"
review=$MAESTRO_ARTIFACTS/review.csv
awk -F , -v limit="$limit" '
	/"/ { printf "line %d: quoted fields are not read\n", FNR > "/dev/stderr"; bad = 1; next }
	FNR == 1 || NF == 0 { next }
	FILENAME == ARGV[1] {
		if ($4 != "keep" && $4 != "revoke") { printf "decisions, line %d: %s is neither keep nor revoke\n", FNR, $4 > "/dev/stderr"; bad = 1 }
		if ($2 == $5) { printf "decisions, line %d: %s reviews their own access\n", FNR, $2 > "/dev/stderr"; bad = 1 }
		decision[$1 FS $2 FS $3] = $4; reviewer[$1 FS $2 FS $3] = $5; next
	}
	{
		key = $1 FS $2 FS $3
		if ($4 != "" && $4 !~ /^[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]$/) { printf "members, line %d: %s is no date\n", FNR, $4 > "/dev/stderr"; bad = 1 }
		if (!(key in decision)) print key ",undecided,no reviewer has answered"
		else if (decision[key] == "revoke") print key ",revoke,decided by " reviewer[key]
		else if ($4 == "" || $4 < limit) print key ",revoke,not used since " ($4 == "" ? "ever" : $4)
		else print key ",keep,decided by " reviewer[key]
	}
	END { exit bad }
' "$MAESTRO_WORK/decisions.csv" "$MAESTRO_WORK/members.csv" >"$MAESTRO_WORK/lines.csv" || die "the tables cannot be compared"
{
	echo system,principal,role,verdict,ground
	sort -u "$MAESTRO_WORK/lines.csv"
} >"$review"
cat "$review"
for verdict in keep revoke undecided; do
	out $verdict "$(awk -F , -v v=$verdict '$4 == v { n++ } END { print n + 0 }' "$review")"
done
sum=$(sha256sum <"$review")
out digest "${sum%% *}"
