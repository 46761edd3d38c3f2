"""The processes of a run begin with the same settings, data and weights, and keep the same weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

import torch
from torch import Tensor

from recsys_rl.settings.config import to_dict
from recsys_rl.training.ranks import Ranks
from recsys_rl.training.resume import FREE_ON_RESUME
from recsys_rl.training.run import Run
from recsys_rl.types import UserError, tensors_of


def check_same(run: Run, device: torch.device, ranks: Ranks) -> None:
    """Raise UserError unless all ranks have the same settings, data and weights, as averaging requires."""
    if ranks.size == 1:
        return
    settings = {name: section for name, section in to_dict(run.config).items() if name != "data_config"}
    settings["train_config"] = {
        name: value
        for name, value in settings["train_config"].items()
        if ("train_config", name) not in FREE_ON_RESUME or name.endswith("interval")
    }
    text = json.dumps([settings, run.updates, device.type]).encode()
    catalogue, population = tensors_of(run.world.catalogue), tensors_of(run.world.population)
    own = {
        "settings": torch.frombuffer(bytearray(hashlib.sha256(text).digest()), dtype=torch.uint8),
        "data": _digest(catalogue | {f"users' {name}": values for name, values in population.items()}),
        "weights": _digest(run.agent.state_dict()),
    }
    everyone = ranks.gather(own)
    for name in own:
        if any(not torch.equal(other[name], everyone[0][name]) for other in everyone):
            raise UserError(
                f"The processes would begin with different {name}: give all of them the same options, data, "
                "checkpoint and version of torch."
            )


def check_weights(run: Run, ranks: Ranks) -> None:
    """Raise UserError if weights differ between ranks: their processors or builds round differently."""
    if ranks.size == 1:
        return
    weights = [rank["weights"] for rank in ranks.gather({"weights": _digest(run.agent.state_dict())})]
    if any(not torch.equal(weights[0], other) for other in weights):
        raise UserError(
            f"The processes' weights have drifted apart by step {run.step:,}: use machines with the same "
            "processors, the same version of torch, and a C compiler on all of them or none."
        )


def _digest(tensors: Mapping[str, Tensor]) -> Tensor:
    """(32,) uint8: sha256 over the tensors' bytes."""
    total = hashlib.sha256()
    for name in sorted(tensors):
        total.update(tensors[name].detach().cpu().contiguous().numpy().data)
    return torch.frombuffer(bytearray(total.digest()), dtype=torch.uint8)
