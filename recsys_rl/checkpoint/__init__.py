"""One self-contained file without code: all data for evaluation, serving and a resumed run.

One exception: a memory-mapped table of item embeddings stays in its own file, and the checkpoint stores its
name and sha256.
"""

from __future__ import annotations

import contextlib
import dataclasses
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from recsys_rl.checkpoint import sealed
from recsys_rl.checkpoint.sealed import Refused, previous
from recsys_rl.checkpoint.sizes import check_sizes
from recsys_rl.checkpoint.users_check import is_home
from recsys_rl.data.item_table import open_table, table_sha256
from recsys_rl.errors import one_line
from recsys_rl.settings.config import Config, from_dict, to_dict, without_source
from recsys_rl.settings.names import is_unknown_algorithm, names_a_module
from recsys_rl.types import (
    Catalogue,
    Interface,
    ItemFeature,
    Population,
    Scale,
    UserError,
    World,
    genres_and_year,
    is_name,
    tensors_of,
)

__all__ = ["Checkpoint", "check_algo", "load", "previous", "restoring", "save"]


@dataclass(frozen=True)
class Checkpoint:
    """A run between two updates: tensors and JSON primitives only. ``load`` gives tensors on the CPU."""

    config: Config
    interface: Interface  # of the place where the agent acts
    world: World  # empty if the environment brings its own world
    agent: Mapping[str, Tensor]  # weights, optimiser, count of updates
    env: Mapping[str, Tensor]  # the environment's sessions, or a gym: environment's actions and normalisation
    experience: Mapping[str, Tensor]  # what a resumed run's next batch needs: sessions, a replay buffer
    generators: Mapping[str, Tensor]  # states of torch.Generator, uint8
    step: int  # environment steps so far, over all users
    updates: int
    info: Mapping[str, Any]  # JSON primitives: learning curve, device, versions

    @property
    def steps_before(self) -> int:
        """Steps of the runs whose weights this run began with (``init_from``)."""
        return int(self.info.get("steps_before", 0))

    @property
    def total_steps(self) -> int:
        """Steps of the run and ``steps_before``."""
        return self.step + self.steps_before

    @property
    def catalogue(self) -> Catalogue:
        return self.world.catalogue

    @property
    def population(self) -> Population:
        return self.world.population


_MOST = 10**9  # items, and numbers of any size or length
_TENSORS = ("agent", "env", "experience", "generators")
_FACTS = {"config": dict, "interface": dict, "step": int, "updates": int, "info": dict}
# The types of the fields of Catalogue and Population in types.py; all other tensors are float32.
_DTYPES = dict.fromkeys(("item_ids", "user_ids", "train", "heldout"), torch.int64) | {"available": torch.bool}


def save(path: str | Path, checkpoint: Checkpoint) -> None:
    """Write the checkpoint to ``path``. After the first save, the file there is whole at every moment.

    The old checkpoint is kept as ``previous(path)``. Equal checkpoints give equal bytes.

    Raises UserError, and does not change the old checkpoint, if the disk is full or read-only, or if the
    agent holds NaN or infinite values.
    """
    path = Path(path)
    try:
        _check_finite("agent", checkpoint.agent)
    except Refused as refused:
        raise UserError(
            f"{path} isn't written, as the agent of step {checkpoint.step:,} {refused.cause}: start again "
            "with a lower --lr or --max-grad-norm."
        ) from None
    sections: dict[str, Mapping[str, Tensor]] = {name: getattr(checkpoint, name) for name in _TENSORS}
    texts: dict[str, Any] = {name: getattr(checkpoint, name) for name in _FACTS}
    texts |= {
        "config": to_dict(checkpoint.config),
        "interface": dataclasses.asdict(checkpoint.interface),
        "info": dict(checkpoint.info),
    }
    for name, noun in (("catalogue", checkpoint.catalogue), ("population", checkpoint.population)):
        texts[name], sections[name] = _take_apart(noun)
    tensors = {f"{name}.{key}": value for name, section in sections.items() for key, value in section.items()}
    sealed.write(path, texts, tensors)


def load(path: str | Path, env: str | None = None) -> Checkpoint:
    """Read a checkpoint of ``save``.

    ``env``: the environment that the user typed. A checkpoint may import a module only if it names this one.
    It imports no module of an algorithm: this program has imported it before.

    Raises UserError, in one sentence, if the file is not a whole and valid checkpoint. The error names the
    previous checkpoint if that one is valid. A pickle is recognised and never opened.
    """
    path = Path(path)
    if not path.name:  # "." and "/"
        raise UserError(f"{path} is not a file: train first, or check the path.")
    try:
        return _assemble(*sealed.read(path), env)
    except Refused as refused:
        mend = refused.mend
        before = previous(path.resolve() if path.is_symlink() else path)  # beside the file itself
        with contextlib.suppress(Refused):
            _assemble(*sealed.read(before), env)
            mend = f"{mend}, or give {before}, the whole checkpoint before it"
        raise UserError(f"{path} {refused.cause}: {mend}.") from refused


def check_algo(path: Path, checkpoint: Checkpoint, algo: str) -> None:
    """Raise UserError if the checkpoint at ``path`` is from another algorithm."""
    saved = checkpoint.config.algo
    if saved != algo:
        mend = f"give --algo {saved} or another file"
        raise UserError(f"{path} is a checkpoint of {saved}, not of {algo}: {mend}.")


@contextlib.contextmanager
def restoring() -> Iterator[None]:
    """Turn errors of the block into a UserError: a file with a right hash may still contradict itself."""
    try:
        yield
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:100]
        raise UserError(
            f"The checkpoint's state does not fit its own settings ({type(error).__name__}: {reason}): give "
            "a whole checkpoint of this version, or train again."
        ) from error


def _take_apart(noun: Catalogue | Population) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The strings and tuples of strings of ``noun``, and its tensors."""
    tensors = tensors_of(noun)
    if isinstance(noun, Catalogue) and noun.table_file:  # the table holds the embedding and may be huge
        tensors.pop("embedding")
    texts = {name: value for name, value in vars(noun).items() if not isinstance(value, Tensor | Mapping)}
    if isinstance(noun, Catalogue):
        texts["features"] = [dataclasses.asdict(feature) for feature in noun.features]
    return texts, tensors


# Reading. A right hash proves that the file is undamaged, not that its content is valid.


def _assemble(texts: Mapping[str, Any], tensors: Mapping[str, Tensor], env: str | None) -> Checkpoint:
    sections: dict[str, dict[str, Tensor]] = {name: {} for name in (*_TENSORS, "catalogue", "population")}
    for name in sorted(tensors):
        section, _, rest = name.partition(".")
        if section not in sections:
            raise Refused(f"holds the unknown tensor {name!r}")
        sections[section][rest] = tensors[name]
    for name, kind in _FACTS.items():
        if type(texts.get(name)) is not kind or (kind is int and texts[name] < 0):
            raise Refused(f"has no valid {name!r}")
    saved = str(texts["config"].get("env"))
    if names_a_module(saved) and saved != env:
        name = one_line(saved)
        raise Refused(f"was trained on {name}, which imports a module", f"type --env {name} to allow it")
    algo = str(texts["config"].get("algo"))
    if is_unknown_algorithm(algo):
        name = one_line(algo)
        mend = (
            f"import that module first, or give --algo {name} to a command that has this option (train, "
            "evaluate, recommend, export, serve)"
        )
        raise Refused(f"was trained by {name}, which imports a module", mend)
    try:
        config = from_dict(Config, without_source(texts["config"]))
    except UserError as error:
        raise Refused(f"holds settings that this version can't use ({str(error).rstrip('.')})") from error
    checkpoint = Checkpoint(
        config=config,
        world=World(
            _rebuild(Catalogue, texts.get("catalogue"), sections["catalogue"]),
            _rebuild(Population, texts.get("population"), sections["population"]),
        ),
        interface=_interface(texts["interface"]),
        step=texts["step"],
        updates=texts["updates"],
        info=texts["info"],
        agent=sections["agent"],
        env=sections["env"],
        experience=sections["experience"],
        generators=sections["generators"],
    )
    _check_finite("agent", checkpoint.agent)
    for name, state in checkpoint.generators.items():
        if state.dtype != torch.uint8 or state.ndim != 1:
            raise Refused(f"holds no generator state in {name!r}")
    others = checkpoint.info.get("curves", {})
    every = [checkpoint.info.get("curve", []), *(others.values() if isinstance(others, dict) else [None])]
    if not all(_is_curve(curve) for curve in every):
        raise Refused("holds a learning curve that is not a list of step, mean, low and high")
    before = checkpoint.info.get("steps_before", 0)
    if type(before) is not int or not 0 <= before <= _MOST * _MOST:
        raise Refused(f"holds {before!r:.40} as its number of steps before")
    seed = checkpoint.info.get("heldout_seed", 0)
    if type(seed) is not int or not 0 <= seed < 2**63:
        raise Refused(f"holds {seed!r:.40} as the seed of its held-out users")
    end = checkpoint.info.get("log_end", 0)
    if type(end) is not int or not abs(end) < 2**63:
        raise Refused(f"holds {end!r:.40} as the last time of its log")
    if not is_home(checkpoint.info.get("home", {})):
        raise Refused("holds no settings of a platform as its home")
    chance = checkpoint.info.get("chance_at_home", 0.0)
    if type(chance) is not float or not 0 <= chance < 1:
        raise Refused(f"holds {chance!r:.40} as the chance of its policy at home")
    _check_world(checkpoint)
    check_sizes(config, checkpoint.interface, checkpoint.agent)
    encoder = config.model_config.encoder
    expects = any(name.startswith("model.next_signals.") for name in checkpoint.agent)
    if encoder == "transformer" and checkpoint.interface.signals and not expects:
        raise Refused(f"holds a {encoder} of an earlier version, which expected no signals", "train again")
    towers, rewards = (f"model.head.{name}" for name in ("votes", "expected.scale"))
    if towers in checkpoint.agent and rewards not in checkpoint.agent:
        raise Refused(
            "holds a two-tower head of an earlier version, which expected no rewards", "train again"
        )
    return checkpoint


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
    _check_catalogue(catalogue)
    if config.platform.simulates:
        _check_population(population)
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


def _interface(fields: Mapping[str, Any]) -> Interface:
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
            all(type(count) is int and 0 < count <= _MOST for count in counts)
            and all(type(length) is int and 0 <= length <= _MOST for length in lengths)
            and all(type(name) is str and is_name(name) for name in names)
            and all(
                type(flag) is bool
                for flag in (interface.repeats, interface.events, interface.profile, interface.relative)
            )
            and all(
                len(pattern) == len({*pattern}) == interface.slate_size
                and all(type(kind) is int and 0 <= kind <= _MOST for kind in pattern)
                for pattern in interface.patterns
            )
            and bool(interface.context and interface.action_sizes)
        )
    except (KeyError, TypeError, ValueError):
        sound = False
    if not sound:
        raise Refused("holds an 'interface' that is not one")
    return interface


T_Noun = TypeVar("T_Noun", Catalogue, Population)


def _rebuild(kind: type[T_Noun], texts: object, tensors: Mapping[str, Tensor]) -> T_Noun:
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
    _check_finite(what, tensors)
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


def _check_catalogue(catalogue: Catalogue) -> None:
    if catalogue.embedding.ndim != 2:
        raise Refused("holds a catalogue whose embedding has a wrong shape")
    rows = catalogue.num_items
    named = _take_apart(catalogue)[1]
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
    _check_finite("catalogue", {"factors.norm": norm, "factors.gram": gram})


def _check_population(population: Population) -> None:
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


def _check_finite(section: str, tensors: Mapping[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise Refused(f"holds NaN or infinite values in {section} tensor {name!r}")
