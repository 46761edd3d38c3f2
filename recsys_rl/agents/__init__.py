"""Policies. An algorithm is one file with its settings; none imports another. The first is default."""

AGENTS = {
    "ppo": "recsys_rl.agents.ppo:ALGORITHM",
    "a2c": "recsys_rl.agents.a2c:ALGORITHM",
}
