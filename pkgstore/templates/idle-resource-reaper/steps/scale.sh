# Scales to zero what still has the planned number of replicas: somebody may have come back since.
. steps/lib.sh
[ -s "$MAESTRO_ARTIFACTS/plan.tsv" ] || exit 0
need kubectl
(umask 077 && printf '%s\n' "${KUBECONFIG_TEXT:?give the secret kubeconfig}" >"$MAESTRO_WORK/kubeconfig")
scaled=0 failed=0
while read -r namespace name replicas _; do
	if kubectl --kubeconfig "$MAESTRO_WORK/kubeconfig" -n "$namespace" scale "deployment/$name" --current-replicas="$replicas" --replicas=0 </dev/null; then
		scaled=$((scaled + 1))
	else
		failed=$((failed + 1))
	fi
done <"$MAESTRO_ARTIFACTS/plan.tsv"
rm -f "$MAESTRO_WORK/kubeconfig"
out scaled $scaled
[ $failed -eq 0 ] || die "$failed of $((scaled + failed)) were not scaled"
