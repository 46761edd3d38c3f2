"""Environment steps per second of training: ours and each peer on the same environment, network, dials.

    python -m benchmarks.throughput [--rounds 3] [--json FILE] [--csv FILE] [--smoke]

Everybody trains PPO on `drift` with 1,000 synthetic items, networks [128, 64] with tanh and one logit
per item, Adam, and the same rollout, minibatch and epochs; peers see our batched environment through
the vector interface of their own. Systems take turns within each round, so that a drift of the
machine's speed meets them all; the table has medians over rounds. "floor" is the time of the matrix
products alone: each sample's forward passes, and the backward passes at twice a forward pass.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from recsys_rl.agents import make_agent
from recsys_rl.config import Config, ModelConfig, PPOConfig
from recsys_rl.data.catalogue import synthetic_world
from recsys_rl.env.drift import Drift
from recsys_rl.env.rec_env import RecEnv
from recsys_rl.rollout import collect
from recsys_rl.utils.seeding import generators

NUM_ITEMS, HIDDEN = 1000, (128, 64)


@dataclass(frozen=True)
class Dials:
    """What all systems share."""

    num_envs: int
    n_steps: int
    batch_size: int
    update_epochs: int
    updates: int  # timed ones, after one that is not

    @property
    def per_update(self) -> int:
        return self.num_envs * self.n_steps


DIALS = {"batched": Dials(64, 32, 512, 4, 8), "original": Dials(8, 256, 64, 10, 2)}
SMOKE = {"batched": Dials(4, 8, 16, 1, 1)}


def drift_env(num_envs: int) -> RecEnv:
    config = Config(algo="ppo")
    catalogue, population = synthetic_world(NUM_ITEMS, 2000, config.env_config.embedding_dim, 0.2, 0)
    user_model = Drift(catalogue, population, config.env_config)
    generator = torch.Generator().manual_seed(0)
    return RecEnv(user_model, catalogue, config.env_config, population.train, num_envs, generator)


def ours(dials: Dials) -> float:
    """Our trainer without its log."""
    env = drift_env(dials.num_envs)
    agent_config = PPOConfig(
        lr=3e-4,
        ent_coef=0.0,
        num_envs=dials.num_envs,
        n_steps=dials.n_steps,
        batch_size=dials.batch_size,
        update_epochs=dials.update_epochs,
    )
    model_config = ModelConfig(head="dense", hidden_dims=HIDDEN, activation="tanh")
    config = Config(agent_config=agent_config, model_config=model_config)
    streams = generators(0, "model", "policy", "shuffle")
    agent = make_agent(config, env, env.catalogue, 1000, streams, torch.device("cpu"))
    obs = env.reset()
    started = 0.0
    for update in range(1 + dials.updates):
        if update == 1:
            started = time.perf_counter()
        rollout, obs = collect(env, agent, obs, dials.n_steps)
        agent.update(rollout)
    return dials.updates * dials.per_update / (time.perf_counter() - started)


def stable_baselines3(dials: Dials) -> float:
    import stable_baselines3

    return _sb3_like(stable_baselines3.PPO, dials, {"activation_fn": torch.nn.Tanh})


def sbx(dials: Dials) -> float:
    import flax.linen
    import sbx as package

    return _sb3_like(package.PPO, dials, {"activation_fn": flax.linen.tanh})


def _sb3_like(algorithm: Any, dials: Dials, policy: dict[str, Any]) -> float:
    """Stable-Baselines3, or SBX, which shares its interface."""
    from stable_baselines3.common.callbacks import BaseCallback

    class Clock(BaseCallback):
        """Notes when each rollout begins: between two of them lies one whole cycle."""

        def __init__(self) -> None:
            super().__init__()
            self.times: list[float] = []

        def _on_rollout_start(self) -> None:
            self.times.append(time.perf_counter())

        def _on_step(self) -> bool:
            return True

    clock = Clock()
    model = algorithm(
        "MlpPolicy",
        _sb3_env(dials.num_envs),
        learning_rate=3e-4,
        n_steps=dials.n_steps,
        batch_size=dials.batch_size,
        n_epochs=dials.update_epochs,
        ent_coef=0.0,
        policy_kwargs={"net_arch": list(HIDDEN), **policy},
        device="cpu",
        seed=0,
    )
    model.learn((2 + dials.updates) * dials.per_update, callback=clock)
    return dials.updates * dials.per_update / (clock.times[1 + dials.updates] - clock.times[1])


def _sb3_env(num_envs: int) -> Any:
    """Our batched environment as a VecEnv of Stable-Baselines3: tensors in and out, no loop over users."""
    from gymnasium import spaces
    from stable_baselines3.common.vec_env import VecEnv

    class BatchedDrift(VecEnv):
        def __init__(self) -> None:
            self.env = drift_env(num_envs)
            size = self.env.context_dim
            super().__init__(
                num_envs,
                spaces.Box(-np.inf, np.inf, (size,), np.float32),
                spaces.Discrete(self.env.catalogue.num_items),
            )

        def reset(self) -> Any:
            return self.env.reset().context.numpy()

        def step_async(self, actions: Any) -> None:
            self.actions = torch.from_numpy(np.asarray(actions, np.int64)).unsqueeze(-1)

        def step_wait(self) -> Any:
            step = self.env.step(self.actions)
            done = (step.terminated | step.truncated).numpy()
            infos: list[dict[str, Any]] = [{} for _ in range(num_envs)]
            for row in np.flatnonzero(done):
                infos[row] = {
                    "terminal_observation": step.final_obs.context[row].numpy(),
                    "TimeLimit.truncated": bool(step.truncated[row]),
                }
            return step.obs.context.numpy(), step.reward.numpy(), done, infos

        def close(self) -> None:
            pass

        def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
            return [None] * num_envs

        def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
            pass

        def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
            return [None] * num_envs

        def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
            return [False] * num_envs

    return BatchedDrift()


def floor(dials: Dials) -> float:
    """Steps per second if nothing but the matrix products took time."""
    sizes = [(64, HIDDEN[0]), HIDDEN, (HIDDEN[1], NUM_ITEMS), (64, HIDDEN[0]), HIDDEN]
    seconds = 0.0
    for rows, calls in ((dials.num_envs, dials.n_steps), (dials.batch_size, 0)):
        for inputs, outputs in sizes:
            x, w = torch.randn(rows, inputs), torch.randn(inputs, outputs)
            y = x @ w
            one = _seconds(torch.mm, x, w)
            if calls:
                seconds += calls * one
            else:
                back = _seconds(torch.mm, y, w.T) + _seconds(torch.mm, x.T, y)
                passes = dials.update_epochs * dials.per_update / dials.batch_size
                seconds += passes * (one + back)
    return dials.per_update / seconds


def _seconds(work: Callable[..., Any], *arguments: Any, times: int = 30) -> float:
    for _ in range(5):
        work(*arguments)
    started = time.perf_counter()
    for _ in range(times):
        work(*arguments)
    return (time.perf_counter() - started) / times


SYSTEMS: dict[str, tuple[str, Callable[[Dials], float]]] = {  # package, and how it is timed
    "recsys_rl": ("recsys-rl", ours),
    "stable-baselines3": ("stable-baselines3", stable_baselines3),
    "sbx": ("sbx-rl", sbx),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=0, help="threads of torch; 0 leaves its own choice")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--csv", type=Path, default=Path("benchmarks/results/throughput.csv"))
    parser.add_argument("--smoke", action="store_true", help="does it run? Writes no CSV")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    rows: list[dict[str, Any]] = []
    floors: dict[str, float] = {}
    for name, dials in (SMOKE if args.smoke else DIALS).items():
        times: dict[str, list[float]] = {system: [] for system in SYSTEMS}
        floor_times = []
        for _ in range(1 if args.smoke else args.rounds):
            floor_times.append(floor(dials))
            for system, (_, measure) in SYSTEMS.items():
                try:
                    times[system].append(measure(dials))
                except ImportError:
                    continue
        floors[name] = statistics.median(floor_times)
        base = statistics.median(times["recsys_rl"])
        for system, (package, _) in SYSTEMS.items():
            if not times[system]:
                rows.append({"system": system, "dials": name, "steps_per_s": None, "note": "not installed"})
                continue
            speed = statistics.median(times[system])
            rows.append(
                {
                    "system": system,
                    "dials": name,
                    "steps_per_s": round(speed, 1),
                    "ours_over_it": round(base / speed, 2),
                    "version": _version(package),
                }
            )
    for row in rows:
        print({key: value for key, value in row.items() if value is not None})
    print({"floor_steps_per_s": {name: round(value) for name, value in floors.items()}})
    if args.json is not None:
        args.json.write_text(
            json.dumps({"rows": rows, "floor_steps_per_s": floors["batched"]}, indent=1) + "\n"
        )
    if not args.smoke:
        _append(args.csv, rows, floors)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "checkout"


def _append(path: Path, rows: list[dict[str, Any]], floors: dict[str, float]) -> None:
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout
    about = {
        "date": datetime.now(UTC).date().isoformat(),
        "hardware": f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads",
        "commit": commit.strip(),
        "torch": torch.__version__,
    }
    columns = [
        *about,
        "system",
        "version",
        "dials",
        "steps_per_s",
        "ours_over_it",
        "floor_steps_per_s",
        "note",
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    is_new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, columns)
        if is_new:
            writer.writeheader()
        writer.writerows(about | {"floor_steps_per_s": round(floors[row["dials"]])} | row for row in rows)


if __name__ == "__main__":
    main()
