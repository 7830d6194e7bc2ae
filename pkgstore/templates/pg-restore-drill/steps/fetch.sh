. steps/lib.sh
fetch "$DUMP" "$MAESTRO_WORK/dump"
fetch "$EXPECTED" "$MAESTRO_WORK/expected.tsv"
sum=$(sha256sum <"$MAESTRO_WORK/dump")
sum=${sum%% *}
[ -z "$SHA256" ] || [ "$SHA256" = "$sum" ] || die "the dump has the digest $sum, not $SHA256"
if [ "$(head -c 5 "$MAESTRO_WORK/dump")" = PGDMP ]; then out format custom; else out format plain; fi
# The same dump uses the same name: a drill that was killed is cleared up by the next one.
out database "maestro_drill_$(printf %s "$sum" | cut -c 1-12)"
