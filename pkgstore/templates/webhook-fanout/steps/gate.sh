. steps/lib.sh
[ "$DEAD" -eq 0 ] || die "$DEAD endpoints did not take the event; run again with dead-letters.tsv as endpoints"
