. steps/lib.sh
. steps/kube.sh
kube patch service "$SERVICE" --type merge -p "{\"spec\":{\"selector\":{\"$LABEL\":\"$COLOUR\"}}}"
