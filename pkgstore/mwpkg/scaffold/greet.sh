# Outputs are lines NAME=VALUE in the file that MAESTRO_OUTPUT names.
printf 'greeting=Hello, %s!\n' "$WHO" >>"$MAESTRO_OUTPUT"
