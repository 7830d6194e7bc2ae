# Runs whatever happened, so that no day that was done is done again.
. steps/lib.sh
touch "$MAESTRO_WORK/done" "$MAESTRO_WORK/days"
sort -u "$MAESTRO_WORK/done" >"$MAESTRO_ARTIFACTS/checkpoint.txt"
out done "$(awk 'END { print NR }' "$MAESTRO_ARTIFACTS/checkpoint.txt")"
out left "$(sort "$MAESTRO_WORK/days" | comm -23 - "$MAESTRO_ARTIFACTS/checkpoint.txt" | awk 'END { print NR }')"
