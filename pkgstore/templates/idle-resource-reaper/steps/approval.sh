. steps/lib.sh
[ "$APPROVED" = "$PLAN" ] || die "usage has changed since: the plan is $PLAN, and $APPROVED was approved; look at it again"
