# Restores the dump and writes counts.tsv: table, rows.
. steps/lib.sh
counts=$MAESTRO_WORK/counts.tsv
if [ -z "${SCRATCH:-}" ]; then
	[ "$FORMAT" = plain ] || die "a dump in custom format can only be restored: give scratch"
	grep -q '^-- PostgreSQL database dump complete' "$MAESTRO_WORK/dump" || die "the dump is cut off: its last line is missing"
	awk '
		/^COPY / { table = $2; gsub(/"/, "", table); n[table] = 0; copying = 1; next }
		copying && $0 == "\\." { copying = 0; next }
		copying { n[table]++ }
		END { for (t in n) printf "%s\t%d\n", t, n[t] }
	' "$MAESTRO_WORK/dump" | sort >"$counts"
	out proof read
	exit 0
fi
need psql pg_restore
admin() { PGCONNECT_TIMEOUT=10 psql -X -q -v ON_ERROR_STOP=1 "$SCRATCH" "$@"; }
admin -c "drop database if exists $DATABASE with (force)" -c "create database $DATABASE template template0"
# The same connection string, with the other database: everything between the host and "?" is its name.
base=${SCRATCH%%\?*} query=${SCRATCH#"${SCRATCH%%\?*}"}
authority=$(printf %s "${base#*://}" | cut -d / -f 1)
target=${base%%://*}://$authority/$DATABASE$query
if [ "$FORMAT" = custom ]; then
	pg_restore --no-owner --no-privileges --exit-on-error --dbname "$target" "$MAESTRO_WORK/dump"
else
	psql -X -q -v ON_ERROR_STOP=1 -o /dev/null "$target" -f "$MAESTRO_WORK/dump"
fi
psql -X -At -v ON_ERROR_STOP=1 "$target" -c "
	select format('select %L || chr(9) || count(*) from %I.%I', schemaname || '.' || tablename, schemaname, tablename)
	from pg_tables where schemaname not in ('pg_catalog', 'information_schema') order by 1" |
	sed 's/$/;/' | psql -X -At -v ON_ERROR_STOP=1 "$target" | sort >"$counts"
out proof restored
