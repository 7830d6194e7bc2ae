# Spent is the share of failures over the share that the objective allows: 1 is all of the budget. The
# same quotient over a short window is its burn rate.
. steps/lib.sh
awk -F '\t' -v objective="$OBJECTIVE" '
	{ share = $3 > 0 ? ($3 - $2) / $3 : 0; printf "%s\t%d\t%d\t%.3f\n", $1, $3 - $2, $3, share / (1 - objective / 100) }
' "$MAESTRO_WORK/windows.tsv" >"$MAESTRO_WORK/burn.tsv"
long=$(tail -n 1 "$MAESTRO_WORK/burn.tsv")
[ "$(printf %s "$long" | cut -f 3)" -gt 0 ] || die "there was no event in $DAYS days: nothing can be said"
left=$(printf %s "$long" | awk -F '\t' '{ printf "%.1f", 100 * (1 - $4) }')
burn=$(head -n 1 "$MAESTRO_WORK/burn.tsv" | cut -f 4)
frozen=$(awk -v left="$left" -v below="$FREEZE_BELOW" 'BEGIN { print (left + 0 < below + 0) ? "true" : "false" }')
{
	printf '# %s: %s %% over %s days\n\n' "$SERVICE" "$OBJECTIVE" "$DAYS"
	printf '%s %% of the error budget is left. Releases: %s.\n' "$left" "$(if [ "$frozen" = true ]; then echo frozen; else echo free; fi)"
	awk -v burn="$burn" -v fast="$FAST" 'BEGIN { if (burn + 0 >= fast + 0) printf "\n**It burns %.1f times too fast right now.**\n", burn }'
	printf '\n| window | failures | events | burn rate |\n|---|---|---|---|\n'
	awk -F '\t' '{ printf "| %s | %s | %s | %s |\n", $1, $2, $3, $4 }' "$MAESTRO_WORK/burn.tsv"
} >"$MAESTRO_ARTIFACTS/report.md"
cat "$MAESTRO_ARTIFACTS/report.md"
out left "$left"
out burn "$burn"
out frozen "$frozen"
