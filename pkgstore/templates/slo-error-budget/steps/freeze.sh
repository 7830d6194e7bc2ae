. steps/lib.sh
authorised -X PUT -H 'Content-Type: application/json' --data-binary "{\"frozen\": $FROZEN}" -o /dev/null "$FREEZE_URL"
