. steps/lib.sh
[ "$UNDECIDED" -eq 0 ] || die "$UNDECIDED lines have no decision; review.csv names them"
