. steps/lib.sh
. steps/kube.sh
kube set image "deployment/$STABLE" "$CONTAINER=$IMAGE"
if ! kube rollout status "deployment/$STABLE" --timeout=20m; then
	kube rollout undo "deployment/$STABLE"
	die "$STABLE did not become ready with the new image and was taken back; the canary still has it"
fi
