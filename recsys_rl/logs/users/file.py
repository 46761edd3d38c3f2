"""The file of learned users: catalogue, people, facts of the log and networks, without code."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from recsys_rl.checkpoint import sealed
from recsys_rl.checkpoint.checks import check_catalogue, check_population
from recsys_rl.checkpoint.contents import interface_of, rebuild, take_apart
from recsys_rl.checkpoint.sealed import Refused
from recsys_rl.logs.users.ensemble import UserEnsemble
from recsys_rl.logs.users.facts import UserFacts
from recsys_rl.logs.users.file_check import (
    MOST_WEIGHT,
    are_facts,
    are_kinds,
    is_float,
    is_info,
    typed,
)
from recsys_rl.logs.users.inputs import context_sizes, item_tables
from recsys_rl.logs.users.network import UserNetwork
from recsys_rl.logs.users.signals import SignalKinds
from recsys_rl.settings.config import without_source
from recsys_rl.types import Catalogue, Population, Signal, Stream, UserError, World

KIND, VERSION = "learned users", 2
_SECTIONS = ("catalogue", "population", "facts", "given", "items", "fitting")
AGAIN = "give a whole file of recsys-rl fit-users, or fit the users again"


@dataclass(frozen=True)
class LearnedFile:
    """Learned users, or a fit that was interrupted."""

    facts: UserFacts
    world: World
    members: tuple[UserNetwork, ...]
    means: Tensor  # (I, S): of the signals in the log (logs/users/item_means.py)
    data_config: Mapping[str, Any]  # of the world, as a section of settings
    fitting: Mapping[str, Tensor] = field(default_factory=dict)  # state of the fit; empty if it is finished
    info: Mapping[str, Any] = field(default_factory=dict)  # JSON primitives: settings of the fit

    @property
    def network(self) -> UserEnsemble:
        return UserEnsemble(self.members)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """All weights of the networks, by name."""
        return {
            f"{index}.{n}": tensor
            for index, m in enumerate(self.members)
            for n, tensor in m.state_dict().items()
        }

    @property
    def home(self) -> Mapping[str, Any]:
        """The platform behind the log (checkpoint/home.py); {} if people made it."""
        home: Mapping[str, Any] = self.info.get("home", {})
        return home

    @property
    def heldout_seed(self) -> int | None:
        """The seed by which strangers were held out from the fit; None in a file of an earlier version."""
        seed: int | None = self.info.get("heldout_seed")
        return seed

    @property
    def note(self) -> str:
        return ""

    @property
    def settings(self) -> dict[str, Any]:
        """The sections of a run inside these users, without the file itself."""
        catalogue = self.world.catalogue
        sizes = {
            "num_items": catalogue.num_items,
            "embedding_dim": catalogue.embedding.shape[1],
            "max_episode_steps": self.facts.interface.session_length,
        }
        return without_source({"data_config": dict(self.data_config), "env_config": sizes})


def save_users(path: Path, users: LearnedFile) -> None:
    """Write the file; the old one is kept as ``previous(path)``. Raises UserError if it can't be written."""
    facts = users.facts
    texts: dict[str, Any] = {
        "kind": KIND,
        "version": VERSION,
        "facts": {
            "interface": dataclasses.asdict(facts.interface),
            "signals": [dataclasses.asdict(signal) for signal in facts.signals],
            "streams": [dataclasses.asdict(stream) for stream in facts.streams],
            **{name: getattr(facts, name) for name in ("catalogue", "platform", "log")},
        },
        "kinds": dataclasses.asdict(users.members[0].kinds),
        "members": len(users.members),
        "data_config": dict(users.data_config),
        "info": dict(users.info),
    }
    sections: dict[str, Mapping[str, Tensor]] = {
        "given": facts.given,
        "facts": {"of_signals": facts.of_signals, "users": facts.users},
        "items": {"means": users.means},
        "fitting": users.fitting,
    }
    nouns: tuple[tuple[str, Catalogue | Population], ...] = (
        ("catalogue", users.world.catalogue),
        ("population", users.world.population),
    )
    for name, noun in nouns:
        texts[name], sections[name] = take_apart(noun)
    for index, member in enumerate(users.members):
        sections[f"member{index}"] = member.state_dict()
    sealed.write(
        path, texts, {f"{a}.{b}": tensor for a, section in sections.items() for b, tensor in section.items()}
    )


def load_users(path: str | Path, finished: bool = True) -> LearnedFile:
    """Read a file of ``save_users``.

    Args:
        finished: the fit must be.

    Raises UserError if the file is not a whole file of learned users, or if its fit was interrupted.
    """
    path = Path(path)
    try:
        if not path.name:
            raise Refused("is not a file", AGAIN)
        stat = path.stat() if path.is_file() else None
        file = _loaded(path, stat and (stat.st_mtime_ns, stat.st_size, stat.st_ino))
    except Refused as refused:
        mend = AGAIN if "train" in refused.mend else refused.mend
        raise UserError(f"{path} {refused.cause}: {mend}.") from refused
    if finished and file.fitting:
        raise UserError(
            f"{path} holds users whose fit was interrupted: finish it with recsys-rl fit-users --resume."
        )
    return file


@functools.lru_cache(2)  # a run reads its users at several places
def _loaded(path: Path, version: object) -> LearnedFile:
    texts, tensors = sealed.read(path)
    if texts.get("kind") != KIND:
        raise Refused("holds no learned users", AGAIN)
    if texts.get("version") != VERSION:
        raise Refused("holds learned users of another version of recsys_rl", "fit the users again")
    sections: dict[str, dict[str, Tensor]] = {}
    for name in sorted(tensors):
        section, _, rest = name.partition(".")
        sections.setdefault(section, {})[rest] = tensors[name]
    empty: dict[str, Tensor] = {}
    world = World(
        rebuild(Catalogue, texts.get("catalogue"), sections.get("catalogue", empty)),
        rebuild(Population, texts.get("population"), sections.get("population", empty)),
    )
    check_catalogue(world.catalogue)
    check_population(world.population)
    items = world.catalogue.num_items
    data, info, number = (texts.get(name) for name in ("data_config", "info", "members"))
    if not isinstance(data, dict) or not is_info(info) or type(number) is not int or number < 1:
        raise Refused("does not fit its own settings", AGAIN)
    try:
        facts, kinds = _facts(texts["facts"], sections), typed(SignalKinds, texts["kinds"])
        means = sections["items"]["means"]
        sound = (
            sections.keys() <= {*_SECTIONS, *(f"member{index}" for index in range(min(number, 100)))}
            and facts.interface.action_sizes == (items,)
            and are_facts(facts)
            and are_kinds(kinds, len(facts.signals))
            and is_float(means, items, len(facts.signals))
        )
        tables = item_tables(world.catalogue, means)
        sizes = context_sizes(facts.interface, facts.given, world.catalogue)
        members = []
        for index in range(number if sound else 0):
            weights = sections[f"member{index}"]
            sound = sound and all(
                is_float(tensor, *tensor.shape, most=MOST_WEIGHT) for tensor in weights.values()
            )
            network = UserNetwork(tables, sizes, kinds, torch.Generator().manual_seed(0))
            network.load_state_dict(weights)
            members.append(network)
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise Refused(f"does not fit its own settings ({type(error).__name__})", AGAIN) from error
    if not sound:
        raise Refused("does not fit its own settings", AGAIN)
    return LearnedFile(
        facts,
        world,
        tuple(members),
        means,
        data,
        sections.get("fitting", empty),
        info,
    )


def _facts(texts: Mapping[str, Any], sections: Mapping[str, Mapping[str, Tensor]]) -> UserFacts:
    own = sections["facts"]
    given = sections.get("given", {})  # a platform may give no pieces
    named = {name: texts[name] for name in ("catalogue", "platform", "log")}
    if not all(type(text) is str and text.isprintable() for text in named.values()):
        raise ValueError("a text")
    return UserFacts(
        interface=interface_of(texts["interface"]),
        signals=tuple(typed(Signal, signal, math.inf) for signal in texts["signals"]),
        streams=tuple(typed(Stream, stream) for stream in texts["streams"]),
        of_signals=own["of_signals"],
        users=own["users"],
        given=dict(given),
        **named,
    )
