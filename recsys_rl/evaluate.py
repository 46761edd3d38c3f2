"""The door to evaluation: checkpoint -> held-out users -> a table with intervals, beside the baselines."""

from __future__ import annotations

import json
import math
import platform
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import recsys_rl
from recsys_rl.agents import make_agent
from recsys_rl.agents.baselines import RandomPolicy, simple_baselines
from recsys_rl.agents.oracles import upper_bounds
from recsys_rl.checkpoint import Checkpoint, check_algo, load, restoring
from recsys_rl.config import EvaluateConfig, to_dict
from recsys_rl.env.gym_env import GymEnv
from recsys_rl.env.rec_env import RecEnv
from recsys_rl.env.world import make_env
from recsys_rl.report import write_report
from recsys_rl.rollout import Sessions, play
from recsys_rl.run import choose_device
from recsys_rl.types import Agent, Env, UserError
from recsys_rl.utils.files import check_writable, write_text
from recsys_rl.utils.metrics import interval
from recsys_rl.utils.seeding import generators, stream_seed

SIMPLE = ("random", "popularity", "one-item", "static-list")
NUM_FOREIGN_EPISODES = 100  # on other people's environments, which have no held-out users
NUM_SAMPLE_USERS = 3


def evaluate(options: EvaluateConfig) -> dict[str, Any]:
    """Play every policy with the same held-out users and print the table; returns what ``--json`` writes.

    Raises UserError for a checkpoint that can't be used and for outputs that can't be written.
    """
    device = choose_device(options.device)
    if options.threads:
        torch.set_num_threads(options.threads)
    path = Path(options.checkpoint)
    checkpoint = load(path)
    if options.algo is not None:
        check_algo(path, checkpoint, options.algo)
    _check_env(path, checkpoint, options.env)
    _check_outputs(options, path)
    if checkpoint.population is None and options.max_users != EvaluateConfig.max_users:
        raise UserError(
            f"--max-users is for simulated users, and {path} is of {checkpoint.config.env}: leave it out."
        )
    users = heldout_users(checkpoint, options.max_users)
    played = play_all(checkpoint, users, options.seed, device)
    result = summarise(checkpoint, played)
    print_table(checkpoint, result)
    if options.json is not None:
        write_text(Path(options.json), json.dumps(_without_nan(result), indent=1) + "\n")
    if options.report is not None:
        write_report(Path(options.report), _report(checkpoint, users, result, played))
        print(f"report: {options.report}", file=sys.stderr)
    return result


def _check_outputs(options: EvaluateConfig, checkpoint: Path) -> None:
    """Raise UserError where an output can't be written, or would take the place of something else."""
    taken = {checkpoint.resolve(): "the checkpoint itself"}
    for name in ("json", "report"):
        if getattr(options, name) is None:
            continue
        output = Path(getattr(options, name))
        check_writable(output, f"--{name}")
        if output.resolve() in taken or output.suffix == checkpoint.suffix:
            what = taken.get(output.resolve(), f"named like a checkpoint ({output.suffix})")
            raise UserError(f"--{name} {output} is {what}: give another name.")
        taken[output.resolve()] = "the file of --json as well"


def heldout_users(checkpoint: Checkpoint, max_users: int) -> Tensor | None:
    """Rows of the held-out users that play: all, or ``max_users`` evenly spread; None on ``gym:`` ones."""
    if checkpoint.population is None:
        return None
    heldout = checkpoint.population.heldout
    count = len(heldout) if max_users == 0 else min(max_users, len(heldout))
    return heldout[torch.arange(count) * len(heldout) // count]


def play_all(
    checkpoint: Checkpoint, users: Tensor | None, seed: int, device: torch.device
) -> dict[str, Sessions]:
    """One session per user and policy, in the table's order; all policies see the same noise.

    Which policy plays is said on standard error, as the planner may take minutes.
    """
    config, catalogue, population = checkpoint.config, checkpoint.catalogue, checkpoint.population
    if catalogue is not None and population is not None:
        catalogue, population = catalogue.to(device), population.to(device)
    users = None if users is None else users.to(device)
    num_rows = NUM_FOREIGN_EPISODES if users is None else len(users)

    def env_and_streams() -> tuple[Env, dict[str, torch.Generator]]:
        streams = generators(seed, "evaluation users", "policy", "shuffle", "random", device=device)
        env = make_env(
            config,
            catalogue,
            population,
            num_rows,
            streams["evaluation users"],
            heldout=True,
            training=False,
        )
        if isinstance(env, GymEnv):
            with restoring():
                env.load_statistics(checkpoint.env)
        return env, streams

    env, streams = env_and_streams()
    streams["model"] = torch.Generator().manual_seed(stream_seed(config.train_config.seed, "model"))
    untrained = make_agent(config, env, catalogue, 1, streams, device)
    trained = make_agent(config, env, catalogue, 1, streams, device)
    trained.model.retriever = untrained.model.retriever  # one index serves both
    with restoring():
        trained.load_state_dict({name: x.to(device) for name, x in checkpoint.agent.items()})
    if isinstance(env, RecEnv):
        assert population is not None
        print("making the baselines", file=sys.stderr)
        others = simple_baselines(env, population.train, streams["random"]) | upper_bounds(env)
    else:
        others = {"random": RandomPolicy(env.action_sizes, streams["random"])}
    agents: dict[str, tuple[Agent, bool]] = {
        config.algo: (trained, False),
        f"{config.algo}-greedy": (trained, True),
        "untrained": (untrained, False),
    } | {name: (agent, False) for name, agent in others.items()}

    played = {}
    for number, (name, (agent, greedy)) in enumerate(agents.items(), 1):
        print(f"playing {name} ({number} of {len(agents)})", file=sys.stderr)
        streams["evaluation users"].manual_seed(stream_seed(seed, "evaluation users"))
        streams["policy"].manual_seed(stream_seed(seed, "policy"))
        if isinstance(env, GymEnv):
            env.close()
            env, _ = env_and_streams()  # the only way to begin the same episodes again
        played[name] = play(env, agent, users, greedy)
    return played


def summarise(checkpoint: Checkpoint, played: Mapping[str, Sessions]) -> dict[str, Any]:
    """The table as plain values: ``rows``, and ``paired`` differences against the best simple baseline."""
    num_items = None if checkpoint.catalogue is None else checkpoint.catalogue.num_items
    rows = []
    for name, sessions in played.items():
        found = interval(sessions.returns)
        rows.append(
            {
                "policy": name,
                "return_mean": found.mean,
                "return_low": found.low,
                "return_high": found.high,
                "length_mean": sessions.lengths.double().mean().item(),
                "distinct_mean": distinct_items(sessions.items).double().mean().item(),
                "coverage": math.nan if num_items is None else _coverage(sessions.items, num_items),
            }
        )
    simple = {name: sessions for name, sessions in played.items() if name in SIMPLE}
    best = max(simple, key=lambda name: simple[name].returns.mean().item())
    paired = []
    for name in (checkpoint.config.algo, f"{checkpoint.config.algo}-greedy"):
        found = interval(played[name].returns - played[best].returns)
        paired.append(
            {"policy": name, "versus": best, "mean": found.mean, "low": found.low, "high": found.high}
        )
    sessions_each = len(played[checkpoint.config.algo].lengths)
    return {"env": checkpoint.config.env, "sessions": sessions_each, "rows": rows, "paired": paired}


def distinct_items(items: Tensor) -> Tensor:
    """How many different items each user saw: (T, N) with padding -1 -> (N,)."""
    ordered = items.sort(0).values  # (T, N)
    new = torch.ones_like(ordered, dtype=torch.bool)
    new[1:] = ordered[1:] != ordered[:-1]
    return (new & (ordered >= 0)).sum(0)


def _coverage(items: Tensor, num_items: int) -> float:
    """Share of the catalogue that was shown to anyone."""
    return len(items[items >= 0].unique()) / num_items


def print_table(checkpoint: Checkpoint, result: Mapping[str, Any]) -> None:
    """The table on standard output."""
    catalogue, population = checkpoint.catalogue, checkpoint.population
    print(f"{result['env']}, {checkpoint.config.algo} after {checkpoint.step:,} steps", end="; ")
    if catalogue is None or population is None:
        print(f"{result['sessions']} episodes on unseen seeds")
    else:
        print(f"{catalogue.source}")
        total = len(population.heldout)
        some = "" if result["sessions"] == total else f" of {total:,} (--max-users 0 plays all)"
        print(f"{result['sessions']:,}{some} held-out users, one session each")
    print(
        f"\n{'policy':<14}{'return':>9}  {'95 % interval':<20}{'length':>7}{'distinct':>10}{'coverage':>10}"
    )
    for row in result["rows"]:
        bounds = f"[{row['return_low']:.3f}, {row['return_high']:.3f}]"
        coverage = "" if math.isnan(row["coverage"]) else f"{row['coverage']:.1%}"
        print(
            f"{row['policy']:<14}{row['return_mean']:>9.3f}  {bounds:<20}{row['length_mean']:>7.1f}"
            f"{row['distinct_mean']:>10.1f}{coverage:>10}"
        )
    print()
    pairs = "seeds" if population is None else "users"
    for row in result["paired"]:
        print(
            f"{row['policy']} minus {row['versus']} (best simple baseline), same {pairs}: "
            f"{row['mean']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}]"
        )


def _check_env(path: Path, checkpoint: Checkpoint, typed: str | None) -> None:
    """A file must not name code to import: who wants gym:module:Id types it."""
    env = checkpoint.config.env
    if typed is not None and typed != env:
        raise UserError(
            f"{path} was trained on {env}, not on {typed}: leave --env out, or give another file."
        )
    if env.count(":") > 1 and typed is None:
        raise UserError(f"{path} was trained on {env}, which imports a module: type --env {env} to allow it.")


def _report(
    checkpoint: Checkpoint,
    users: Tensor | None,
    result: Mapping[str, Any],
    played: Mapping[str, Sessions],
) -> dict[str, Any]:
    """What the page shows, as plain values (report/__init__.py says which)."""
    config = checkpoint.config
    means = {row["policy"]: row["return_mean"] for row in result["rows"]}
    curve = checkpoint.info.get("curve", [])
    return {
        **result,
        "algo": config.algo,
        "data": "" if checkpoint.catalogue is None else checkpoint.catalogue.source,
        "seed": config.train_config.seed,
        "step": checkpoint.step,
        "heldout_users": result["sessions"],
        "hardware": f"{platform.machine()}, {torch.get_num_threads()} threads",
        "date": datetime.now(UTC).date().isoformat(),
        "version": recsys_rl.__version__,
        "config": {name: part for name, part in to_dict(config).items() if isinstance(part, dict)},
        "curve": {
            name: [point[place] for point in curve]
            for place, name in enumerate(("step", "mean", "low", "high"))
        },
        "references": {
            name: means[name]
            for name in ("random", result["paired"][0]["versus"], "myopic", "oracle", "planner")
            if name in means
        },
        "sessions": _sample_sessions(checkpoint, users, played),
    }


def _sample_sessions(
    checkpoint: Checkpoint, users: Tensor | None, played: Mapping[str, Sessions]
) -> list[dict[str, Any]]:
    """The first few held-out users' sessions with the policy, the best simple list, and the myopic oracle."""
    catalogue, population = checkpoint.catalogue, checkpoint.population
    if catalogue is None or population is None or users is None:
        return []
    shown = []
    for row, user in enumerate(users[:NUM_SAMPLE_USERS]):
        nearest = (catalogue.embedding @ population.profile[user]).topk(min(5, catalogue.num_items)).indices
        for policy in (f"{checkpoint.config.algo}-greedy", "static-list", "myopic"):
            sessions = played[policy]
            steps = []
            for t in range(int(sessions.lengths[row])):
                item = int(sessions.items[t, row])
                year = catalogue.year[item].item()
                steps.append(
                    {
                        "title": catalogue.title(item),
                        "year": None if math.isnan(year) else int(year),
                        "genres": [
                            name
                            for name, has in zip(catalogue.genre_names, catalogue.genres[item], strict=True)
                            if has
                        ],
                        "reward": sessions.rewards[t, row].item(),
                        "satisfaction": sessions.satisfaction[t, row].item(),
                    }
                )
            shown.append(
                {
                    "policy": policy,
                    "user": int(population.user_ids[user]),
                    "likes": [catalogue.title(int(item)) for item in nearest],
                    "return": sessions.returns[row].item(),
                    "left": bool(sessions.left[row]),
                    "steps": steps,
                }
            )
    return shown


def _without_nan(value: Any) -> Any:
    """JSON has no NaN: null stands in."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _without_nan(x) for key, x in value.items()}
    return [_without_nan(x) for x in value] if isinstance(value, list) else value
