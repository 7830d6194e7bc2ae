# Decides which key is minted, which becomes retiring, and which are over.
. steps/lib.sh
fetch "$KEYRING" "$MAESTRO_WORK/keyring.tsv"
now=$(date -u -d "${NOW:-now}" +%s)
tab=$(printf '\t')
newest='' newest_age=0 retire='' actives=0 highest=0
while IFS=$tab read -r id created state sum; do
	case $id in '' | \#*) continue ;; esac
	at=$(date -u -d "$created" +%s) || die "key $id: \"$created\" is no date"
	age=$(((now - at) / 86400))
	number=${id#k}
	case $number in '' | *[!0-9]*) die "key $id: ids are k1, k2, ..." ;; esac
	[ "$number" -le $highest ] || highest=$number
	case $state in
	active) newest=$id newest_age=$age actives=$((actives + 1)) ;;
	retiring) # since the active key was made, which is when this one was replaced
		retire="$retire $id"
		;;
	*) die "key $id: \"$state\" is neither active nor retiring" ;;
	esac
done <"$MAESTRO_WORK/keyring.tsv"
[ $actives -le 1 ] || die "the keyring has $actives active keys; one is allowed"
[ $actives -eq 0 ] || [ $newest_age -ge "$OVERLAP" ] || retire=
if [ $actives -eq 0 ] || [ $newest_age -ge "$MAX_AGE" ]; then
	out mint "k$((highest + 1))"
	out demote "$newest"
	echo "mint k$((highest + 1)); ${newest:-no key} becomes retiring"
else
	out mint ''
	out demote ''
	echo "$newest is $newest_age days old and stays"
fi
out retire "${retire# }"
echo "over:${retire:- none}"
