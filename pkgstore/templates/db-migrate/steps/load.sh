# Brings the migrations to $MAESTRO_WORK/m and refuses a set that could not be applied safely.
. steps/lib.sh
m=$MAESTRO_WORK/m
mkdir -p "$m"
case $MIGRATIONS in
/* | *..*) die "$MIGRATIONS is no folder of this package" ;;
*.tar.gz | *.tgz | https://*)
	fetch "$MIGRATIONS" "$MAESTRO_WORK/m.tgz"
	need tar
	tar -xzf "$MAESTRO_WORK/m.tgz" -C "$m" --no-same-owner --strip-components "$(tar -tzf "$MAESTRO_WORK/m.tgz" | grep -q '^[^/]*\.sql$' && echo 0 || echo 1)"
	;;
*) cp "$MIGRATIONS"/*.sql "$m/" || die "there are no .sql files in $MIGRATIONS" ;;
esac
cd "$m"
bad=0 next=1
complain() {
	printf '%s\n' "$*"
	bad=1
}
for up in *.up.sql; do
	number=${up%%_*}
	case $number in
	[0-9][0-9][0-9][0-9]) ;;
	*) complain "$up does not begin with four digits" && continue ;;
	esac
	[ "$number" = "$(printf %04d $next)" ] || complain "$up: number $(printf %04d $next) is missing"
	next=$((next + 1))
	[ -f "${up%.up.sql}.down.sql" ] || complain "$up has no ${up%.up.sql}.down.sql to back it out"
	# A migration runs inside a transaction that belongs to this package.
	if grep -iEq '^[[:space:]]*(begin|commit|rollback|start transaction)[[:space:]]*;' "$up"; then complain "$up ends or begins a transaction"; fi
	if grep -iEq 'create[[:space:]]+(unique[[:space:]]+)?index[[:space:]]+concurrently|vacuum|create[[:space:]]+database' "$up"; then complain "$up holds a statement that cannot run in a transaction"; fi
done
[ $bad -eq 0 ] || die "the set of migrations is refused"
sha256sum *.up.sql | awk '{ split($2, part, "_"); printf "%s\t%s\t%s\n", part[1], $1, $2 }' >"$MAESTRO_WORK/available.tsv"
out count $((next - 1))
