"""A run that begins with the weights of another one (--init-from)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from recsys_rl.checkpoint import Checkpoint, restoring
from recsys_rl.data.catalogue_hash import catalogue_hash
from recsys_rl.data.new_users import shared_users
from recsys_rl.models.drawn_policy import BESIDE, actor_and_critic, drawn_policy
from recsys_rl.models.item_columns import item_features
from recsys_rl.settings.config import Config, to_dict
from recsys_rl.types import UserError, World


class Unfit(UserError):
    """The weights of --init-from fit no network of this run. It is raised before anything is learned."""


# Settings that give the network's weights their shapes.
SIZES = (
    ("model_config", "encoder"),
    ("model_config", "head"),
    ("model_config", "hidden_dims"),
)

OTHER_NETWORK = "its network has other weights"


def check_items(config: Config, world: World, warm: Checkpoint) -> tuple[Checkpoint, str]:
    """Raise Unfit if the items, or the encodings of a team's own place, are others than of the run ``warm``.

    Returns that run, laid over the items of this one where it is of the same place, and a note about its
    weights and its users.
    """
    path, tables = config.train_config.init_from, config.platform.tables
    if world.catalogue.own:
        from recsys_rl.checkpoint.stock import find_encoding, over  # polars
        from recsys_rl.data.tables.item_encoding import items_of

        if find_encoding(warm) is not None:
            warm = over(warm, items_of(world.catalogue), learns=True)
        known, seen = item_features(warm.catalogue), item_features(world.catalogue)
        same = known.shape == seen.shape and torch.equal(known, seen)
    else:
        same = _items(world) == _items(warm.world)
    if tables is not None and warm.config.env == config.env:
        if not same or tables.pieces(config.env_config) != tables.pieces(warm.config.env_config):
            raise Unfit(
                f"--init-from {path} reads items and contexts as its log had them, and this run as another "
                f"one has them: give --checkpoint {path} too, which brings its items and encodings."
            )
    elif not same:
        raise Unfit(
            f"--init-from {path} is of other items than this run, and its weights can't read these: give a "
            "checkpoint of the same data and seed, or leave --init-from out."
        )
    return warm, f"weights of {path}, step {warm.step:,}" + _about_users(world, warm.world)


def _items(world: World) -> tuple[Any, ...]:
    return catalogue_hash(world.catalogue), world.catalogue.features


def warm_start(config: Config, world: World, agent: Any, warm: Checkpoint, device: torch.device) -> str:
    """Give the agent the weights of another run; its optimiser and its count of updates begin anew.

    Returns the end of the note about them. Raises Unfit if the weights do not fit the network.
    """
    own, note = agent.state_dict(), ""
    weights = {name: tensor for name, tensor in warm.agent.items() if name.startswith("model.")}
    if not any(name.startswith(f"model.{BESIDE}") for name in own):
        weights = _of_model(actor_and_critic(_bare(weights)))
    temperature = getattr(warm.config.agent_config, "temperature", None)
    if temperature is not None and not hasattr(config.agent_config, "temperature"):
        weights = _of_model(drawn_policy(_bare(weights), temperature))
        note = f"; it begins with the drawn policy of {warm.config.algo}, softmax(Q / {temperature:g})"
    cause, path = _misfit(config, warm, own, weights), config.train_config.init_from
    if cause == OTHER_NETWORK and warm.config.algo != config.algo:
        raise Unfit(
            f"--init-from {path} is of --algo {warm.config.algo}, whose network {config.algo} can't go on "
            f"with: give --algo {warm.config.algo}, or leave --init-from out."
        )
    if cause:
        raise Unfit(
            f"--init-from {path} does not fit this run: {cause}; give the same --env, --encoder, --head, "
            "--hidden-dims and --max-episode-steps as that run."
        )
    with restoring():
        agent.load_state_dict({name: tensor.to(device) for name, tensor in {**own, **weights}.items()})
    return note


def _misfit(
    config: Config, warm: Checkpoint, own: Mapping[str, Tensor], weights: Mapping[str, Tensor]
) -> str:
    """Why ``weights`` of the run ``warm`` can't replace those of the state ``own``; "" if they can."""
    names = {name for name in own if name.startswith("model.")}
    differ = sorted(names ^ weights.keys())
    differ += [name for name in sorted(names & weights.keys()) if own[name].shape != weights[name].shape]
    if not differ:
        return ""
    if warm.config.env != config.env:
        return f"it is of --env {warm.config.env}, and this one of {config.env}"
    other = _other_size(warm.config, config)
    if other or names == weights.keys():
        return other or f"its {differ[0]} has another shape"
    return OTHER_NETWORK


def _other_size(source: Config, now: Config) -> str:
    """The first of SIZES in which two configs differ, as part of a sentence; "" if none does."""
    old, new = to_dict(source), to_dict(now)
    for section, name in SIZES:
        one, other = (
            str(settings[section].get(name)).strip("[]").replace(",", "") for settings in (old, new)
        )
        if one != other:
            return f"it has --{name.replace('_', '-')} {one}, and this run has {other}"
    return ""


def _about_users(world: World, source: World) -> str:
    """A note if training users of another run on the same items are held out in this one."""
    users, others = world.population, source.population
    both = shared_users(others, others.train, users, users.heldout)
    if not both:
        return ""
    return (
        f"; {both} of the {len(users.heldout)} held-out users are training users of that run, so tables of "
        "this run will flatter it: with the same --heldout-fraction, users keep their side"
    )


def _bare(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """An agent's weights of its network, by their names in the network."""
    return {name.removeprefix("model."): tensor for name, tensor in weights.items()}


def _of_model(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of ``_bare``."""
    return {f"model.{name}": tensor for name, tensor in weights.items()}
