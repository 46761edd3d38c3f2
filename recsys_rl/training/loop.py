"""The loop of every training: a batch, an update, and then the observers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import torch
from torch import Tensor

from recsys_rl.training.observers import Observer
from recsys_rl.training.ranks import Ranks
from recsys_rl.training.run import Run, Update


def train_on(
    run: Run,
    folder: Path,
    observers: Sequence[Observer],
    ranks: Ranks,
    requests_to_stop: Callable[[], AbstractContextManager[list[int]]],
) -> Iterator[Update]:
    """Yield the remaining updates of ``run``. A request to stop ends the loop after the current update."""
    asked = stopping = False
    while not run.over and not stopping:
        with requests_to_stop() as requests:
            batch = run.experience.batch()
            metrics = {**run.agent.update(batch.data), **batch.metrics}
            run.updates += 1
            metrics, ended, stopping = exchange(metrics, batch.ended, asked or bool(requests), ranks)
            update = Update(run.step, metrics, run, folder, ended, stopping)
            for observer in observers:
                observer.updated(update)
            asked = bool(requests)
        yield update


def exchange(
    metrics: Mapping[str, float], ended: Tensor, stop: bool, ranks: Ranks
) -> tuple[dict[str, float], Tensor, bool]:
    """Gather an update's mean metrics, finished sessions (2, finished), and True if any rank must stop."""
    everyone = ranks.gather(
        {
            "metrics": torch.tensor(list(metrics.values()), dtype=torch.float64),
            "ended": ended,
            "stop": torch.tensor(stop),
        }
    )
    means = torch.stack([rank["metrics"] for rank in everyone]).mean(0).tolist()
    all_ended = torch.cat([rank["ended"] for rank in everyone], 1)
    return dict(zip(metrics, means, strict=True)), all_ended, any(bool(rank["stop"]) for rank in everyone)
