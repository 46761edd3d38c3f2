"""Public logs of decisions with known propensities, a file each."""

# Functions (data_dir, cache_dir) -> DecisionTable.
LOGS = {
    "open-bandit": "recsys_rl.logs.public.open_bandit:open_bandit_decisions",
    "kuairand-random": "recsys_rl.logs.public.kuairand:random_decisions",
}
