. steps/lib.sh
. steps/kube.sh
kube rollout undo "deployment/$CANARY"
kube rollout status "deployment/$CANARY" --timeout=5m
