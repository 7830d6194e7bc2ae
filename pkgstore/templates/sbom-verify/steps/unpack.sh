# Brings the release to $MAESTRO_WORK/release and lists it with digests.
. steps/lib.sh
tree=$MAESTRO_WORK/release
mkdir -p "$tree"
fetch "$SBOM" "$MAESTRO_WORK/sbom.spdx"
case $RELEASE in
/* | *..*) die "$RELEASE is no folder of this package" ;;
https://* | http://* | *.tar.gz | *.tgz)
	fetch "$RELEASE" "$MAESTRO_WORK/release.tgz"
	need tar
	# Links and paths that leave the folder are refused before anything is written.
	tar -tvzf "$MAESTRO_WORK/release.tgz" >"$MAESTRO_WORK/entries"
	if grep -q '^[^-d]' "$MAESTRO_WORK/entries"; then die "the release holds links or devices"; fi
	if tar -tzf "$MAESTRO_WORK/release.tgz" | grep -Eq '(^|/)\.\.(/|$)|^/'; then die "the release holds paths that leave it"; fi
	tar -xzf "$MAESTRO_WORK/release.tgz" -C "$tree" --no-same-owner
	;;
*)
	[ -d "$RELEASE" ] || die "there is no folder $RELEASE in this package"
	cp -R "$RELEASE/." "$tree/"
	;;
esac
(cd "$tree" && find . -type f -exec sha256sum {} +) | sed 's/^\([0-9a-f]*\) [ *]/\1\t/' | sort -k2 >"$MAESTRO_WORK/found.tsv"
[ -s "$MAESTRO_WORK/found.tsv" ] || die "the release is empty"
out files "$(awk 'END { print NR }' "$MAESTRO_WORK/found.tsv")"
