# One archive with its own list of digests. tar is not on every runner; a folder does then.
. steps/lib.sh
cd "$MAESTRO_WORK/bundle"
sha256sum ./* >../SHA256SUMS && mv ../SHA256SUMS SHA256SUMS
if command -v tar >/dev/null && command -v gzip >/dev/null; then
	tar -cf - . | gzip -n >"$MAESTRO_ARTIFACTS/incident-$INCIDENT.tar.gz"
else
	mkdir "$MAESTRO_ARTIFACTS/incident-$INCIDENT"
	cp ./* "$MAESTRO_ARTIFACTS/incident-$INCIDENT/"
fi
sum=$(sha256sum SHA256SUMS)
out sha256 "${sum%% *}"
