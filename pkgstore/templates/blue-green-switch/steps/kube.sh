# kube ARGUMENTS...: kubectl with the given configuration; in a dry run it only writes the command down.
kube() {
	if [ "$DRY_RUN" = true ]; then
		printf 'kubectl -n %s %s\n' "$NAMESPACE" "$*" | tee -a "$MAESTRO_ARTIFACTS/commands.txt"
		return 0
	fi
	need kubectl
	if [ ! -f "$MAESTRO_WORK/kubeconfig" ]; then
		(umask 077 && printf '%s\n' "${KUBECONFIG_TEXT:?give the secret kubeconfig}" >"$MAESTRO_WORK/kubeconfig")
	fi
	kubectl --kubeconfig "$MAESTRO_WORK/kubeconfig" -n "$NAMESPACE" "$@"
}
