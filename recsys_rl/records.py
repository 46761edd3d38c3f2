"""Records: the file of a platform, an algorithm or a source ends with one. Three dicts list them.

The dicts are PLATFORMS (env/), AGENTS (agents/) and SOURCES (data/); settings/names.py finds
the record of a name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from recsys_rl.protocols import Env, Learner, Policy
from recsys_rl.settings.shared import AgentConfig, DataConfig, EnvConfig, Need
from recsys_rl.types import Catalogue, Feedback, Interface, Obs, World

Preset = Mapping[str, Mapping[str, Any]]  # fields by section, as in a TOML file


PRIVILEGED = ("myopic", "credited", "oracle", "informed", "planner")
"""Rows of the table whose policies read the simulator's hidden state, which no recommender sees."""
TRADE = "trade-"
"""Names of rows that are heuristics of the platform's trade begin with this."""


@dataclass(frozen=True)
class Heuristic:
    """A ranking that the trade of a platform uses. The best of its settings on training users is a row."""

    description: str  # one sentence
    settings: Callable[[Catalogue, Interface], Mapping[str, Policy]]  # by their description


@dataclass(frozen=True)
class Split:
    """The value that splits the weights of the row `searched` into sets: a surface, or the clock.

    ``value`` returns a number (N,) of each user. ``searched``: there are two sets, and the second one begins
    at a value in [0, 1] that the search finds. Otherwise the number is the set, 0 .. num_sets - 1.
    """

    value: Callable[[Obs, Interface], Tensor]
    num_sets: int = 2
    searched: bool = False


Known = Mapping[str, Tensor]
"""State of N visits under way that a platform keeps: tensors (N, ...) by name."""


@dataclass(frozen=True)
class VisitPieces:
    """The pieces of the context that ``UserModel.visible`` hands in, made from a visitor's events alone.

    - ``begin(config, catalogue, profiles, hours)``: what is known at the start of visits of people with
      ``profiles`` (N, D), at these hours (N,) of the week, 0 .. 168 from Monday at midnight.
    - ``after(config, catalogue, known, items, seen)``: what is known after a step with ``items`` (N, K) and
      the response ``seen``, a Feedback of the visible signals alone.
    - ``pieces(config, catalogue, known)``: the pieces, (N, size) each, by name.

    - ``permits(config, catalogue, known)``: (N, I) bool, the items that may be shown now; None if the
      platform forbids none.
    - ``of_people(world, rows, likes)``: what is known of these people themselves, such as whom they follow,
      and joins the result of ``begin``. ``rows`` (N,) int64 are theirs in the population, -1 for strangers,
      and ``likes`` holds the liked items of each, rows of the catalogue. Only what a recommender may know of
      the population is used. None: nothing.
    - ``lasting``: names of what stays known from one visit of a person to the next.

    ``config`` is the platform's section env_config. ``by_hour``: the pieces depend on the hour, and ``known``
    has it, (N,), as ``hour``. ``consumed`` has the visible signals of an item that was consumed in full, by
    name; a signal without an entry is 1. ``taken``: visible signals that tell alone, at 1, that an item was
    consumed, such as a purchase.
    """

    begin: Callable[[Any, Catalogue, Tensor, Tensor], Known]
    after: Callable[[Any, Catalogue, Known, Tensor, Feedback], Known]
    pieces: Callable[[Any, Catalogue, Known], Mapping[str, Tensor]]
    permits: Callable[[Any, Catalogue, Known], Tensor] | None = None
    of_people: Callable[[World, Tensor, Sequence[Sequence[int]]], Known] | None = None
    lasting: tuple[str, ...] = ()
    by_hour: bool = False
    consumed: Mapping[str, float] = field(default_factory=dict)
    taken: tuple[str, ...] = ()


class Brought(Protocol):
    """World and settings that the file of a platform brings to a run."""

    @property
    def world(self) -> World: ...

    @property
    def settings(self) -> Mapping[str, Any]:
        """The sections of a run in this world, without the file itself."""
        ...

    @property
    def tensors(self) -> Mapping[str, Tensor]:
        """The tensors of its users, by name."""
        ...

    @property
    def home(self) -> Mapping[str, Any]:
        """The platform whose log the users are learned from (checkpoint/home.py); {} if there is none."""
        ...

    @property
    def heldout_seed(self) -> int | None:
        """The seed by which its users were held out from what was learned; None: nothing was."""
        ...

    @property
    def note(self) -> str:
        """Lines about the file, which `train` prints; "" without any."""
        ...


@dataclass(frozen=True)
class WorldFile:
    """The file from which a platform has its items and users, in place of data.

    ``fields`` are the settings, by their own names, that name the file and tell how to read it, the path
    first. ``load`` reads the file that they name, and raises UserError if it is missing or can't be used.
    """

    fields: tuple[str, ...]
    load: Callable[[Mapping[str, Any]], Brought]


@dataclass(frozen=True)
class OwnTables:
    """The functions of a platform whose logs are people's own tables. They raise UserError.

    ``data_config`` and ``env_config`` are these sections of the settings of a run.

    - ``open_log(paths, data_config, env_config, catalogue)``: the tables as a log (logs/source.py).
    - ``before_a_log(items, signals, pieces, slate_size)``: the world and the settings of a team that has no
      log yet, from the file of its items, the names of its signals, the pieces of its context and the size of
      its slates.
    - ``pieces(env_config)``: the pieces of the context that a caller gives by their names
      (data/tables/pieces.py).
    - ``columns(env_config)``: the column of each role (data/tables/schema.py) in the tables.
    - ``ranges(env_config)``: the values of each signal in the log (``log_shape.SignalRange``).
    - ``interface(env_config, catalogue)``: the interface of sessions; a checkpoint with another is refused.
    - ``encoding(env_config)``: the encodings of the items (data/tables/item_encoding.py); None in settings of
      an earlier version.
    - ``with_encoding(env_config, encoding)``: the settings with other encodings of the items.
    - ``items_of_log(paths)``: the file with the items beside exports of a record; None without one.
    - ``judge(run, path)``: judge the finished policy of a run, with its checkpoint at ``path``, on its log.
    - ``estimates(path, checkpoint)``: print those estimates again, and return their values.
    """

    open_log: Callable[..., Any]
    before_a_log: Callable[..., Brought]
    pieces: Callable[[Any], Sequence[Any]]
    columns: Callable[[Any], Mapping[str, str]]
    ranges: Callable[[Any], Mapping[str, Any]]
    interface: Callable[[Any, Catalogue], Interface]
    encoding: Callable[[Any], Any]
    with_encoding: Callable[[Any, Any], Any]
    items_of_log: Callable[[Sequence[str]], str | None]
    judge: Callable[[Any, Path], None]
    estimates: Callable[[Path, Any], dict[str, Any]]


@dataclass(frozen=True)
class Platform:
    """A kind of environment.

    ``users`` is a class that makes the user model from catalogue, population and settings, or a function that
    does. Its attribute ``repeats`` is of the class, or ``config`` has a field of that name. A slate size
    other than 1 is a field of ``config``, named ``slate_field``, or an attribute of that class. A platform
    without users has its own world: its name has the form ``<platform>:<name>``, ``check`` raises UserError
    for an impossible name, and ``env`` makes the environment. ``add_attributes`` adds to a new world, from
    the seed, the attributes of items and users that the platform needs and the data lack. ``visit_pieces``
    are required for recommendations if ``UserModel.visible`` hands in more than a constant profile.
    A platform with a ``file`` has its world from there. ``data_config``: the class of that section, in place
    of a source's. ``question``: what its users ask of a policy, in one sentence, and ``example``: options of
    `train` where `--env NAME` is not enough; the gallery of the site shows both.
    """

    config: type[Any]  # the class of its section env_config
    users: Any = None
    env: Callable[..., Env] | None = None
    check: Callable[[str], None] | None = None
    add_attributes: Callable[[World, int], World] | None = None
    heuristics: Mapping[str, Heuristic] = field(default_factory=dict)  # rows `trade-NAME` of the table
    split: Split | None = None  # of the row `searched`; None: one set of weights
    visit_pieces: VisitPieces | None = None
    slate_field: str = "slate_size"
    file: WorldFile | None = None
    data_config: type[Any] | None = None
    tables: OwnTables | None = None
    presets: Mapping[str, Preset] = field(default_factory=dict)  # by algorithm; "*" is for all algorithms
    question: str = ""
    example: str = ""

    @property
    def simulates(self) -> bool:
        """False if its logs are people's own tables: then nobody answers."""
        return self.tables is None

    @property
    def signal_ranges(self) -> dict[str, tuple[float, float]]:
        """The lowest and the highest value of each signal, by name.

        {} for a platform that describes its signals in each user model, and not in the class.
        """
        described = getattr(self.users, "signals", ())
        if not isinstance(described, tuple):
            return {}
        return {signal.name: (signal.low, signal.high) for signal in described}

    def repeats(self, settings: Any) -> bool:
        """True if items may repeat with these settings, and on a platform with its own world."""
        if self.users is None:
            return True
        of_class = getattr(self.users, "repeats", False)
        return bool(getattr(settings, "repeats", of_class))

    def brought(self, config: Any) -> Brought | None:
        """The world and settings of the file of a run with these settings, a Config. Raises UserError.

        None if the world is made from data, or comes from a checkpoint.
        """
        if self.file is None or getattr(config.agent_config, "checkpoint", None) is not None:
            return None
        sections = (config.env_config, config.data_config, config.agent_config, config.train_config)
        given = {
            name: getattr(section, name)
            for section in sections
            for name in self.file.fields
            if hasattr(section, name)
        }
        return self.file.load(given)

    def slate_size(self, settings: Any) -> int:
        """K as far as it is known before the world is made: of the settings or the class of users, else 1."""
        size = getattr(settings, self.slate_field, getattr(self.users, "slate_size", 1))
        return size if isinstance(size, int) else 1

    def has_history(self, settings: Any) -> bool:
        """True if observations hold a history with these settings."""
        if self.users is None:
            return False
        of_class = getattr(self.users, "history_length", 0)
        length = getattr(settings, "history_length", of_class if isinstance(of_class, int) else 0)
        return not self.repeats(settings) or bool(length)


@dataclass(frozen=True)
class BatchSource:
    """A source of batches, a file of experience/, as the record of an algorithm names it.

    ``maker`` is module:NAME of the function that makes the experience and its agent; its module is imported
    when a run begins. It takes the arguments of ``make_on_policy`` (experience/on_policy.py). ``rollouts``:
    each batch is a rollout of the present policy, as limits, the bonus for novelty and the loss of the next
    signals need. ``from_log``: no environment is played; the items are those of a log, which is on the CPU.
    ``judge`` is module:NAME of the function (run, path) that judges the finished policy of such a run, whose
    checkpoint is at ``path``.
    """

    maker: str
    rollouts: bool = False
    from_log: bool = False
    judge: str = ""


ON_POLICY = BatchSource("recsys_rl.experience.on_policy:make_on_policy", rollouts=True)
REPLAY = BatchSource("recsys_rl.experience.replay:make_replay")
LOGGED = BatchSource(
    "recsys_rl.logs.experience.logged:make_from_log",
    from_log=True,
    judge="recsys_rl.logs.judges.judge_run:judge_run",
)
# What a run finds by name in the wing of logs, so that the core doesn't import it (utils/find.py).
JUDGES = "recsys_rl.logs.judges.judges:Judges"
RECORDING = "recsys_rl.logs.experience.recorder:Recording"


@dataclass(frozen=True)
class Algorithm:
    """A learner, the class of its section agent_config, and the source of its batches.

    ``config`` is a subclass of that source's settings in settings/shared.py: OnPolicyConfig, ReplayConfig or
    LoggedConfig. ``needs`` names what a log must have beside decisions, with any settings; ``needs`` of a
    LoggedConfig adds to it.
    """

    config: type[AgentConfig]
    agent: Callable[..., Learner]
    experience: BatchSource = ON_POLICY
    network: Callable[..., Any] | None = None  # None: ActorCritic (models/actor_critic.py)
    needs: tuple[Need, ...] = ()


@dataclass(frozen=True)
class Source:
    """A kind of data, and the class of its section data_config.

    ``make_world`` raises UserError if the data can't be used. ``made_up``: the source always makes exactly
    num_items items.
    """

    config: type[DataConfig]
    make_world: Callable[[Any, EnvConfig, int], World]  # from its settings, the sizes and the seed
    made_up: bool = False
