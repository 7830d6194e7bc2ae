# Makes a key and writes it to Vault, once: cas=0 refuses a key that is there already.
. steps/lib.sh
need base64
key=$(head -c "$BYTES" /dev/urandom | base64 | tr -d '\n')
sum=$(printf %s "$key" | sha256sum)
if [ -n "$VAULT" ]; then
	need curl
	: "${VAULT_TOKEN:?give the secret token}"
	# The key is curl's standard input and the header a file: neither is on a command line.
	(umask 077 && printf 'X-Vault-Token: %s\n' "$VAULT_TOKEN" >"$MAESTRO_WORK/header")
	printf '{"options":{"cas":0},"data":{"key":"%s"}}' "$key" |
		curl -fsS --proto '=https' --max-time 30 -H "@$MAESTRO_WORK/header" -X POST --data-binary @- -o /dev/null "$VAULT/v1/$VAULT_PATH/$ID" ||
		die "Vault did not take the key"
else
	echo "no vault is named: the key $ID exists nowhere, only its fingerprint is recorded"
fi
out sha256 "${sum%% *}"
