#!/bin/sh
# One turn of the loop beside the server of the same folder, then a pause: of a day, or of $1 seconds. A turn that fails says
# why in one sentence, and the next one goes on.
while :; do
    nice recsys-rl loop --db record.sqlite --policies policies --url http://127.0.0.1:8000 || echo "the turn failed" >&2
    sleep "${1:-86400}"
done
