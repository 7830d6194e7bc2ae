# Every endpoint gets its attempts; one that is down does not hold up the next. deliveries.tsv says what became of each.
. steps/lib.sh
log=$MAESTRO_ARTIFACTS/deliveries.tsv dead=$MAESTRO_ARTIFACTS/dead-letters.tsv
: >"$log"
: >"$dead"
signature=$(cat "$MAESTRO_WORK/signature")

# send URL: once; says the HTTP status, or what stands in its place.
send() {
	case $1 in
	spool:*)
		folder=$MAESTRO_ARTIFACTS/${1#spool:}
		mkdir -p "$folder"
		cp "$MAESTRO_WORK/payload" "$folder/$EVENT"
		[ -z "$signature" ] || echo "$signature" >"$folder/$EVENT.sha256-hmac"
		echo 200
		return
		;;
	esac
	command -v curl >/dev/null || { echo "no curl" && return; }
	curl -sS --proto '=https,http' --max-time 20 -o /dev/null -w '%{http_code}' -X POST -H "Content-Type: $CONTENT_TYPE" -H "X-Event-Id: $EVENT" \
		${signature:+-H "X-Signature-256: sha256=$signature"} --data-binary "@$MAESTRO_WORK/payload" "$1" 2>/dev/null || :
}

while read -r name url; do
	attempt=1 pause=$PAUSE
	while :; do
		status=$(send "$url" </dev/null)
		case $status in
		2??) break ;;
		408 | 425 | 429 | 5?? | 000 | '' | no*) ;; # another attempt can end differently
		*) attempt=$ATTEMPTS ;;
		esac
		[ $attempt -lt "$ATTEMPTS" ] || break
		sleep "$pause"
		attempt=$((attempt + 1)) pause=$((pause * 2))
	done
	printf '%s\t%s\t%s\n' "$name" "${status:-000}" "$attempt" >>"$log"
	case $status in 2??) ;; *) printf '%s\t%s\n' "$name" "$url" >>"$dead" ;; esac
done <"$MAESTRO_WORK/endpoints.tsv"
cat "$log"
out dead "$(awk 'END { print NR }' "$dead")"
out delivered "$(awk -F '\t' '$2 ~ /^2/ { n++ } END { print n + 0 }' "$log")"
