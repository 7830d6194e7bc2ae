. steps/lib.sh
[ -n "${SCRATCH:-}" ] && [ -n "${DATABASE:-}" ] || exit 0
need psql
PGCONNECT_TIMEOUT=10 psql -X -q -v ON_ERROR_STOP=1 "$SCRATCH" -c "drop database if exists $DATABASE with (force)"
