# Fills $MAESTRO_WORK/raw. One source that fails is noted and does not stop the others: at an incident, half is much.
. steps/lib.sh
raw=$MAESTRO_WORK/raw
mkdir -p "$raw"
: >"$raw/missing.txt"
if [ -n "$LOGS" ]; then (fetch "$LOGS" "$raw/logs.txt") || echo "logs: $LOGS" >>"$raw/missing.txt"; fi
if [ -n "$DEPLOYMENTS" ]; then (fetch "$DEPLOYMENTS" "$raw/deployments.tsv") || echo "deployments: $DEPLOYMENTS" >>"$raw/missing.txt"; fi
if [ -n "$NAMESPACE" ]; then
	need kubectl
	(umask 077 && printf '%s\n' "${KUBECONFIG_TEXT:?give the secret kubeconfig}" >"$MAESTRO_WORK/kubeconfig")
	kube() { kubectl --kubeconfig "$MAESTRO_WORK/kubeconfig" -n "$NAMESPACE" --request-timeout 60s "$@"; }
	kube get pods -l "$SELECTOR" -o wide >"$raw/pods.txt" || echo pods >>"$raw/missing.txt"
	kube get events --sort-by .lastTimestamp >"$raw/events.txt" || echo events >>"$raw/missing.txt"
	kube get replicasets -l "$SELECTOR" --sort-by .metadata.creationTimestamp -o wide >"$raw/rollouts.txt" || echo rollouts >>"$raw/missing.txt"
	kube logs -l "$SELECTOR" --all-containers --prefix --timestamps --tail -1 --since "${SINCE}m" --max-log-requests 50 >"$raw/pod-logs.txt" || echo "pod logs" >>"$raw/missing.txt"
fi
rm -f "$MAESTRO_WORK/kubeconfig"
[ -n "$(find "$raw" -type f -size +0 ! -name missing.txt)" ] || die "nothing could be collected: $(tr '\n' ';' <"$raw/missing.txt")"
