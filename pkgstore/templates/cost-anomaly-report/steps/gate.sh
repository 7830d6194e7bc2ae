. steps/lib.sh
die "$ANOMALIES services stand out; report.md says by how much"
