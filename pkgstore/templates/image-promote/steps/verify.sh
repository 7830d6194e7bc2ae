# All are verified before one is copied.
. steps/lib.sh
. steps/registry.sh
need cosign
cut -f 1 "$MAESTRO_WORK/plan.tsv" | while read -r image; do
	cosign verify --key "$MAESTRO_WORK/cosign.pub" "$image" >/dev/null </dev/null || die "$image is not signed by the key"
done
