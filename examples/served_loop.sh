#!/usr/bin/env bash
# Train, serve, record, judge: the estimate of a log beside the truth that visitors measure.
#
#     bash examples/served_loop.sh [FOLDER]
#
# Two small policies are trained on made-up people. The first is served, and simulated people visit it. Its
# record becomes a log, from which `ope` estimates what the second policy would have earned. Then the second
# one is served to the same people, and its true return stands beside the estimate. It takes some two minutes.
set -euo pipefail

folder=${1:-served_loop}
sessions=${SESSIONS:-2000}
port=${PORT:-8765}
url=http://127.0.0.1:$port
mkdir -p "$folder" && cd "$folder"
server=
trap '[ -z "$server" ] || kill "$server" 2>/dev/null || true' EXIT

serve() {  # CHECKPOINT RECORD
    recsys-rl serve --checkpoint "$1" --db "$2" --port "$port" --feedback-window 1 --deadline-ms 5000 &
    server=$!
    for _ in $(seq 120); do
        python -c "import urllib.request as r; r.urlopen('$url/readyz', timeout=1)" 2>/dev/null && return
        kill -0 "$server" || exit 1
        sleep 0.5
    done
    exit 1
}

stop() {
    kill "$server" && wait "$server" || true
    server=
}

# Few items and short sessions: two thousand sessions then tell what a second policy would earn.
world=(--env satiation --data synthetic --num-items 50 --num-users 500 --embedding-dim 8 --max-episode-steps 4)
recsys-rl train "${world[@]}" --total-timesteps "${FIRST:-16000}" --name first
recsys-rl train "${world[@]}" --init-from runs/first/ppo.pt --total-timesteps "${SECOND:-10000}" --name second

serve runs/first/ppo.pt first.sqlite
recsys-rl visitors --url "$url" --checkpoint runs/first/ppo.pt --sessions "$sessions" --users all
stop
sleep 1.1 # the window in which feedback counts
recsys-rl log check --db first.sqlite
recsys-rl log export --db first.sqlite --out log.parquet
recsys-rl ope --log log.parquet --checkpoint runs/second/ppo.pt --logger runs/first/ppo.pt \
    --policy ppo --compare ppo logged

echo "the truth: the second policy, served to the same people"
serve runs/second/ppo.pt second.sqlite
recsys-rl visitors --url "$url" --checkpoint runs/second/ppo.pt --sessions "$sessions" --users all --seed 1
stop
