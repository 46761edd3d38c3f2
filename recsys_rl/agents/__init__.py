"""Policies, one file for each algorithm with its settings. None imports another. The first is the default."""

AGENTS = {
    "ppo": "recsys_rl.agents.ppo:ALGORITHM",
    "a2c": "recsys_rl.agents.a2c:ALGORITHM",
    "dqn": "recsys_rl.agents.dqn:ALGORITHM",
    "bc": "recsys_rl.agents.bc:ALGORITHM",
    "cql": "recsys_rl.agents.cql:ALGORITHM",
    "bcq": "recsys_rl.agents.bcq:ALGORITHM",
    "iql": "recsys_rl.agents.iql:ALGORITHM",
    "reinforce": "recsys_rl.agents.reinforce:ALGORITHM",
    "dt": "recsys_rl.agents.dt:ALGORITHM",
    "direct": "recsys_rl.agents.direct:ALGORITHM",
}
