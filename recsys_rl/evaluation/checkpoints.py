"""The checkpoints of a table: groups that can share one table, the names of their rows, and their users."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from recsys_rl.checkpoint import Checkpoint, previous
from recsys_rl.data.event_file import read_events
from recsys_rl.evaluation.options import PeopleFile
from recsys_rl.make import with_new_users
from recsys_rl.settings.config import Config, to_dict, with_whole_paths
from recsys_rl.types import UserError, tensors_of

OF_A_RUN = ("total_timesteps", "num_processes", "weights")
"""Settings of training that shape the policy."""


@dataclass(frozen=True)
class Entry:
    """One checkpoint of a table."""

    path: Path
    checkpoint: Checkpoint
    name: str = ""  # name of its row
    trained: Checkpoint | None = None  # as it was saved, if it is played in another world

    @property
    def config(self) -> Config:
        """The settings of the training."""
        return (self.trained or self.checkpoint).config


def without_previous(paths: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """The files but those that a training keeps of its checkpoint before the last, and these.

    Such a file is left out only beside its successor: a pattern of names finds both.
    """
    before = {previous(path) for path in paths}
    return [path for path in paths if path not in before], [path for path in paths if path in before]


def tables(entries: Sequence[Entry]) -> list[list[Entry]]:
    """Group the checkpoints into tables: one table if all have the same world, else one table per seed.

    Runs of different seeds have different worlds, because the seed splits the users. They make one table per
    seed if every seed has checkpoints of the same settings and only the seed differs. Each entry gets the
    name of its row, which is the same on every seed.

    Raises UserError if a file is given twice, if the worlds differ in more than the seed, and if a seed has
    two runs of the same settings, or lacks settings that another seed has.
    """
    for index, entry in enumerate(entries):
        if entry.path.resolve() in [other.path.resolve() for other in entries[:index]]:
            raise UserError(f"{entry.path} is given twice: name each checkpoint once.")
    groups: dict[int, list[Entry]] = {}
    for entry in entries:
        groups.setdefault(entry.checkpoint.config.train_config.seed, []).append(entry)
    cause = _no_mean(groups)
    if len(groups) > 1 and not cause:
        for group in groups.values():
            _check_one_world(group)
        first, *others = [{_key(entry): entry for entry in group} for group in groups.values()]
        named = {_key(entry): entry.name for entry in _named(list(first.values()))}
        return [
            [dataclasses.replace(by_key[key], name=name) for key, name in named.items()]
            for by_key in (first, *others)
        ]
    _check_one_world(entries, cause)
    return [_named(entries)]


def row_name(config: Config) -> str:
    """The algorithm, or `ranker` if it was trained with gamma 0, for the next reward alone."""
    return "ranker" if getattr(config.agent_config, "gamma", 1.0) == 0 else config.algo


def _named(entries: Sequence[Entry]) -> list[Entry]:
    """Entries with names. Equal names get an addition: the file's name, or else the folder's, or the path."""
    names = [row_name(entry.checkpoint.config) for entry in entries]
    renamed = []
    for entry, name in zip(entries, names, strict=True):
        alike = [other for other, its in zip(entries, names, strict=True) if its == name]
        if len(alike) > 1:
            for label in (
                lambda entry: entry.path.stem,
                lambda entry: entry.path.parent.name,
                lambda entry: str(entry.path),
            ):
                if len({label(other) for other in alike}) == len(alike) and label(entry):
                    name = f"{name} ({label(entry)})"
                    break
        renamed.append(dataclasses.replace(entry, name=name))
    return renamed


def _settings(config: Config) -> dict[str, Any]:
    """The settings by section.field, without the seed and without folders and intervals."""
    sections: dict[str, Any] = to_dict(with_whole_paths(config))
    for name in ("data_dir", "cache_dir"):
        sections["data_config"].pop(name, None)
    of_training = sections.pop("train_config")
    sections["train_config"] = {name: of_training[name] for name in OF_A_RUN}
    # Only whether there was one: each seed has its own.
    sections["train_config"]["init_from"] = "a checkpoint" if of_training["init_from"] else "none"
    return {
        f"{section}.{name}": value
        for section, fields in sections.items()
        for name, value in (fields if isinstance(fields, dict) else {section: fields}).items()
    }


def _key(entry: Entry) -> tuple[Any, ...]:
    """The settings, to be looked up in a dict; 1 and 1.0 are the same there, as they are in ``_nearest``."""
    settings = _settings(entry.config)
    return tuple(
        (name, tuple(value) if isinstance(value, list) else value) for name, value in settings.items()
    )


def _no_mean(groups: Mapping[int, Sequence[Entry]]) -> str:
    """The reason why these checkpoints, by seed, give no mean over seeds, as a sentence; "" if they do."""
    for seed, group in groups.items():
        first: dict[tuple[Any, ...], Entry] = {}
        for entry in group:
            other = first.setdefault(_key(entry), entry)
            if other is not entry:
                return (
                    f"{other.path} and {entry.path} are two runs of seed {seed} with the same settings, "
                    "and a mean over seeds has one run of each seed: give one of them, or the checkpoints "
                    f"of seed {seed} alone."
                )
    for seed, group in groups.items():
        for theirs, others in groups.items():
            keys = {_key(entry) for entry in others}
            for entry in group:
                if _key(entry) not in keys:
                    return (
                        f"{entry.path} is of seed {seed}, and no checkpoint of seed {theirs} has its "
                        f"settings ({_nearest(entry, others)}): a mean over seeds needs the same settings "
                        "on each seed, so leave it out, or evaluate each seed alone."
                    )
    return ""


def _nearest(entry: Entry, others: Sequence[Entry]) -> str:
    """A setting in which the most similar of ``others`` differs from ``entry``, as a clause."""
    mine = _settings(entry.config)

    def differing(other: Entry) -> list[tuple[str, Any]]:
        theirs = _settings(other.config)
        return [(name, theirs.get(name)) for name in {**mine, **theirs} if mine.get(name) != theirs.get(name)]

    other = min(others, key=lambda candidate: len(differing(candidate)))
    name, value = differing(other)[0]
    option = name.rpartition(".")[2].replace("_", "-")
    return f"--{option} is {value} in {other.path}, not {mine.get(name)}"


def _check_one_world(entries: Sequence[Entry], no_mean: str = "") -> None:
    """Raise UserError unless all have the same environment, its settings, catalogue and users.

    ``no_mean`` is the error for worlds that differ because of their seed.
    """
    first = entries[0]
    for entry in entries[1:]:
        one, two = first.checkpoint, entry.checkpoint
        what = _other_settings(one, two)
        if not what and not one.world.is_empty:
            what = _other_world(one, two)
            if what and one.config.train_config.seed != two.config.train_config.seed:
                raise UserError(no_mean)
        if what:
            raise UserError(
                f"{first.path} and {entry.path} can't share a table, as {what}: evaluate them one by one."
            )


def _other_settings(one: Checkpoint, two: Checkpoint) -> str:
    """The first difference between the settings of their worlds, as a clause; "" if there is none."""
    if one.config.env != two.config.env:
        return f"one was trained on {one.config.env} and the other on {two.config.env}"
    if one.world.is_empty:
        return ""  # here the settings only define the observations of a policy
    for name, value in vars(one.config.env_config).items():
        other = getattr(two.config.env_config, name)
        if value != other:
            return f"--{name.replace('_', '-')} is {value} in one and {other} in the other"
    return ""


def _other_world(one: Checkpoint, two: Checkpoint) -> str:
    """The first difference between their catalogues and users, as a clause; "" if there is none."""
    if one.catalogue.source != two.catalogue.source or not _same(one.catalogue, two.catalogue):
        return "their catalogues differ"
    return "" if _same(one.population, two.population) else "their users differ"


def _same(one: Any, two: Any) -> bool:
    """True if all fields are equal. Item embeddings in a separate file are compared by its hash.

    Likes of users and their ranking are not compared: checkpoints of earlier versions have none.
    """
    ours, theirs = (
        {
            name: tensor
            for name, tensor in tensors_of(noun).items()
            if not name.startswith(("likes.", "ranking."))
        }
        for noun in (one, two)
    )
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


def with_people(
    groups: Sequence[Sequence[Entry]], options: PeopleFile, path: str | Path
) -> list[list[Entry]]:
    """The checkpoints with the users of the file ``path`` as held-out users.

    A line about the file goes to standard error. Raises UserError if the file can't be read or no user of it
    can be folded in.
    """
    trained = groups[0][0].checkpoint.config.data_config
    log, people = read_events(path, options, trained), []
    for group in groups:
        first = group[0].checkpoint
        world = with_new_users(first.config, first.world, log, options.like_threshold)
        people.append(
            [
                dataclasses.replace(entry, checkpoint=dataclasses.replace(entry.checkpoint, world=world))
                for entry in group
            ]
        )
    print(f"users: {about_people(people)}", file=sys.stderr)
    return people


def about_people(groups: Sequence[Sequence[Entry]]) -> str:
    """The text about the users of each group; each seed has its own items, so the users may differ."""
    sources = (group[0].checkpoint.population.source for group in groups)
    return "; on another seed: ".join(dict.fromkeys(sources))
