. steps/lib.sh
[ "$CRITICAL" -eq 0 ] || die "$CRITICAL certificates are critical or over; report.md lists them first"
[ "$UNREACHABLE" -eq 0 ] || die "$UNREACHABLE hosts gave no certificate"
