. steps/lib.sh
. steps/table.sh
fetch "$WAREHOUSE" "$MAESTRO_WORK/warehouse.raw"
table "$MAESTRO_WORK/warehouse.raw" warehouse
