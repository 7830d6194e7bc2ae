# Refuses what must not be promoted and writes plan.tsv: source, destination.
. steps/lib.sh
fetch "$IMAGES" "$MAESTRO_WORK/images"
[ -z "$PUBLIC_KEY" ] || fetch "$PUBLIC_KEY" "$MAESTRO_WORK/cosign.pub"
bad=0
sed -e 's/#.*//' -e 's/[[:space:]]*$//' -e '/^$/d' "$MAESTRO_WORK/images" | sort -u >"$MAESTRO_WORK/list"
: >"$MAESTRO_WORK/plan.tsv"
while read -r image; do
	if ! printf '%s\n' "$image" | grep -Eq '^[a-z0-9.:/_-]+@sha256:[0-9a-f]{64}$'; then
		echo "$image is not named by digest alone: a tag can be moved between check and copy"
		bad=1
		continue
	fi
	case $image in
	"${FROM%/}"/*) printf '%s\t%s\n' "$image" "${TO%/}/${image#"${FROM%/}"/}" >>"$MAESTRO_WORK/plan.tsv" ;;
	*)
		echo "$image does not come from $FROM"
		bad=1
		;;
	esac
done <"$MAESTRO_WORK/list"
[ $bad -eq 0 ] || die "the list is refused"
count=$(awk 'END { print NR }' "$MAESTRO_WORK/plan.tsv")
[ "$count" -gt 0 ] || die "the list is empty"
[ "$count" -le "$MAX" ] || die "$count images are more than maxImages=$MAX"
cp "$MAESTRO_WORK/plan.tsv" "$MAESTRO_ARTIFACTS/plan.tsv"
cat "$MAESTRO_WORK/plan.tsv"
[ -n "$PUBLIC_KEY" ] || echo "no public key is given: signatures are not verified"
out images "$count"
