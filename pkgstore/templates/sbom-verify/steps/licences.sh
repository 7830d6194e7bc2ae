# Every id in every licence expression must be allowed; NOASSERTION and NONE are not.
. steps/lib.sh
sed -nE 's/^(PackageLicenseConcluded|PackageLicenseDeclared|LicenseConcluded): *(.*)/\2/p' "$MAESTRO_WORK/sbom.spdx" |
	tr -d '\r()' | sed -E 's/ (AND|OR|WITH) /\n/g' | sort -u >"$MAESTRO_WORK/licences"
cat "$MAESTRO_WORK/licences"
out licences "$(awk 'END { print NR }' "$MAESTRO_WORK/licences")"
[ -n "$ALLOWED" ] || exit 0
bad=0
while read -r licence; do
	case " $ALLOWED " in
	*" $licence "*) ;;
	*)
		echo "$licence is not allowed"
		bad=1
		;;
	esac
done <"$MAESTRO_WORK/licences"
[ $bad -eq 0 ] || die "the document names licences that are not allowed"
