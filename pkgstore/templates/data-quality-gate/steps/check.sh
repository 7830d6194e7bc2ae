# Splits the data into good.csv and quarantine.csv, whose last column says why.
. steps/lib.sh
fetch "$DATA" "$MAESTRO_WORK/data.raw"
fetch "$RULES" "$MAESTRO_WORK/rules.tsv"
tr -d '\r' <"$MAESTRO_WORK/data.raw" >"$MAESTRO_WORK/data.csv"
if grep -q '"' "$MAESTRO_WORK/data.csv"; then die "the data has quoted fields, which are not read: write tab-free values, or another separator"; fi
awk -F , -v OFS=, -v rules="$MAESTRO_WORK/rules.tsv" -v good="$MAESTRO_ARTIFACTS/good.csv" -v bad="$MAESTRO_ARTIFACTS/quarantine.csv" '
	function complain(text) { why = why (why == "" ? "" : "; ") text }
	NR == 1 {
		columns = NF
		for (i = 1; i <= NF; i++) {
			if ($i in at) { print "the column " $i " is there twice" > "/dev/stderr"; exit 1 }
			at[$i] = i
		}
		while ((getline line < rules) > 0) {
			if (line == "" || line ~ /^#/) continue
			n = split(line, part, "\t")
			if (!(part[1] in at)) { print "a rule is for " part[1] ", which is no column" > "/dev/stderr"; exit 1 }
			if (part[2] !~ /^(required|unique|matches|oneof|min|max|date)$/) { print part[2] " is no rule" > "/dev/stderr"; exit 1 }
			count++; column[count] = part[1]; rule[count] = part[2]; argument[count] = n > 2 ? part[3] : ""
		}
		if (count == 0) { print "there are no rules" > "/dev/stderr"; exit 1 }
		print > good
		print $0, "line", "ground" > bad
		next
	}
	{
		why = ""
		if (NF != columns) complain(NF " columns, not " columns)
		else for (r = 1; r <= count; r++) {
			v = $at[column[r]]; a = argument[r]
			if (rule[r] == "required") { if (v == "") complain(column[r] " is empty") }
			else if (v == "") continue # other rules are about values that are there
			else if (rule[r] == "unique") { if ((column[r], v) in seen) complain(column[r] " is there already, in line " seen[column[r], v]); else seen[column[r], v] = NR }
			else if (rule[r] == "matches") { if (v !~ a) complain(column[r] " does not match " a) }
			else if (rule[r] == "oneof") { if (index(" " a " ", " " v " ") == 0) complain(column[r] " is none of " a) }
			else if (rule[r] == "date") { if (v !~ /^[0-9][0-9][0-9][0-9]-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])$/) complain(column[r] " is no date") }
			else if (v !~ /^-?[0-9]+(\.[0-9]+)?$/) complain(column[r] " is no number")
			else if (rule[r] == "min" ? v + 0 < a + 0 : v + 0 > a + 0) complain(column[r] " is " (rule[r] == "min" ? "below " : "above ") a)
		}
		if (why == "") { print > good; g++ } else { print $0, NR, why > bad; b++ }
	}
	END { printf "%d %d\n", g, b > "/dev/stdout" }
' "$MAESTRO_WORK/data.csv" >"$MAESTRO_WORK/counts" || die "the data cannot be checked"
read -r good bad <"$MAESTRO_WORK/counts" || die "the data has no header"
head -n 20 "$MAESTRO_ARTIFACTS/quarantine.csv"
sum=$(sha256sum <"$MAESTRO_ARTIFACTS/good.csv")
out rows $((good + bad))
out good "$good"
out bad "$bad"
out sha256 "${sum%% *}"
