"""A policy of a team's own place over other items than those of its training.

Such a policy is its encodings of the columns of items and its network. Laid over a stock, it gives the
catalogue of this stock, and the agent that chooses from it: an item is known by its features. A network with
one logit for each item of its training, the dense head, has none for another item, and never shows it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from recsys_rl.checkpoint import Checkpoint
from recsys_rl.checkpoint.home import config_at_home
from recsys_rl.data.tables.item_encoding import ItemEncoding, StockItem, fitted, items_of
from recsys_rl.data.timeline import ALWAYS, NEVER, Clock, clock_of
from recsys_rl.errors import UserError
from recsys_rl.settings.config import Config
from recsys_rl.types import World

DENSE = ("head.logits.weight", "head.logits.bias")
"""The weights that have one for each item last, in any network with a dense head (models/heads.py)."""


def encoding_of(checkpoint: Checkpoint) -> ItemEncoding:
    """The encodings of the items of a policy. Raises UserError if it has none."""
    encoding = find_encoding(checkpoint)
    if encoding is None:
        config = _own(checkpoint)
        which = "of an earlier version" if config.platform.tables is not None else f"of {config.env}"
        raise UserError(
            f"The policy is {which}, whose items are those of its training for ever: train again on a log of "
            "your own, with these items."
        )
    return encoding


def check_new_items(checkpoint: Checkpoint) -> None:
    """Raise UserError for a policy that can't know items beside those of its training."""
    if checkpoint.config.model_config.head == "dense":
        raise UserError(
            "--items: the dense head of this policy has one logit for each of its own "
            f"{checkpoint.catalogue.num_items:,} items: train with --head two-tower or --head scorer."
        )
    if columns := checkpoint.interface.user_columns:
        raise UserError(
            f"--items: this policy reads {', '.join(columns)} of each user, which tells nothing of new "
            "items: train again with these items."
        )


def item_column(checkpoint: Checkpoint) -> str:
    """The name of the column of items in the log of a policy of a team's own place."""
    config = _own(checkpoint)
    assert config.platform.tables is not None
    return config.platform.tables.columns(config.env_config).get("item", "item")


def _own(checkpoint: Checkpoint) -> Config:
    """The settings of the team's place; of a policy of learned users those of the place behind their log."""
    home = checkpoint.info.get("home")
    return config_at_home(checkpoint.config, home) if home else checkpoint.config


def find_encoding(checkpoint: Checkpoint) -> ItemEncoding | None:
    """The encodings of the items of a policy; None if it can't be laid over other items."""
    config = _own(checkpoint)
    tables = config.platform.tables
    found: ItemEncoding | None = None if tables is None else tables.encoding(config.env_config)
    return found


def over(
    checkpoint: Checkpoint, stock: Sequence[StockItem], learns: bool = False, clock: Clock = ""
) -> Checkpoint:
    """The policy over the items of ``stock``, in their order. The last row of an id is the latest.

    Args:
        learns: a dense head may show an item that it does not know, and learn its logit, which is at first
            the mean of the others; else such items are not available.
        clock: of the moments of the items.

    Raises UserError for a policy without encodings, and for fewer items than it must choose from.
    """
    encoding, before = encoding_of(checkpoint), checkpoint.catalogue
    tables = _own(checkpoint).platform.tables
    assert tables is not None
    row_of = {str(before.id_of(row)): row for row in range(before.num_items)}
    source = torch.tensor([row_of.get(str(item.id), -1) for item in stock], dtype=torch.int64)  # (I,)
    known = source >= 0
    popularity = before.popularity[source.clamp_min(0)] * known
    catalogue = encoding.catalogue(stock, popularity, before.source, clock)
    dense = checkpoint.config.model_config.head == "dense"
    if dense and not learns:
        catalogue = dataclasses.replace(catalogue, available=catalogue.available & known)
    env_config = dataclasses.replace(checkpoint.config.env_config, num_items=len(stock))
    config = dataclasses.replace(checkpoint.config, env_config=env_config)
    interface = tables.interface(_own(checkpoint).env_config, catalogue)  # raises UserError
    agent = dict(checkpoint.agent)
    if dense:
        agent = {
            name: _of_each(name, values, source, before.num_items, learns)
            for name, values in agent.items()
            if not name.startswith("optimizer.")  # its state is of as many weights as before
        }
    world = World(catalogue, checkpoint.population)
    return dataclasses.replace(checkpoint, config=config, interface=interface, world=world, agent=agent)


def encoded_anew(checkpoint: Checkpoint) -> Checkpoint:
    """The place of a policy, without weights, with encodings made of the items that may be shown now."""
    old, items = checkpoint.catalogue, items_of(checkpoint.catalogue)
    tables = checkpoint.config.platform.tables
    assert tables is not None
    live = [item for item in items if item.live]
    encoding, _ = fitted(live, encoding_of(checkpoint).genres_column)
    catalogue = encoding.catalogue(items, old.popularity, old.source, clock_of(old))
    size = catalogue.embedding.shape[1]
    env_config = dataclasses.replace(
        tables.with_encoding(checkpoint.config.env_config, encoding), embedding_dim=size
    )
    nobody = checkpoint.population.profile.new_zeros(0, size)
    return dataclasses.replace(
        checkpoint,
        config=dataclasses.replace(checkpoint.config, env_config=env_config),
        interface=tables.interface(env_config, catalogue),
        world=World(catalogue, dataclasses.replace(checkpoint.population, profile=nobody, taste=nobody)),
        agent={},
    )


def joined(
    checkpoint: Checkpoint, given: Sequence[StockItem], goes_on: bool, clock: Clock = ""
) -> list[StockItem]:
    """The items of a policy with those ``given``, which replace what the policy knew of them.

    ``goes_on``: the others of the policy may still be shown; else not, and on a ``clock`` they never were.
    """
    known = {item.id for item in given}
    old = [item for item in items_of(checkpoint.catalogue) if item.id not in known]
    if not goes_on:
        end = ALWAYS if clock else NEVER
        old = [item._replace(live=False, since=ALWAYS, until=end) for item in old]
    return [*old, *given]


def _of_each(name: str, values: Tensor, source: Tensor, items: int, learns: bool) -> Tensor:
    """The weights (..., I) of a dense head for the items of a stock, which are those of ``source`` (I,).

    An item that the head does not know, -1, has the mean of all ``items`` that it knows if it ``learns``, and
    else the logit -inf. Other weights are returned as they are.
    """
    if not name.endswith(DENSE):
        return values
    own, gates = values[..., :items], values[..., items:]
    if learns:
        unknown = own.mean(-1, keepdim=True)
    else:
        unknown = own.new_full((1,), 0.0 if name.endswith("weight") else -torch.inf)
    return torch.cat([torch.where(source >= 0, own[..., source.clamp_min(0)], unknown), gates], -1)
