"""The checkpoints of a table: groups that can share one table, and the names of their rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from recsys_rl.checkpoint import Checkpoint
from recsys_rl.config import Config, to_dict
from recsys_rl.dials import TrainConfig
from recsys_rl.types import UserError, tensors_of


@dataclass(frozen=True)
class Entry:
    """One checkpoint of a table."""

    path: Path
    checkpoint: Checkpoint
    name: str = ""  # name of its row


def tables(entries: Sequence[Entry]) -> list[list[Entry]]:
    """Group the checkpoints into tables: one table if all have the same world, else one table per seed.

    Runs of different seeds have different worlds, because the seed splits the users. They make one table per
    seed if every seed has checkpoints of the same settings and only the seed differs. Each entry gets the
    name of its row, which is the same on every seed.

    Raises UserError if a file is given twice, and if the worlds differ in more than the seed.
    """
    for place, entry in enumerate(entries):
        if entry.path.resolve() in [other.path.resolve() for other in entries[:place]]:
            raise UserError(f"{entry.path} is given twice: name each checkpoint once.")
    groups: dict[int, list[Entry]] = {}
    for entry in entries:
        groups.setdefault(entry.checkpoint.config.train_config.seed, []).append(entry)
    seeds = [{_without_seed(x.checkpoint.config): x for x in group} for group in groups.values()]
    alike = all(by_settings.keys() == seeds[0].keys() for by_settings in seeds)
    if len(seeds) > 1 and alike and sum(map(len, seeds)) == len(entries):
        for by_settings in seeds:
            _check_one_world(list(by_settings.values()))
        named = {_without_seed(x.checkpoint.config): x.name for x in _named(list(seeds[0].values()))}
        return [
            [dataclasses.replace(by_settings[settings], name=name) for settings, name in named.items()]
            for by_settings in seeds
        ]
    _check_one_world(entries)
    return [_named(entries)]


def row_name(config: Config) -> str:
    """The algorithm, or `ranker` if it was trained with gamma 0, for the next reward alone."""
    return "ranker" if config.agent_config.gamma == 0 else config.algo


def _named(entries: Sequence[Entry]) -> list[Entry]:
    """Entries with names. Equal names get an addition: the file's name, or else the folder's, or the path."""
    names = [row_name(entry.checkpoint.config) for entry in entries]
    found = []
    for entry, name in zip(entries, names, strict=True):
        alike = [other for other, its in zip(entries, names, strict=True) if its == name]
        if len(alike) > 1:
            for label in (lambda x: x.path.stem, lambda x: x.path.parent.name, lambda x: str(x.path)):
                if len({label(x) for x in alike}) == len(alike) and label(entry):
                    name = f"{name} ({label(entry)})"
                    break
        found.append(dataclasses.replace(entry, name=name))
    return found


def _without_seed(config: Config) -> str:
    """The settings as text, without the seed and without folders and intervals."""
    settings: dict[str, Any] = to_dict(dataclasses.replace(config, train_config=TrainConfig()))
    for name in ("data_dir", "cache_dir"):
        settings["data_config"].pop(name, None)
    return repr([settings, config.train_config.total_timesteps, config.train_config.num_processes])


def _check_one_world(entries: Sequence[Entry]) -> None:
    """Raise UserError unless all have the same environment, its settings, catalogue and users."""
    first = entries[0]
    for entry in entries[1:]:
        what = _difference(first.checkpoint, entry.checkpoint)
        if what:
            raise UserError(
                f"{first.path} and {entry.path} can't share a table, as {what}: evaluate them one by one."
            )


def _difference(one: Checkpoint, two: Checkpoint) -> str:
    """The first difference between their worlds, as a clause; "" if there is none."""
    if one.config.env != two.config.env:
        return f"one was trained on {one.config.env} and the other on {two.config.env}"
    if one.world.is_empty:
        return ""  # here the settings only define the observations of a policy
    for name, value in vars(one.config.env_config).items():
        other = getattr(two.config.env_config, name)
        if value != other:
            return f"--{name.replace('_', '-')} is {value} in one and {other} in the other"
    if one.catalogue.source != two.catalogue.source or not _same(one.catalogue, two.catalogue):
        seeds = [x.config.train_config.seed for x in (one, two)]
        cause = f" (their seeds are {seeds[0]} and {seeds[1]})" if seeds[0] != seeds[1] else ""
        return f"their catalogues differ{cause}"
    return "" if _same(one.population, two.population) else "their users differ"


def _same(one: Any, two: Any) -> bool:
    """True if all fields are equal. Item embeddings in a separate file are compared by its hash."""
    ours, theirs = tensors_of(one), tensors_of(two)
    if ours.keys() != theirs.keys():
        return False
    for name, a in ours.items():
        b = theirs[name]
        if name == "embedding" and one.table_sha256 and one.table_sha256 == two.table_sha256:
            if a.shape != b.shape:
                return False
        elif not torch.equal(a, b) and not torch.equal(
            a.nan_to_num(-1), b.nan_to_num(-1)
        ):  # NaN means unknown
            return False
    texts = {name: value for name, value in vars(one).items() if not isinstance(value, Tensor | Mapping)}
    return all(value == getattr(two, name) for name, value in texts.items() if name != "table_file")
