# Applies pending migrations in order; each with its line of the ledger in one transaction.
. steps/lib.sh
need psql
: "${DATABASE:?give the secret database}"
: >"$MAESTRO_WORK/done.tsv"
while read -r number sum file; do
	echo "apply $file"
	{
		printf "set local lock_timeout = '%s'; set local statement_timeout = '%s';\n" "$LOCK_TIMEOUT" "$STATEMENT_TIMEOUT"
		cat "$MAESTRO_WORK/m/$file"
		printf "\n;insert into maestro_migrations (number, sha256) values (%s, '%s');\n" "$number" "$sum"
	} >"$MAESTRO_WORK/one.sql"
	PGCONNECT_TIMEOUT=10 psql -X -q -1 -v ON_ERROR_STOP=1 "$DATABASE" -f "$MAESTRO_WORK/one.sql" </dev/null || die "$file failed and left nothing"
	printf '%s\t%s\n' "$number" "$file" >>"$MAESTRO_WORK/done.tsv"
done <"$MAESTRO_WORK/pending.tsv"
