# In the order of the map, which goes from the leaves of foreign keys to the root. A database does all in one transaction.
. steps/lib.sh
. steps/tables.sh
if [ -z "$FILES" ]; then
	{
		echo 'begin;'
		awk -F '\t' '
			$3 == "delete" { printf "delete from %s where %s = :'\''subject'\'';\n", $1, $2 }
			$3 == "blank" { n = split($4, c, ","); printf "update %s set ", $1; for (i = 1; i <= n; i++) printf "%s%s = null", (i > 1 ? ", " : ""), c[i]; printf " where %s = :'\''subject'\'';\n", $2 }
		' "$MAESTRO_WORK/map.tsv"
		echo 'commit;'
	} | sql
	exit 0
fi
while read -r table column action columns; do
	awk -F , -v OFS=, -v column="$column" -v action="$action" -v columns="$columns" '
		BEGIN { subject = ENVIRON["SUBJECT"] }
		NR == 1 { for (i = 1; i <= NF; i++) at[$i] = i; n = split(columns, blank, ","); print; next }
		$at[column] != subject { print; next }
		action == "blank" { for (i = 1; i <= n; i++) if (blank[i] in at) $at[blank[i]] = ""; print }
	' "$MAESTRO_WORK/tables/$table.csv" >"$MAESTRO_WORK/tables/$table.new"
	mv "$MAESTRO_WORK/tables/$table.new" "$MAESTRO_WORK/tables/$table.csv"
done <"$MAESTRO_WORK/map.tsv"
mkdir -p "$MAESTRO_ARTIFACTS/tables"
cp "$MAESTRO_WORK"/tables/*.csv "$MAESTRO_ARTIFACTS/tables/"
