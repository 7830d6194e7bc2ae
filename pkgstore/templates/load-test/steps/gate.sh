. steps/lib.sh
die "$(tr '\n' ';' <"$MAESTRO_WORK/failures")"
