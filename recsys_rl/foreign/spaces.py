"""Spaces of Gymnasium as tensors: observations are rows of numbers, actions are choices from a list."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from gymnasium.spaces.utils import flatdim

from recsys_rl.errors import FieldError
from recsys_rl.settings.fields import did_you_mean, shown
from recsys_rl.types import CANDIDATES, UserError

MASK = "action_mask"
AUTO, NONE = "auto", "none"
"""Values of the setting ``candidate_features`` beside the name of a part."""
CLOCK = 100
"""Steps that the clock of the context counts as 1."""
Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]
Space = spaces.Space[Any]


@dataclass(frozen=True)
class Layout:
    """The observations and actions of an environment as tensors.

    ``key`` names the part of a Dict observation whose C rows are the features of the C alternatives. An
    action is then one of them, or a slate of ``slate_size`` different ones. Such an environment is a
    recommender, whose sessions end by a budget that the observation often lacks. So the steps so far are the
    last number of the context.
    """

    env_id: str
    observation: Space  # without the mask
    action: Space
    action_sizes: tuple[int, ...]  # alternatives of each choice
    first_action: npt.NDArray[np.int64]  # (K,) or (1,): the number of the first alternative
    masked: bool  # True if the observation holds a mask
    slate_size: int = 1
    key: str | None = None
    also: tuple[str, ...] = field(default=())  # parts that could be ``key``, if it is None

    @property
    def context(self) -> tuple[tuple[str, int], ...]:
        """The pieces of ``Obs.context`` and their sizes, in the order of ``flatten``."""
        if self.key is None:
            return (("observation", flatdim(self.observation)),)
        parts = {name: flatdim(subspace) for name, subspace in self._parts.items()}
        names = list(parts)
        at = names.index(self.key)
        pieces = {
            "observation": sum(parts[name] for name in names[:at]),
            CANDIDATES: parts[self.key],
            "observation_after": sum(parts[name] for name in names[at + 1 :]),
            "clock": 1,
        }
        return tuple((name, size) for name, size in pieces.items() if size)

    @property
    def num_features(self) -> int:
        """Features of each candidate; 0 without candidates."""
        return 0 if self.key is None else flatdim(self._parts[self.key]) // self.action_sizes[0]

    @property
    def _parts(self) -> Mapping[str, Space]:
        """The parts in the order in which ``flatten`` joins them."""
        assert isinstance(self.observation, spaces.Dict)
        return dict(_inside(self.observation))

    def flatten(self, batch: Any, steps: npt.NDArray[np.int64]) -> Floats:
        """The observations of n environments, as Gymnasium batches them, as one array (n, F).

        ``steps`` (n,) were taken so far. A single observation, which has no first dimension, is one row.
        """
        if self.masked:
            batch = {name: values for name, values in batch.items() if name != MASK}
        flat = _flatten(self.observation, batch, len(steps))
        if self.key is None:
            return flat
        return np.concatenate([flat, (steps[:, None] / CLOCK).astype(np.float32)], 1)

    def mask_row(self, source: Mapping[str, Any]) -> Bools:
        """The mask (A,) in an observation or info; without one every action is allowed."""
        mask = np.asarray(source.get(MASK, np.ones(self.action_sizes)), dtype=np.bool_)
        if mask.shape != self.action_sizes:
            raise UserError(
                f"{self.env_id} has {self.action_sizes[0]} actions but an action_mask of shape {mask.shape}: "
                "correct the environment, so that its mask has one entry for each action."
            )
        return mask

    def describe(self) -> str:
        """One line about the candidates; "" if the observation has no parts that could hold them."""
        if self.key is not None:
            what = f"a slate of {self.slate_size} of the" if self.slate_size > 1 else "one of the"
            return (
                f"{self.env_id}: an action is {what} {self.action_sizes[0]} candidates, whose "
                f"{self.num_features} features stand in the part {self.key!r} of the observation: the same "
                f"weights score each (--candidate-features {NONE} gives each place of the list its own)"
            )
        if not isinstance(self.observation, spaces.Dict):
            return ""
        if self.also:
            return (
                f"{self.env_id}: each action has its own weights; --candidate-features "
                f"{' or '.join(self.also)} scores the candidates of such a part by shared weights"
            )
        return (
            f"{self.env_id}: no part of the observation has one row of features for each action, so each "
            "action has its own weights"
        )


def layout_of(env_id: str, observation: Space, action: Space, candidate_features: str = AUTO) -> Layout:
    """The layout of an environment with these spaces.

    ``candidate_features``: the part of the observation with the features of the alternatives; "auto" takes
    the only one that fits, and "none" none. Raises UserError for unsupported spaces, and for a part that is
    no list of candidates.
    """
    sizes, first = _choices(env_id, action)
    inner = _without_mask(env_id, observation)
    fitting = _candidate_lists(inner, sizes)
    if candidate_features in (AUTO, NONE):
        key = fitting[0] if len(fitting) == 1 and candidate_features == AUTO else None
    else:
        key = candidate_features
        if key not in fitting:
            raise FieldError("env_config.candidate_features", _misfit(env_id, key, inner, fitting, sizes))
    slate_size = 1 if key is None else len(sizes)
    also = tuple(fitting) if key is None else ()
    sizes = sizes if key is None else sizes[:1]
    return Layout(env_id, inner, action, sizes, first, inner is not observation, slate_size, key, also)


def _choices(env_id: str, space: Space) -> tuple[tuple[int, ...], npt.NDArray[np.int64]]:
    """Number of alternatives in each position, and the first action of each."""
    if isinstance(space, spaces.Discrete):
        return (int(space.n),), np.array([space.start])
    if isinstance(space, spaces.MultiDiscrete):
        return tuple(space.nvec.flatten().tolist()), space.start.flatten().astype(np.int64)
    raise UserError(
        f"{env_id} has the action space {space}: choose an environment with Discrete or MultiDiscrete "
        "actions."
    )


def _without_mask(env_id: str, space: Space) -> Space:
    """The space without its action_mask, if it has one."""
    if not _can_flatten(space):
        raise UserError(
            f"{env_id} has the observation space {space}: choose an environment with Box, Discrete, "
            "MultiDiscrete or MultiBinary observations, or a Dict or Tuple of these."
        )
    if isinstance(space, spaces.Dict) and MASK in space.spaces:
        return spaces.Dict({name: subspace for name, subspace in space.spaces.items() if name != MASK})
    return space


def _can_flatten(space: Space) -> bool:
    if isinstance(space, spaces.Dict):
        return all(_can_flatten(subspace) for subspace in space.spaces.values())
    if isinstance(space, spaces.Tuple):
        return all(_can_flatten(subspace) for subspace in space.spaces)
    return isinstance(space, spaces.Box | spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary)


def _candidate_lists(space: Space, sizes: Sequence[int]) -> list[str]:
    """The parts of a Dict with one row of features for each of the C alternatives of every choice.

    Such a part is a Box (C, features), or a Dict or Tuple of C equal Boxes (features,), as RecSim has it.
    """
    if not isinstance(space, spaces.Dict) or len(set(sizes)) != 1 or len(sizes) > sizes[0]:
        return []
    return [name for name, subspace in space.spaces.items() if _rows(subspace) == sizes[0]]


def _rows(subspace: Space) -> int | None:
    """Number of rows of a list of candidates; None for another space."""
    if isinstance(subspace, spaces.Box):
        return subspace.shape[0] if len(subspace.shape) == 2 and subspace.shape[1] else None
    if not isinstance(subspace, spaces.Dict | spaces.Tuple):
        return None
    rows = [space for _, space in _inside(subspace)]
    shapes = {space.shape for space in rows if isinstance(space, spaces.Box)}
    same = len(shapes) == 1 and all(isinstance(space, spaces.Box) for space in rows)
    return len(rows) if same and len(next(iter(shapes)) or ()) == 1 and flatdim(subspace) else None


def _misfit(env_id: str, key: str, space: Space, fitting: Sequence[str], sizes: Sequence[int]) -> str:
    names = list(space.spaces) if isinstance(space, spaces.Dict) else []
    fits = f"choose from {', '.join([*fitting, NONE])}"
    if key not in names:
        near = did_you_mean(key, names)
        return f"is {shown(key)}, but the observation of {env_id} has no part of that name{near}: {fits}."
    each = sizes[0] if len(set(sizes)) == 1 else "the same number of"
    return (
        f"is {shown(key)}, but this part of the observation of {env_id} has not one row of features for each "
        f"of {each} actions: {fits}."
    )


def _inside(space: Any) -> list[tuple[Any, Space]]:
    """The parts by their keys, in order; keys that are all numbers, as RecSim's, in the order of numbers.

    Gymnasium orders them as text: 0, 1, 10, 2.
    """
    if isinstance(space, spaces.Tuple):
        return list(enumerate(space.spaces))
    parts = list(space.spaces.items())
    if all(isinstance(name, str) and name.isdecimal() for name, _ in parts):
        parts.sort(key=lambda entry: int(entry[0]))
    return parts


def _flatten(space: Space, batch: Any, rows: int) -> Floats:
    """(rows, F) as ``gymnasium.spaces.utils.flatten`` does for one observation, up to ``_inside``'s order."""
    if isinstance(space, spaces.Dict | spaces.Tuple):
        parts = [_flatten(subspace, batch[name], rows) for name, subspace in _inside(space)]
        return np.concatenate(parts, 1) if parts else np.zeros((rows, 0), np.float32)
    if isinstance(space, spaces.Discrete):
        return _one_hot(np.asarray(batch).reshape(rows, 1) - space.start, (int(space.n),))
    if isinstance(space, spaces.MultiDiscrete):
        start, sizes = space.start.flatten(), space.nvec.flatten().tolist()
        return _one_hot(np.asarray(batch).reshape(rows, len(sizes)) - start, sizes)
    return np.array(batch, np.float32).reshape(rows, flatdim(space))  # a copy


def _one_hot(numbers: npt.NDArray[Any], sizes: Sequence[int]) -> Floats:
    """(rows, sum of sizes) with a 1 at each of the ``numbers`` (rows, K)."""
    encoded = np.zeros((len(numbers), sum(sizes)), np.float32)
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    np.put_along_axis(encoded, (numbers + starts).astype(np.int64), 1.0, 1)
    return encoded
