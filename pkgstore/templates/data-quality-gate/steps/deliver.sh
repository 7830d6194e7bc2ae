# PUT, so that delivering twice is delivering once.
. steps/lib.sh
authorised -X PUT -H 'Content-Type: text/csv' --data-binary "@$MAESTRO_ARTIFACTS/good.csv" -o /dev/null "$DELIVER_URL"
