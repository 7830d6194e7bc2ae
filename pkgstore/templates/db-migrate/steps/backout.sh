# Takes back what this run has applied, last first. What is backed out leaves the ledger in the same
# transaction, so a second try goes on where the first one stopped.
. steps/lib.sh
need psql
sort -r "$MAESTRO_WORK/done.tsv" | while read -r number file; do
	down=${file%.up.sql}.down.sql
	there=$(PGCONNECT_TIMEOUT=10 psql -X -At -v ON_ERROR_STOP=1 "$DATABASE" -c "select count(*) from maestro_migrations where number = $number::int" </dev/null)
	[ "$there" = 1 ] || continue
	echo "back out $down"
	{
		printf "set local lock_timeout = '%s'; set local statement_timeout = '%s';\n" "$LOCK_TIMEOUT" "$STATEMENT_TIMEOUT"
		cat "$MAESTRO_WORK/m/$down"
		printf "\n;delete from maestro_migrations where number = %s;\n" "$number"
	} >"$MAESTRO_WORK/one.sql"
	psql -X -q -1 -v ON_ERROR_STOP=1 "$DATABASE" -f "$MAESTRO_WORK/one.sql" </dev/null
done
