# Compares the files with those that the document lists: files.tsv.
. steps/lib.sh
awk '
	{ sub(/\r$/, "") }
	/^FileName: / { name = substr($0, 11); if (name !~ /^\.\//) name = "./" name }
	/^FileChecksum: SHA256: / && name != "" { print $3 "\t" name; name = "" }
' "$MAESTRO_WORK/sbom.spdx" | sort -k2 >"$MAESTRO_WORK/listed.tsv"
[ -s "$MAESTRO_WORK/listed.tsv" ] || die "the document lists no file with a SHA256 checksum"
awk -F '\t' '
	FILENAME == ARGV[1] { listed[$2] = tolower($1); next }
	!($2 in listed) { print "unlisted\t" $2; next }
	listed[$2] == $1 { print "matching\t" $2; delete listed[$2]; next }
	{ print "changed\t" $2; delete listed[$2] }
	END { for (f in listed) print "missing\t" f }
' "$MAESTRO_WORK/listed.tsv" "$MAESTRO_WORK/found.tsv" | sort >"$MAESTRO_ARTIFACTS/files.tsv"
cat "$MAESTRO_ARTIFACTS/files.tsv"
for state in matching missing changed unlisted; do
	eval "$state=$(awk -v s=$state '$1 == s { n++ } END { print n + 0 }' "$MAESTRO_ARTIFACTS/files.tsv")"
done
out matching "$matching"
out missing "$missing"
out changed "$changed"
out unlisted "$unlisted"
[ $((missing + changed)) -eq 0 ] || die "$missing files are missing and $changed are not the listed ones"
[ "$unlisted" -eq 0 ] || [ "$ALLOW_UNLISTED" = true ] || die "$unlisted files are not listed"
