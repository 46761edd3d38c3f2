#!/bin/sh
# The server of the container, with the record and the policies in this folder. Words after it are options of
# `recsys-rl serve`. RECSYS_RL_TOKEN is the token of all requests; without it the file `tokens` has them
# (docs/10_serving.md, "Beyond this machine").
set -eu
umask 077
tokens=tokens
if [ -n "${RECSYS_RL_TOKEN:-}" ]; then
    tokens=$(mktemp)
    hash=$(printf %s "$RECSYS_RL_TOKEN" | sha256sum | cut -d' ' -f1)
    echo "decide,feedback,read,admin $hash" >"$tokens"
elif [ ! -e tokens ]; then
    echo "error: others can reach this server: give a token, as in docker run -e RECSYS_RL_TOKEN=try." >&2
    exit 2
fi
mkdir -p policies
if [ -z "$(ls policies)" ]; then
    cp "$FIRST" policies/first.pt # the small policy of made-up items
fi
exec recsys-rl serve --checkpoint policies --db record.sqlite --host 0.0.0.0 --tokens "$tokens" "$@"
