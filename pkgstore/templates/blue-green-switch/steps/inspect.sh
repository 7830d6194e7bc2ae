# Says which colour serves, and whether there is anything to do.
. steps/lib.sh
. steps/kube.sh
if [ -n "$STATE" ]; then
	fetch "$STATE" "$MAESTRO_WORK/state"
	serving=$(head -n 1 "$MAESTRO_WORK/state")
else
	# A label may hold dots, which jsonpath wants escaped.
	serving=$(kube get service "$SERVICE" -o "jsonpath={.spec.selector.$(printf %s "$LABEL" | sed 's/\./\\./g')}")
fi
case $serving in
blue | green) ;;
*) die "the selector of $SERVICE has $LABEL=\"$serving\", which is neither blue nor green" ;;
esac
out serving "$serving"
if [ "$serving" = "$TARGET" ]; then
	echo "$TARGET serves already"
	out change false
else
	out change true
fi
