# Writes certificates.tsv: host, end of its certificate or "unreachable".
. steps/lib.sh
table=$MAESTRO_WORK/certificates.tsv
: >"$table"
if [ -n "$OBSERVED" ]; then
	fetch "$OBSERVED" "$MAESTRO_WORK/observed.tsv"
	grep -v '^[[:space:]]*\(#\|$\)' "$MAESTRO_WORK/observed.tsv" >>"$table" || die "$OBSERVED has no lines"
fi
[ -z "$HOSTS" ] || need openssl
for host in $HOSTS; do
	case $host in
	*:*) port=${host##*:} name=${host%:*} ;;
	*) port=443 name=$host ;;
	esac
	end=$(timeout 20 openssl s_client -connect "$name:$port" -servername "$name" </dev/null 2>/dev/null |
		openssl x509 -noout -enddate 2>/dev/null) || end=
	printf '%s:%s\t%s\n' "$name" "$port" "${end#notAfter=}" | sed 's/\t$/\tunreachable/' >>"$table"
done
[ -s "$table" ] || die "nothing to look at: give hosts or observed"
cp "$table" "$MAESTRO_ARTIFACTS/certificates.tsv"
