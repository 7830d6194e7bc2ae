. steps/lib.sh
. steps/table.sh
if [ -n "$SOURCE" ]; then
	fetch "$SOURCE" "$MAESTRO_WORK/source.raw"
elif [ -n "$QUERY" ]; then
	need psql
	# Read-only and of one moment, so that counts and checksums belong together.
	printf 'begin transaction isolation level repeatable read read only;\n%s\n;commit;\n' "$QUERY" |
		PGCONNECT_TIMEOUT=10 psql -X -q -At -F "$(printf '\t')" -v ON_ERROR_STOP=1 "${DATABASE:?give the secret database}" >"$MAESTRO_WORK/source.raw"
else
	die "nothing to compare with: give source or sourceQuery"
fi
table "$MAESTRO_WORK/source.raw" source
