# Reading and writing tables, in CSV files or a database. Names were checked by find.sh; the subject is
# always a parameter, never a part of a statement.
sql() {
	need psql
	PGCONNECT_TIMEOUT=10 psql -X -At -q -v ON_ERROR_STOP=1 -v subject="$SUBJECT" "${DATABASE:?give files or the secret database}"
}

# count TABLE COLUMN: rows of the subject.
count() {
	if [ -n "$FILES" ]; then
		awk -F , -v column="$2" '
			BEGIN { subject = ENVIRON["SUBJECT"] }
			NR == 1 { for (i = 1; i <= NF; i++) if ($i == column) at = i; if (!at) { print "there is no column " column > "/dev/stderr"; exit 1 }; next }
			$at == subject { n++ }
			END { print n + 0 }
		' "$MAESTRO_WORK/tables/$1.csv"
	else
		printf "select count(*) from %s where %s = :'subject';\n" "$1" "$2" | sql
	fi
}
