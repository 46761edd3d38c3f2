"""Checks of a checkpoint: that its parts fit together, with its settings and with its own weights."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeGuard

import torch
from torch import Tensor

from recsys_rl.checkpoint.contents import MOST, check_finite, take_apart
from recsys_rl.checkpoint.sealed import Refused
from recsys_rl.settings.config import Config
from recsys_rl.types import Catalogue, Interface, Population, UserError

if TYPE_CHECKING:
    from recsys_rl.checkpoint import Checkpoint

_NUMBERS = {
    "steps_before": (0, MOST * MOST, "its number of steps before"),
    "heldout_seed": (0, 2**63 - 1, "the seed of its held-out users"),
    "log_end": (1 - 2**63, 2**63 - 1, "the last time of its log"),
}
"""Whole numbers of the facts: the least, the most, and the text of the refusal."""


def check(checkpoint: Checkpoint, networks: bool = True) -> None:
    """Raise Refused for a checkpoint whose parts contradict each other.

    ``networks``: False: whatever its policy is.
    """
    check_finite("agent", checkpoint.agent)
    for name, state in checkpoint.generators.items():
        if state.dtype != torch.uint8 or state.ndim != 1:
            raise Refused(f"holds no generator state in {name!r}")
    _check_info(checkpoint.info)
    _check_world(checkpoint)
    config, interface = checkpoint.config, checkpoint.interface
    if networks:
        _check_networks(config, interface, checkpoint.agent)
    items = sum(interface.action_sizes)
    steps = getattr(config.env_config, "max_episode_steps", interface.session_length)
    if interface.session_length != steps or (config.platform.users and interface.slate_size > items):
        raise Refused(
            f"holds an 'interface' of {interface.session_length} steps of {interface.slate_size} items, and "
            f"its settings say {steps} steps with {items} items"
        )


def _check_networks(config: Config, interface: Interface, agent: Mapping[str, Tensor]) -> None:
    """Raise Refused for weights that are too few, or of networks of an earlier version."""
    _check_sizes(config, interface, agent)
    encoder = config.model_config.encoder
    expects = any(name.startswith("model.next_signals.") for name in agent)
    if encoder == "transformer" and interface.signals and not expects:
        raise Refused(f"holds a {encoder} of an earlier version, which expected no signals", "train again")
    towers, rewards = (f"model.head.{name}" for name in ("votes", "expected.scale"))
    if towers in agent and rewards not in agent:
        raise Refused(
            "holds a two-tower head of an earlier version, which expected no rewards", "train again"
        )
    if encoder == "deep-sets" and interface.history_length and "model.encoder.keep" not in agent:
        raise Refused(f"holds {encoder} of an earlier version, which had no stocks", "train again")


def _check_info(info: Mapping[str, Any]) -> None:
    others = info.get("curves", {})
    every = [info.get("curve", []), *(others.values() if isinstance(others, dict) else [None])]
    if not all(_is_curve(curve) for curve in every):
        raise Refused("holds a learning curve that is not a list of step, mean, low and high")
    for name, (low, high, what) in _NUMBERS.items():
        number = info.get(name, 0)
        if type(number) is not int or not low <= number <= high:
            raise Refused(f"holds {number!r:.40} as {what}")
    if not is_home(info.get("home", {})):
        raise Refused("holds no settings of a platform as its home")
    chance = info.get("chance_at_home", 0.0)
    if type(chance) is not float or not 0 <= chance < 1:
        raise Refused(f"holds {chance!r:.40} as the chance of its policy at home")


def is_home(home: object) -> TypeGuard[dict[str, Any]]:
    """True for the platform behind a log with its settings, and for {}."""
    if not isinstance(home, dict) or not home:
        return isinstance(home, dict)
    kinds = {"env": str, "env_config": dict, **{name: dict for name in ("data_config",) if name in home}}
    return home.keys() == kinds.keys() and all(type(home[name]) is kind for name, kind in kinds.items())


def _is_curve(curve: object) -> bool:
    """True for a list of rows of four numbers; the bounds of one session are NaN."""
    return isinstance(curve, list) and all(
        isinstance(row, list) and len(row) == 4 and all(type(number) in (int, float) for number in row)
        for row in curve
    )


def _check_world(checkpoint: Checkpoint) -> None:
    config, catalogue, population = checkpoint.config, checkpoint.catalogue, checkpoint.population
    own_world = config.platform.users is None
    if checkpoint.world.is_empty != own_world or (own_world and len(population.user_ids)):
        raise Refused(f"does not hold the catalogue and users of --env {config.env}, or holds too much")
    if own_world:
        return
    if checkpoint.interface.action_sizes != (catalogue.num_items,):
        raise Refused("holds an 'interface' of another catalogue")
    check_catalogue(catalogue)
    if config.platform.simulates:
        check_population(population)
    _check_likes(population, catalogue.num_items)
    _check_ranking(population)
    for size in (catalogue.embedding.shape[1], population.taste.shape[1]):
        if size != config.env_config.embedding_dim:
            wanted = config.env_config.embedding_dim
            raise Refused(f"holds embeddings of size {size}, and its settings say --embedding-dim {wanted}")
    _check_interface(checkpoint)


def _check_interface(checkpoint: Checkpoint) -> None:
    """Refuse another interface than the settings say, where the platform can tell it from them."""
    tables = checkpoint.config.platform.tables
    if tables is None:
        return
    try:
        same = tables.interface(checkpoint.config.env_config, checkpoint.catalogue) == checkpoint.interface
    except UserError as error:
        raise Refused(f"holds settings that do not fit its items ({str(error).rstrip('.')})") from error
    if not same:
        raise Refused("holds an 'interface' of other sessions than its settings say")


def _check_sizes(config: Config, interface: Interface, agent: Mapping[str, Tensor]) -> None:
    """Raise Refused for sizes that the file can't hold: to build such a network could take minutes."""
    items = sum(interface.action_sizes)
    features = 0 if config.platform.users else interface.candidate_features
    apart = sum(dict(interface.context)[name] for name in interface.user_columns)
    width = interface.context_size - apart - ((items - 1) * features if features else 0)
    layers = (width, *config.model_config.hidden_dims)
    needed = 2 * sum(one * other for one, other in pairwise(layers))  # of actor and critic
    needed += interface.history_length  # the weights of its places
    if config.model_config.head == "dense":
        needed += layers[-1] * (features or items)  # shared weights score a candidate by its features
    if needed > sum(tensor.numel() for tensor in agent.values()):
        raise Refused(
            f"holds fewer weights than its settings need (hidden_dims {layers[1:]}, history_length "
            f"{interface.history_length})"
        )


def check_catalogue(catalogue: Catalogue) -> None:
    if catalogue.embedding.ndim != 2:
        raise Refused("holds a catalogue whose embedding has a wrong shape")
    rows = catalogue.num_items
    named = take_apart(catalogue)[1]
    gram, share = (named.pop(f"factors.{name}", None) for name in ("gram", "popularity_share"))
    lengths = {len(catalogue.titles), len(catalogue.item_names)}
    if any(tensor.shape[:1] != (rows,) for tensor in named.values()) or not lengths <= {0, rows}:
        raise Refused("holds a catalogue whose fields disagree in their number of items")
    _check_factors(catalogue, gram, share)
    if bool(((catalogue.popularity < 0) | (catalogue.popularity > 1)).any()):
        raise Refused("holds a catalogue whose 'popularity' has values outside 0 .. 1")
    for feature in catalogue.features:
        values, tags = catalogue.attributes.get(feature.name), feature.scale == "tags"
        if values is None or values.shape != ((rows, len(feature.values)) if tags else (rows,)):
            raise Refused(f"holds a catalogue without the attribute {feature.name!r} that its policy sees")
        if feature.scale in ("tags", "partial") and values.dtype != torch.float32:
            raise Refused(f"holds a catalogue whose {feature.name!r} is {values.dtype} and not torch.float32")
        highest = 1 if tags else len(feature.values) - 1
        if feature.values and not bool(((values >= 0) & (values <= highest)).all()):
            raise Refused(f"holds a catalogue whose {feature.name!r} has values outside 0 .. {highest}")


def _check_factors(catalogue: Catalogue, gram: Tensor | None, share: Tensor | None) -> None:
    """Both factors or none, in their shapes; the popularity's share only beside them."""
    rows, size = catalogue.embedding.shape
    if not catalogue.factors:
        return
    norm = catalogue.factors.get("norm")
    if share is not None:
        size -= 1
        if share.ndim or share.dtype != torch.float32 or not 0 < float(share) < 1:
            raise Refused(
                "holds a catalogue whose 'factors.popularity_share' is not a number between 0 and 1"
            )
    if (
        norm is None
        or gram is None
        or norm.shape != (rows,)
        or gram.shape != (size, size)
        or len(catalogue.factors) != 2 + (share is not None)
    ):
        raise Refused("holds a catalogue whose 'factors' have a wrong shape")
    for name, values in (("factors.norm", norm), ("factors.gram", gram)):
        if values.dtype != torch.float32:
            raise Refused(f"holds a catalogue whose {name!r} is {values.dtype} and not torch.float32")
    check_finite("catalogue", {"factors.norm": norm, "factors.gram": gram})


def check_population(population: Population) -> None:
    shape = population.taste.shape  # (U, D)
    if population.profile.shape != shape or len(shape) != 2 or population.user_ids.shape != shape[:1]:
        raise Refused("holds a population whose fields disagree in their number of users")
    if any(values.shape[:1] != shape[:1] for values in population.attributes.values()):
        raise Refused("holds a population whose fields disagree in their number of users")
    if len(population.user_names) not in (0, shape[0]):
        raise Refused("holds a population whose fields disagree in their number of users")
    for name, rows in (("train", population.train), ("heldout", population.heldout)):
        if rows.ndim != 1 or len(rows) == 0:
            raise Refused(f"holds a population whose {name!r} is empty or no list of rows")
        if bool(((rows < 0) | (rows >= shape[0])).any()):
            raise Refused(f"holds a population whose {name!r} has rows that are not users")


def _check_ranking(population: Population) -> None:
    """None, or the scalars of data/world_check.py."""
    names = {"users", "embeddings", "popularity", "error", "share", "best"}
    ranking = population.ranking
    if ranking and (
        ranking.keys() - {"drawn"} != names
        or any(
            tensor.ndim or tensor.dtype != torch.float32 or not bool(tensor.isfinite())
            for tensor in ranking.values()
        )
    ):
        raise Refused("holds a population whose 'ranking' is not that of its embeddings")


def _check_likes(population: Population, num_items: int) -> None:
    """None, or the rows of items of each user (types.Population)."""
    likes, users = population.likes, len(population.user_ids)
    if not likes:
        return
    starts, items = likes.get("starts"), likes.get("items")
    if (
        len(likes) != 2
        or starts is None
        or items is None
        or (starts.dtype, items.dtype) != (torch.int64, torch.int32)
        or starts.shape != (users + 1,)
        or items.ndim != 1
        or int(starts[0]) != 0
        or int(starts[-1]) != len(items)
        or bool((starts.diff() < 0).any())
        or bool(((items < 0) | (items >= num_items)).any())
    ):
        raise Refused("holds a population whose 'likes' are not rows of items of each user")
