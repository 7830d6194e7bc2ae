. steps/lib.sh
authorised -X POST -H 'Content-Type: text/markdown' --data-binary "@$MAESTRO_ARTIFACTS/report.md" -o /dev/null "$WEBHOOK"
