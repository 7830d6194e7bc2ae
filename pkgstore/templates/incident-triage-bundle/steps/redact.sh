# Takes out what must not reach a ticket: tokens, passwords, mail addresses, card-like numbers.
. steps/lib.sh
mkdir -p "$MAESTRO_WORK/bundle"
for file in "$MAESTRO_WORK"/raw/*; do
	sed -E \
		-e 's/([Bb]earer |[Bb]asic )[A-Za-z0-9._~+\/=-]{8,}/\1[redacted]/g' \
		-e 's/(([Pp]assword|[Pp]asswd|[Ss]ecret|[Tt]oken|[Aa]pi[_-]?[Kk]ey)["'\'']?[=:] *["'\'']?)[^ "'\'',&;]+/\1[redacted]/g' \
		-e 's/[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+\.[A-Za-z]{2,}/[mail]/g' \
		-e 's/eyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+/[token]/g' \
		-e 's/[0-9]{4}[ -]?[0-9]{4}[ -]?[0-9]{4}[ -]?[0-9]{3,4}/[number]/g' \
		"$file" >"$MAESTRO_WORK/bundle/$(basename "$file")"
done
out redactions "$(cat "$MAESTRO_WORK"/bundle/* | grep -oE '\[(redacted|mail|token|number)\]' | awk 'END { print NR }')"
