"""Milliseconds of acting and learning with each encoder of histories.

    python -m benchmarks.encoders [--rounds 9] [--smoke]

64 users choose among 1,000 items, by the two-tower head, with windows of 50 entries. "act" is one step of a
rollout without its environment: going on from the last observation, and choosing. It is given for histories
of about 10 and 45 entries, and for a full window that slides. "encoding" acts as "act at 45", but encodes the
whole window at each step.

"update" is one gradient step of PPO on 512 full windows, 32 steps of 16 users: forward, loss, backward, Adam.
"products" are the matrix products of that step alone, as torch computes them where nothing is compiled.
Encoders take turns within a round. Times are of the processor, for one thread: medians over the rounds.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any
from unittest import mock

import torch
import tyro
from torch.utils._python_dispatch import TorchDispatchMode

from recsys_rl.agents.ppo import PPO, PPOConfig
from recsys_rl.functional.compiled import kernels
from recsys_rl.models.actor_critic import ActorCritic
from recsys_rl.models.shapes import Shapes
from recsys_rl.settings.shared import ModelConfig
from recsys_rl.types import Obs, Rollout, tree_map
from recsys_rl.utils.allocator import keep_freed_memory

USERS, WINDOW, ITEMS, DIMS, FEATURES, BATCH, STEPS = 64, 50, 1000, 32, 55, 512, 32
ENCODERS = ("mlp", "transformer")
PRODUCTS = {torch.ops.aten.mm, torch.ops.aten.addmm, torch.ops.aten.bmm, torch.ops.aten.baddbmm}


class Products(TorchDispatchMode):
    """Keeps the calls of matrix products with their tensors."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: list[tuple[Callable[..., Any], tuple[Any, ...]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket in PRODUCTS:
            self.calls.append((func, args))
        return func(*args, **(kwargs or {}))

    @torch.no_grad()
    def repeat(self) -> None:
        for func, args in self.calls:
            func(*args)


def make_agent(encoder: Any) -> PPO:
    streams = {name: torch.Generator().manual_seed(0) for name in ("model", "policy", "shuffle")}
    features = torch.randn(ITEMS, FEATURES, generator=streams["model"])
    shapes = Shapes(2 * DIMS, (ITEMS,), features, WINDOW, num_signals=1)
    model = ActorCritic(shapes, ModelConfig(encoder=encoder), streams["model"])
    return PPO(model, PPOConfig(update_epochs=1, batch_size=BATCH), 10**6, streams)


def sessions(rows: int, steps: int) -> list[Obs]:
    """The observations of ``rows`` sessions, one after another, with the same window as it moves on."""
    generator = torch.Generator().manual_seed(1)
    items = torch.randint(ITEMS, (rows, steps), generator=generator)
    signals = torch.rand(rows, steps, 1, generator=generator)
    items = torch.cat([torch.full((rows, WINDOW), -1), items], 1)
    signals = torch.cat([torch.zeros(rows, WINDOW, 1), signals], 1)
    context = torch.randn(rows, 2 * DIMS, generator=generator)
    windows = [slice(at, at + WINDOW) for at in range(steps + 1)]
    return [Obs(context, items[:, at].contiguous(), signals[:, at].contiguous()) for at in windows]


def act(agent: PPO, seen: list[Obs], first: int, last: int, *, reads: bool = True) -> float:
    """Milliseconds of one of the steps ``first`` to ``last``."""
    reader = agent.reader() if reads else None
    with torch.inference_mode():
        if reader is not None:
            reader.follow(seen[first - 1])
        started = time.process_time()
        for obs in seen[first:last]:
            agent.act(obs if reader is None else reader.follow(obs))
        return 1e3 * (time.process_time() - started) / (last - first)


def record(agent: PPO, seen: list[Obs]) -> Rollout:
    """A rollout of these observations, one minibatch: ``STEPS`` steps of BATCH / STEPS users."""
    obs: Obs = tree_map(lambda *pieces: torch.stack(pieces), *seen)
    action = agent.act(obs.map(lambda values: values.flatten(0, 1)))
    assert action.value is not None
    shape = obs.context.shape[:2]
    zeros = torch.zeros(shape)
    random = torch.rand(shape, generator=torch.Generator().manual_seed(2))
    return Rollout(
        obs,
        items=action.items.unflatten(0, shape),
        logprobs=action.logprob.unflatten(0, shape),
        values=action.value.unflatten(0, shape),
        next_values=zeros,
        rewards=random,
        streams=random.unsqueeze(-1),
        terminated=zeros > 0,
        truncated=zeros > 0,
    )


def milliseconds(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return 1e3 * (time.process_time() - started)


def main(rounds: int = 9, smoke: bool = False) -> None:
    """Print the table; ``smoke`` is one short round."""
    torch.set_num_threads(1)
    keep_freed_memory()  # as in training
    seen, full = sessions(USERS, 70), sessions(BATCH // STEPS, WINDOW + STEPS - 1)[-STEPS:]
    agents = {encoder: make_agent(encoder) for encoder in ENCODERS}
    batches = {encoder: record(agent, full) for encoder, agent in agents.items()}
    products: dict[str, Products] = {}
    for encoder, agent in agents.items():
        agent.update(batches[encoder])  # warm
        # Compiled products don't come by here.
        with Products() as products[encoder], mock.patch.object(kernels, "library", return_value=None):
            agent.update(batches[encoder])
    times: dict[str, dict[str, list[float]]] = {encoder: {} for encoder in ENCODERS}
    for _ in range(1 if smoke else rounds):
        for encoder, agent in agents.items():
            measured = {
                "act at 10": act(agent, seen, 5, 15),
                "at 45": act(agent, seen, 40, 50),
                "sliding": act(agent, seen, 55, 65),
                "encoding": act(agent, seen, 40, 50, reads=False),
                "update": milliseconds(partial(agent.update, batches[encoder])),
                "products": milliseconds(products[encoder].repeat),
            }
            for name, value in measured.items():
                times[encoder].setdefault(name, []).append(value)
    print(
        *_table({e: {n: statistics.median(seconds) for n, seconds in of.items()} for e, of in times.items()}),
        sep="\n",
    )


def _table(medians: dict[str, dict[str, float]]) -> list[str]:
    head = [*medians[ENCODERS[0]], "update / products", "at 45 / mlp", "sliding / mlp"]
    rows = [f"| ms | {' | '.join(head)} |", f"|---|{'---:|' * len(head)}"]
    for encoder, of in medians.items():
        shares = (
            of["update"] / of["products"],
            of["at 45"] / medians["mlp"]["at 45"],
            of["sliding"] / medians["mlp"]["sliding"],
        )
        rows.append(f"| {encoder} | {' | '.join(f'{value:.2f}' for value in (*of.values(), *shares))} |")
    return rows


if __name__ == "__main__":
    tyro.cli(main)
