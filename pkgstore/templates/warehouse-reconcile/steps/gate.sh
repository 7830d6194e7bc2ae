. steps/lib.sh
[ "$REPAIRS" -le "$MAX" ] || die "$REPAIRS partitions do not agree; $MAX are borne. repair.txt lists what to export again"
