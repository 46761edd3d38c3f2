"""The parts of a checkpoint as texts and tensors, and made again from those of a file.

A right hash proves that the file is undamaged, not that its content is valid: values of wrong types are
refused here, and checks.py has the checks of what they say.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from recsys_rl.checkpoint.sealed import Refused
from recsys_rl.data.item_table import open_table, table_sha256
from recsys_rl.settings.fields import build
from recsys_rl.settings.shared import ModelConfig
from recsys_rl.types import (
    Catalogue,
    Interface,
    ItemFeature,
    Population,
    Scale,
    UserError,
    genres_and_year,
    is_name,
    tensors_of,
)

FIRST_STAGE = ("candidates", "explore_rate", "index")
"""The settings of networks that tell which items a policy could show."""
MOST = 10**9  # items, and numbers of any size or length
# The types of the fields of Catalogue and Population in types.py; all other tensors are float32.
_DTYPES = dict.fromkeys(("item_ids", "user_ids", "train", "heldout"), torch.int64) | {"available": torch.bool}

T_Noun = TypeVar("T_Noun", Catalogue, Population)


def take_apart(noun: Catalogue | Population) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The strings and tuples of strings of ``noun``, and its tensors."""
    tensors = tensors_of(noun)
    if isinstance(noun, Catalogue) and noun.table_file:  # the table holds the embedding and may be huge
        tensors.pop("embedding")
    texts = {name: value for name, value in vars(noun).items() if not isinstance(value, Tensor | Mapping)}
    if isinstance(noun, Catalogue):
        texts["features"] = [dataclasses.asdict(feature) for feature in noun.features]
    return texts, tensors


def without_networks(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as in a file, without those of the training and of the networks but for the first stage.

    The others are default ones, so that no network can be built from them. Raises UserError.
    """
    of_network, of_agent = (
        section if isinstance(section, Mapping) else {}
        for section in (settings.get("model_config"), settings.get("agent_config"))
    )
    first_stage = {name: of_network[name] for name in FIRST_STAGE if name in of_network}
    discount = {name: of_agent[name] for name in ("gamma",) if name in of_agent}
    kept = {name: value for name, value in settings.items() if name != "train_config"}
    return {**kept, "model_config": build(ModelConfig, first_stage), "agent_config": discount}


def interface_of(fields: Mapping[str, Any]) -> Interface:
    """The interface of JSON's values, each of the declared kind and range."""
    try:
        interface = Interface(
            **{**fields, "context": tuple((name, size) for name, size in fields["context"])}
        )
        interface = dataclasses.replace(
            interface,
            action_sizes=tuple(interface.action_sizes),
            signals=tuple(interface.signals),
            patterns=tuple(tuple(pattern) for pattern in interface.patterns),
        )
        counts = (
            interface.slate_size,
            interface.visits,
            *interface.action_sizes,
            *(size for _, size in interface.context),
        )
        lengths = (interface.history_length, interface.session_length)
        columns = interface.user_columns
        pieces = (columns.get(name, (name,)) for name, _ in interface.context)
        names = (*interface.signals, *(name for parts in pieces for name in parts))
        sound = (
            all(type(count) is int and 0 < count <= MOST for count in counts)
            and all(type(length) is int and 0 <= length <= MOST for length in lengths)
            and all(type(name) is str and is_name(name) for name in names)
            and all(
                type(flag) is bool
                for flag in (interface.repeats, interface.events, interface.profile, interface.relative)
            )
            and all(
                len(pattern) == len({*pattern}) == interface.slate_size
                and all(type(kind) is int and 0 <= kind <= MOST for kind in pattern)
                for pattern in interface.patterns
            )
            and bool(interface.context and interface.action_sizes)
        )
    except (KeyError, TypeError, ValueError):
        sound = False
    if not sound:
        raise Refused("holds an 'interface' that is not one")
    return interface


def rebuild(kind: type[T_Noun], texts: object, tensors: Mapping[str, Tensor]) -> T_Noun:
    """The dataclass from its texts and tensors; Refused if a field is missing or has a wrong type."""
    what = kind.__name__.lower()
    if isinstance(texts, dict) and "genre_names" in texts:
        texts, tensors = _with_attributes(texts, tensors)
    optional = {f.name: f.default for f in dataclasses.fields(kind) if f.default is not dataclasses.MISSING}
    hints = typing.get_type_hints(kind)
    mappings: dict[str, dict[str, Tensor]] = {
        name: {n.partition(".")[2]: tensor for n, tensor in tensors.items() if n.startswith(f"{name}.")}
        for name, hint in hints.items()
        if hint == Mapping[str, Tensor]
    }
    tensors = {name: tensor for name, tensor in tensors.items() if name.partition(".")[0] not in mappings}
    values = {**optional, **(texts if isinstance(texts, dict) else {}), **tensors, **mappings}
    if values.get("table_file"):
        values["embedding"] = _map_table(values)
    if values.keys() != hints.keys():
        name = min(values.keys() ^ hints.keys())
        how = "with the unknown" if name in values else "without the"
        raise Refused(f"holds a {what} {how} field {name!r}")
    for name, hint in hints.items():
        value = values[name]
        if name in mappings:
            continue
        if (
            hint == tuple[str, ...]
            and isinstance(value, list | tuple)
            and all(type(text) is str for text in value)
        ):
            values[name] = tuple(value)
        elif hint == tuple[ItemFeature, ...]:
            values[name] = _features(value)
        elif hint not in (Tensor, str) or not isinstance(value, hint):
            raise Refused(f"holds a {what} whose {name!r} is of the wrong type")
        if isinstance(value, Tensor) and value.dtype != (dtype := _DTYPES.get(name, torch.float32)):
            raise Refused(f"holds a {what} whose {name!r} is {value.dtype} and not {dtype}")
    if not values["source"].isprintable():  # the commands print it
        raise Refused(f"holds a {what} whose 'source' has control characters")
    check_finite(what, tensors)
    return kind(**values)


def _with_attributes(
    texts: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The catalogue of a file of format 3, in which genres and years were fields and not attributes."""
    genres, year = (dataclasses.asdict(feature) for feature in genres_and_year())
    others = texts.get("features", [])
    features = [genres | {"values": texts["genre_names"]}, year]
    features += others if isinstance(others, list) else [others]
    moved = {name: f"attributes.{name}" for name in ("genres", "year")}
    return (
        {name: text for name, text in texts.items() if name != "genre_names"} | {"features": features},
        {moved.get(name, name): tensor for name, tensor in tensors.items()},
    )


def _features(entries: object) -> tuple[ItemFeature, ...]:
    """The features of JSON's values; Refused if one is not a feature."""
    try:
        assert isinstance(entries, list | tuple)
        features = [
            entry
            if isinstance(entry, ItemFeature)
            else ItemFeature(**{**entry, "values": tuple(entry["values"])})
            for entry in entries
        ]
        texts = [text for feature in features for text in (feature.name, *feature.values)]
        sound = all(type(text) is str and text.isprintable() for text in texts)
        sound = sound and all(feature.scale in typing.get_args(Scale) for feature in features)
        sound = sound and all(
            bool(feature.values) == (feature.scale == "classes")
            for feature in features
            if feature.scale != "tags"
        )
    except (AssertionError, KeyError, TypeError):
        sound = False
    if not sound:
        raise Refused("holds a catalogue whose 'features' are not features of items")
    return tuple(features)


def _map_table(values: Mapping[str, Any]) -> Tensor:
    """The embedding in the catalogue's own file; Refused if that file has changed."""
    path, ids = Path(str(values["table_file"])), values.get("item_ids")
    if not isinstance(ids, Tensor) or ids.ndim != 1:
        raise Refused("holds a catalogue whose 'item_ids' is not a list of ids")
    try:
        if table_sha256(path) != values.get("table_sha256"):
            raise Refused(
                f"was trained on other item embeddings than {path} holds now (their sha256 differs)",
                "put that run's file back, or train again",
            )
        return open_table(path)[: len(ids)]
    except (UserError, ValueError) as error:  # ValueError: no file can have such a name
        cause = f"needs its item embeddings, and {str(error).partition(': ')[0]}"
        raise Refused(cause, "put that file back, or train again") from None


def check_finite(section: str, tensors: Mapping[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise Refused(f"holds NaN or infinite values in {section} tensor {name!r}")
