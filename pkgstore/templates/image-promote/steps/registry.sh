# Access to the registries, in a folder of this run.
DOCKER_CONFIG=$MAESTRO_WORK/docker
export DOCKER_CONFIG
(umask 077 && mkdir -p "$DOCKER_CONFIG" && printf '%s\n' "${DOCKER_CONFIG_TEXT:-{\}}" >"$DOCKER_CONFIG/config.json")
