. steps/lib.sh
. steps/kube.sh
kube set image "deployment/$CANARY" "$CONTAINER=$IMAGE"
kube rollout status "deployment/$CANARY" --timeout=10m
