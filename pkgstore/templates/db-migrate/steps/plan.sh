# Writes pending.tsv: what is available and not applied. A migration that was applied may not have changed.
. steps/lib.sh
ledger=$MAESTRO_WORK/ledger.tsv
if [ -n "$APPLIED" ]; then
	fetch "$APPLIED" "$ledger"
elif [ -n "${DATABASE:-}" ]; then
	need psql
	PGCONNECT_TIMEOUT=10 psql -X -q -At -F "$(printf '\t')" -v ON_ERROR_STOP=1 "$DATABASE" \
		-c "create table if not exists maestro_migrations (number int primary key, sha256 text not null, applied_at timestamptz not null default now())" \
		-c "select to_char(number, 'FM0000'), sha256 from maestro_migrations order by number" >"$ledger"
else
	die "nothing says what is applied: give database or applied"
fi
awk -F '\t' -v target="$TARGET" '
	FILENAME == ARGV[1] { if (NF >= 2) { applied[$1] = $2; if ($1 + 0 > last) last = $1 + 0 }; next }
	$1 in applied { if (applied[$1] != $2) { printf "%s was applied as another file (%s)\n", $3, applied[$1] > "/dev/stderr"; bad = 1 }; seen[$1] = 1; next }
	$1 + 0 < last { printf "%s would come before %04d, which is applied\n", $3, last > "/dev/stderr"; bad = 1; next }
	$1 + 0 <= target + 0 { print }
	END {
		for (n in applied) if (!(n in seen)) { printf "%s is applied and not in the set\n", n > "/dev/stderr"; bad = 1 }
		exit bad
	}
' "$ledger" "$MAESTRO_WORK/available.tsv" >"$MAESTRO_WORK/pending.tsv" || die "the set and the ledger do not fit"
cp "$MAESTRO_WORK/pending.tsv" "$MAESTRO_ARTIFACTS/plan.tsv"
cat "$MAESTRO_WORK/pending.tsv"
out pending "$(awk 'END { print NR }' "$MAESTRO_WORK/pending.tsv")"
