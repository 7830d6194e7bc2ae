. steps/lib.sh
[ "$ROWS" -ge "$MIN_ROWS" ] || die "there are $ROWS rows; at least $MIN_ROWS are expected"
awk -v rows="$ROWS" -v bad="$BAD" -v max="$MAX" 'BEGIN { exit rows > 0 && 100 * bad / rows > max + 0 }' || die "$BAD of $ROWS rows are bad, more than $MAX %"
