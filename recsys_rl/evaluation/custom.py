"""A policy of the user's own in the table: ``evaluate --policy module:NAME``.

The module is imported, so the name must be typed by the person who runs the command. It is never read from a
file.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from gymnasium.spaces.utils import flatdim, unflatten
from torch import Tensor

from recsys_rl.env.rec_env import RecEnv
from recsys_rl.errors import UserError
from recsys_rl.foreign.ids import as_arrays, without_repeats
from recsys_rl.protocols import Env, Policy
from recsys_rl.types import Action, Obs
from recsys_rl.utils.find import find, reason


def named(policies: object) -> dict[str, Any]:
    """One policy or several, by the names of their rows.

    A dict names them itself. A text "module:NAME" is a row's name, and its module is imported. Another object
    has the name of its class or function, with a number if an earlier one has that name. Raises UserError.
    """
    if isinstance(policies, Mapping):
        return dict(policies)
    by_name: dict[str, Any] = {}
    for policy in policies if isinstance(policies, list | tuple) else [policies]:
        if isinstance(policy, str):
            by_name[policy] = find(policy, "--policy", typed=True)
            continue
        name = getattr(policy, "__name__", type(policy).__name__)
        alike = sum(other == name or other.startswith(f"{name} (") for other in by_name)
        by_name[f"{name} ({alike + 1})" if alike else name] = policy
    return by_name


def players(spec: str, candidate: Any, env: Env, arguments: Sequence[Any]) -> dict[str, tuple[Policy, bool]]:
    """The rows of a policy for ``env``: by name, an agent, and True if it plays greedily.

    ``candidate`` is an object with ``act``, a Stable-Baselines3 model, or a callable that makes one of these.
    The callable gets as many of ``arguments`` as it takes: the catalogue, the training users (Trainees), and
    the number of environment steps of the table's agent. A model has two rows, sampled and greedy, as our
    agents have. Raises UserError if ``candidate`` is not one of these.
    """
    made = candidate
    if inspect.isclass(candidate) or not (hasattr(candidate, "act") or hasattr(candidate, "predict")):
        if not callable(candidate):
            raise UserError(
                f"--policy {spec} is of type {type(candidate).__name__}: it must have act(obs, greedy) or "
                "predict, or be a callable that makes such an object."
            )
        try:
            made = candidate(*arguments[: _num_arguments(candidate)])
        except UserError:
            raise
        except Exception as error:
            raise UserError(f"--policy {spec} can't be made ({reason(error)}).") from error
    if callable(getattr(made, "act", None)):
        return {spec: (Checked(spec, made, env.interface.place_sizes), False)}
    if callable(getattr(made, "predict", None)) and hasattr(made, "observation_space"):
        model = Checked(spec, Model(spec, made, env), env.interface.place_sizes)
        return {spec: (model, False), f"{spec}-greedy": (model, True)}
    raise UserError(
        f"--policy {spec} made something of type {type(made).__name__}: it must have act(obs, greedy), or be "
        "a model of Stable-Baselines3."
    )


class Checked:
    """Calls a policy, and turns its mistakes into a UserError of one sentence."""

    def __init__(self, spec: str, policy: Any, place_sizes: tuple[int, ...]) -> None:
        self.spec, self.policy = spec, policy
        self.sizes = torch.tensor(place_sizes)  # (K,)

    def act(self, obs: Obs, greedy: bool = False) -> Action:
        copied = obs.map(torch.clone)  # a copy, as the policy may write to its observation
        try:
            action = self.policy.act(copied, greedy)
        except UserError:
            raise
        except Exception as error:
            raise UserError(f"--policy {self.spec} failed in act ({reason(error)}).") from error
        items = getattr(action, "items", None)
        shape = (obs.num_rows, len(self.sizes))
        if not isinstance(items, Tensor) or items.shape != shape or items.is_floating_point():
            was = (
                f"{items.dtype} of shape {tuple(items.shape)}"
                if isinstance(items, Tensor)
                else f"a value of type {type(action).__name__}"
            )
            raise UserError(
                f"--policy {self.spec}: act returned {was}: it must return an Action with whole numbers of "
                f"shape {shape} as items."
            )
        items = items.to(obs.context.device, torch.int64)
        least = -1 if len(self.sizes) > 1 else 0  # -1 leaves a place of a slate empty
        bad = (items < least) | (items >= self.sizes.to(items.device))  # (N, K)
        if bool(bad.any()):
            row, column = bad.nonzero()[0].tolist()
            raise UserError(
                f"--policy {self.spec}: act chose item {int(items[row, column])}: items must be 0 to "
                f"{int(self.sizes[column]) - 1}."
            )
        return Action(items, obs.context.new_zeros(obs.num_rows))


class Model:
    """A model of Stable-Baselines3 (2.x) with observations as in our Gymnasium environments."""

    def __init__(self, spec: str, model: Any, env: Env) -> None:
        self.spec, self.model, self.env = spec, model, env
        self.of_episodes = not isinstance(env, RecEnv)

    def act(self, obs: Obs, greedy: bool = False) -> Action:
        chosen, _ = self.model.predict(self._arrays(obs.map(Tensor.cpu)), deterministic=greedy)
        items = torch.as_tensor(np.asarray(chosen)).long().reshape(obs.num_rows, -1)  # (N, K)
        if not self.of_episodes:  # a place that repeats an earlier one stays empty, as in training
            items = without_repeats(items)
        return Action(items, torch.zeros(obs.num_rows))

    def _arrays(self, obs: Obs) -> Any:
        """The parts of the observation in the model's space. Raises UserError if one is missing."""
        space = self.model.observation_space
        if self.of_episodes:
            size = self.env.interface.context_size
            if isinstance(space, (spaces.Box, spaces.Discrete)) and flatdim(space) == size:
                return np.stack([unflatten(space, row) for row in obs.context.numpy()])
        else:
            arrays = as_arrays(obs, self.env.interface)
            if isinstance(space, spaces.Dict) and isinstance(arrays, dict):
                parts = {name: arrays[name] for name in space if name in arrays}
                if {name: array.shape[1:] for name, array in parts.items()} == {
                    n: array.shape for n, array in space.items()
                }:
                    return parts
            elif not isinstance(arrays, dict) and arrays.shape[1:] == space.shape:
                return arrays
        raise UserError(
            f"--policy {self.spec} was trained with other observations than those of this environment: give "
            "a model that was trained in this environment, with sessions of the same length."
        )


def _num_arguments(maker: Any) -> int:
    """The number of arguments that ``maker`` needs."""
    try:
        parameters = inspect.signature(maker).parameters.values()
    except (TypeError, ValueError):  # for some built-in types
        return 0
    return sum(
        p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters
    )
