"""The state of a run between two updates: its start, its checkpoints, and its resumption."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from recsys_rl.checkpoint import Checkpoint, check_algo, load, restoring
from recsys_rl.data.align import align
from recsys_rl.data.bias import share_of
from recsys_rl.data.new_users import shared_users
from recsys_rl.data.world_check import about_check
from recsys_rl.errors import amount
from recsys_rl.make import (
    assumptions,
    learned_file,
    make_agent,
    make_experience,
    make_recorder,
    make_world,
    part_of_rank,
)
from recsys_rl.models.drawn_policy import BESIDE, actor_and_critic, drawn_policy
from recsys_rl.models.item_columns import column_names
from recsys_rl.protocols import Experience
from recsys_rl.settings.config import Config, to_dict, with_whole_paths
from recsys_rl.tables.decision_log import catalogue_hash
from recsys_rl.training.ranks import ALONE, Ranks
from recsys_rl.types import Catalogue, Interface, UserError, World, tensors_of
from recsys_rl.utils.seeding import generators, set_state
from recsys_rl.version import __version__

STREAMS = ("model", "users", "policy", "shuffle")

# Settings that give the network's weights their shapes.
SIZES = (
    ("model_config", "encoder"),
    ("model_config", "head"),
    ("model_config", "hidden_dims"),
    ("env_config", "embedding_dim"),
)
# Settings that a resumed run may change. None of them affects learning.
FREE_ON_RESUME = {
    ("data_config", "data_dir"),
    ("data_config", "cache_dir"),
    ("train_config", "log_interval"),
    ("train_config", "eval_interval"),
    ("train_config", "save_interval"),
    ("train_config", "runs_dir"),  # like the name: the run already has its folder
    ("train_config", "name"),
    ("train_config", "threads"),
    ("train_config", "device"),  # load_to_resume compares the device itself
    ("train_config", "tensorboard"),
}


@dataclass
class Run:
    """The live objects whose state a checkpoint stores; each rank has its own part."""

    config: Config
    world: World  # empty if the environment has its own world
    interface: Interface  # of the place where the agent acts
    env: Any  # an Env; None: the experience is a log
    agent: Any  # a Learner, of any algorithm
    experience: Experience
    streams: dict[str, torch.Generator]
    num_updates: int  # updates of the whole run
    updates: int = 0
    curve: list[list[float]] = field(default_factory=list)  # rows of step, mean, low, high
    # The same of other evaluations: "log", estimated on a log, and "world", played in another world.
    curves: dict[str, list[list[float]]] = field(default_factory=dict)
    judged_by: str = ""  # the estimator of the curve "log"
    note: str = ""  # about the weights that it began with
    recorder: Any = None  # a Recorder of the run's decisions; None without one
    steps_before: int = 0  # of the runs whose weights it began with
    home: Mapping[str, Any] = field(default_factory=dict)  # checkpoint/home.py; empty but in learned users

    @property
    def per_update(self) -> int:
        return int(self.config.agent_config.steps_per_update)

    @property
    def has_simulator(self) -> bool:
        """False for a run that learns from a log and takes its items from a checkpoint."""
        return getattr(self.config.agent_config, "checkpoint", None) is None

    @property
    def step(self) -> int:
        return self.updates * self.per_update

    def due(self, interval: int) -> bool:
        """True every ``interval`` updates (0 = never) and after the last update."""
        return interval > 0 and (self.updates % interval == 0 or self.updates == self.num_updates)


def begin(config: Config, before: Checkpoint | None, device: torch.device, ranks: Ranks = ALONE) -> Run:
    """Make or restore the world, the environment, the agent and the random streams of a run.

    Raises UserError on every rank if ranks would begin with different settings, worlds or weights.
    """
    settings = config.train_config
    world, warm, note = _world(config, before, ranks), None, ""
    if before is None and settings.init_from is not None:
        warm = load(settings.init_from, config.env)
        if config.algorithm.experience == "logged":  # the catalogue must stay the log's
            _check_items(world, warm.world, settings.init_from)
        world, shared = align(world, warm.catalogue)
        note = f"weights of {settings.init_from}, step {warm.step:,}" + (f"; {shared}" if shared else "")
        note += _about_users(world, warm.world)
    world = world.to(device)
    # All ranks draw the weights from the same stream, on the CPU. Each rank has its own other streams.
    names = {name: f"{name}/{ranks.rank}" if ranks.rank else name for name in STREAMS}
    own = generators(settings.seed, *names.values(), device=device)
    streams = {name: own[names[name]] for name in STREAMS}
    streams["model"] = generators(settings.seed, "model")["model"]
    part = part_of_rank(config, ranks.size)
    num_updates = max(1, settings.total_timesteps // config.agent_config.steps_per_update)
    average = ranks.average if ranks.size > 1 else None

    def agent_for(interface: Interface) -> Any:
        return make_agent(part, interface, world.catalogue, num_updates, streams, device, average)

    env, experience, agent = make_experience(part, world, streams, agent_for, num_updates, average)
    interface = experience.interface
    run = Run(config, world, interface, env, agent, experience, streams, num_updates, note=note)
    if config.platform.user_file:
        run.home = learned_file(config).info.get("home", {})
    if settings.record is not None:
        run.recorder = experience.watcher = make_recorder(config, world, env)
    if warm is not None:
        _warm_start(run, warm, device)
    if before is None:
        if env is not None:
            env.reset()
    else:
        _restore(run, before, device, ranks.rank)
    if ranks.size > 1:
        _check_same(run, device, ranks)
    return run


def _check_items(world: World, before: World, path: str) -> None:
    """Raise UserError if the catalogue of ``before``, at ``path``, is another than that of a log."""
    if catalogue_hash(world.catalogue) != catalogue_hash(before.catalogue):
        raise UserError(
            f"--init-from {path} is of another catalogue than the log: its weights can't read these items; "
            "give a checkpoint of the same data and seed, or leave --init-from out."
        )


def _warm_start(run: Run, warm: Checkpoint, device: torch.device) -> None:
    """Give the agent the weights of another run; its optimiser and its count of updates begin anew.

    Raises UserError if the weights do not fit the network, or if they belong to other items.
    """
    own = run.agent.state_dict()
    weights = {name: x for name, x in warm.agent.items() if name.startswith("model.")}
    if not any(name.startswith(f"model.{BESIDE}") for name in own):
        weights = _of_model(actor_and_critic(_bare(weights)))
    temperature = getattr(warm.config.agent_config, "temperature", None)
    if temperature is not None and not hasattr(run.config.agent_config, "temperature"):
        weights = _of_model(drawn_policy(_bare(weights), temperature))
        run.note += f"; it begins with the drawn policy of {warm.config.algo}, softmax(Q / {temperature:g})"
    cause = _misfit(run, warm, own, weights)
    if cause and warm.config.algo != run.config.algo:
        cause += f" (that run is of --algo {warm.config.algo}, and this one of {run.config.algo})"
    if cause:
        raise UserError(
            f"--init-from {run.config.train_config.init_from} does not fit this run: {cause}; give the same "
            "--env, --encoder, --head, --hidden-dims, --embedding-dim and --max-episode-steps as that run, "
            "and items with the same columns."
        )
    with restoring():
        run.agent.load_state_dict({name: x.to(device) for name, x in {**own, **weights}.items()})
    run.steps_before = warm.total_steps


def _misfit(run: Run, warm: Checkpoint, own: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> str:
    """Why ``weights`` of the run ``warm`` can't replace those of the state ``own``; "" if they can."""
    names = {name for name in own if name.startswith("model.")}
    differ = sorted(names ^ weights.keys())
    differ += [name for name in sorted(names & weights.keys()) if own[name].shape != weights[name].shape]
    old, new = warm.catalogue, run.world.catalogue
    items = [[c.id_of(row) for row in range(c.num_items)] for c in (old, new)]
    dense = run.config.model_config.head == "dense" and items[0] != items[1]
    columns = column_names(old) != column_names(new)
    if not (differ or dense or columns):
        return ""
    if warm.config.env != run.config.env:
        return f"it is of --env {warm.config.env}, and this one of {run.config.env}"
    if dense:
        return "its dense head has one weight vector for each of its own items"
    if columns:
        return "its items have other columns, such as genres"
    return _other_size(warm.config, run.config) or f"its {differ[0]} has another shape or is missing"


def _other_size(before: Config, now: Config) -> str:
    """The first of SIZES in which two configs differ, as part of a sentence; "" if none does."""
    old, new = to_dict(before), to_dict(now)
    for section, name in SIZES:
        one, other = (str(x[section].get(name)).strip("[]").replace(",", "") for x in (old, new))
        if one != other:
            return f"it has --{name.replace('_', '-')} {one}, and this run has {other}"
    return ""


def _about_users(world: World, before: World) -> str:
    """A note if training users of another run on the same data are held out in this one."""
    if not world.catalogue.factors or not before.catalogue.factors:
        return ""  # made-up users: equal ids mean nothing
    users, others = world.population, before.population
    both = shared_users(others, others.train, users, users.heldout)
    if not both:
        return ""
    return (
        f"; {both} of the {len(users.heldout)} held-out users are training users of that run, so tables of "
        "this run will flatter it: with the same --seed and --heldout-fraction, users keep their side"
    )


def _bare(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """An agent's weights of its network, by their names in the network."""
    return {name.removeprefix("model."): x for name, x in weights.items()}


def _of_model(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of ``_bare``."""
    return {f"model.{name}": x for name, x in weights.items()}


def _world(config: Config, before: Checkpoint | None, ranks: Ranks) -> World:
    if before is not None:
        return before.world
    items = getattr(config.agent_config, "checkpoint", None)
    if items is not None:
        return load(items, config.env).world
    with ranks.in_turn():  # the first rank downloads data and learns embeddings into the cache
        return make_world(config)


def about_data(run: Run) -> str:
    """Lines about items, users and the platform's assumptions; "" if the world is empty."""
    catalogue, population = run.world
    if run.world.is_empty:
        return ""
    whose = f"{population.source}: " if population.source else ""
    sizes = f"{amount(len(population.train), 'training user')}, {len(population.heldout):,} held out"
    lines = [f"data: {catalogue.source}; {whose}{sizes}"]
    lines += filter(None, [about_check(population.ranking, share_of(catalogue))])
    assumed = assumptions(run.config, run.world)
    return "\n".join([*lines, f"{run.config.env}: {assumed}"] if assumed else lines)


def _check_same(run: Run, device: torch.device, ranks: Ranks) -> None:
    """Raise UserError unless all ranks have the same settings, data and weights, as averaging requires."""
    settings = {name: part for name, part in to_dict(run.config).items() if name != "data_config"}
    settings["train_config"] = {
        name: value
        for name, value in settings["train_config"].items()
        if ("train_config", name) not in FREE_ON_RESUME or name.endswith("interval")
    }
    text = json.dumps([settings, run.updates, device.type]).encode()
    catalogue, population = tensors_of(run.world.catalogue), tensors_of(run.world.population)
    own = {
        "settings": torch.frombuffer(bytearray(hashlib.sha256(text).digest()), dtype=torch.uint8),
        "data": _digest(catalogue | {f"users' {name}": x for name, x in population.items()}),
        "weights": _digest(run.agent.state_dict()),
    }
    everyone = ranks.gather(own)
    for name in own:
        if any(not torch.equal(other[name], everyone[0][name]) for other in everyone):
            raise UserError(
                f"The processes would begin with different {name}: give all of them the same options, data, "
                "checkpoint and version of torch."
            )


def _check_weights(run: Run, ranks: Ranks) -> None:
    """Raise UserError if weights differ between ranks: their processors or builds round differently."""
    weights = [rank["weights"] for rank in ranks.gather({"weights": _digest(run.agent.state_dict())})]
    if any(not torch.equal(weights[0], other) for other in weights):
        raise UserError(
            f"The processes' weights have drifted apart by step {run.step:,}: use machines with the same "
            "processors, the same version of torch, and a C compiler on all of them or none."
        )


def _digest(tensors: Mapping[str, Tensor]) -> Tensor:
    """(32,) uint8: sha256 over the tensors' bytes."""
    total = hashlib.sha256()
    for name in sorted(tensors):
        total.update(tensors[name].detach().cpu().contiguous().numpy().data)
    return torch.frombuffer(bytearray(total.digest()), dtype=torch.uint8)


# To a checkpoint and back. Rank 0 uses the names of a single process; names of rank 1 begin with "rank1/".


def snapshot(run: Run, ranks: Ranks = ALONE) -> Checkpoint:
    """A checkpoint of the run with the state of every rank. All ranks must call it.

    Raises UserError on every rank if their weights have drifted apart.
    """
    if ranks.size > 1:
        _check_weights(run, ranks)
    finished = run.updates == run.num_updates
    recorded = {} if run.recorder is None else run.recorder.state_dict()
    everyone = ranks.gather(
        {f"env/{name}": x for name, x in ({} if run.env is None else run.env.state_dict()).items()}
        | {f"experience/{name}": x for name, x in {**run.experience.state_dict(finished), **recorded}.items()}
        | {f"generators/{name}": stream.get_state() for name, stream in run.streams.items()}
    )
    states: dict[str, dict[str, Tensor]] = {"env": {}, "experience": {}, "generators": {}}
    for rank, tensors in enumerate(everyone):
        for name, x in tensors.items():
            section, _, rest = name.partition("/")
            states[section][f"{_prefix(rank)}{rest}"] = x
    info: dict[str, Any] = {
        "curve": run.curve,
        **({"curves": run.curves} if run.curves else {}),
        **({"judged_by": run.judged_by} if run.judged_by else {}),
        "steps_before": run.steps_before,
        **({"home": run.home} if run.home else {}),
        "device": run.streams["users"].device.type,
        "recsys_rl": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    return Checkpoint(
        run.config,
        run.interface,
        run.world,
        run.agent.state_dict(),
        states["env"],
        states["experience"],
        states["generators"],
        run.step,
        run.updates,
        info,
    )


def _restore(run: Run, before: Checkpoint, device: torch.device, rank: int) -> None:
    """Load the state of the checkpoint; the opposite of ``snapshot``."""
    state = _state_of_rank(before.env, rank)
    with restoring():
        run.agent.load_state_dict({name: x.to(device) for name, x in before.agent.items()})
        streams = _state_of_rank(before.generators, rank)
        for name, stream in run.streams.items():
            set_state(stream, streams[name])
        run.updates = before.updates
        same = run.step == before.step and run.updates == int(before.agent["updates"])
        if not same or run.updates > run.num_updates:
            raise ValueError(f"step {before.step} of a run of {run.num_updates} updates")
        run.curve, run.steps_before = list(before.info["curve"]), before.steps_before
        run.curves = {name: list(rows) for name, rows in before.info.get("curves", {}).items()}
        finished = run.updates == run.num_updates
        state_of_source = {name: x.to(device) for name, x in _state_of_rank(before.experience, rank).items()}
        run.experience.load_state_dict(state_of_source, finished)
        if run.recorder is not None:
            run.recorder.resume_at(run.updates)
            run.recorder.load_state_dict(before.experience)
    if run.env is None:
        return
    # An environment with its own world replays its actions. An error there comes from its code, not the file.
    with nullcontext() if run.world.is_empty else restoring():
        run.env.load_state_dict(state)


def _prefix(rank: int) -> str:
    return f"rank{rank}/" if rank else ""


def _state_of_rank(state: Mapping[str, Any], rank: int) -> dict[str, Any]:
    prefix = _prefix(rank)
    own = {name.removeprefix(prefix): x for name, x in state.items() if name.startswith(prefix)}
    return {name: x for name, x in own.items() if "/" not in name}


def load_to_resume(path: Path, config: Config, device: torch.device) -> Checkpoint:
    """Load the checkpoint at ``path``. Raises UserError if a run of ``config`` can't continue it."""
    checkpoint = load(path, config.env)
    check_algo(path, checkpoint, config.algo)
    with restoring():
        made_on = torch.device(checkpoint.info["device"]).type
    if made_on != device.type:  # generators of other devices have other states
        raise UserError(
            f"{path} was made on {made_on}, but this run is on {device.type}: resume with --device "
            f"{made_on}, or start a new run without --resume or --run."
        )
    before, now = _fields(checkpoint.config), _fields(config)
    one, other = (_fields(with_whole_paths(x)) for x in (checkpoint.config, config))
    for place, old in before.items():
        if one[place] == other[place] or place in FREE_ON_RESUME:
            continue
        name, new = place[1] or place[0], now[place]
        option = f"--{name.replace('_', '-')}"
        weights = f"; --init-from {path} gives it these weights" if name == "total_timesteps" else ""
        made = f"without {option}" if old in (None, []) else f"with {option} {old}"
        given = "left out" if new in (None, []) else new
        raise UserError(
            f"{path} was made {made}, but {option} is {given} now: leave {option} out "
            f"to resume, or start a new run without --resume or --run{weights}."
        )
    return checkpoint


def _fields(config: Config) -> dict[tuple[str, str], Any]:
    """The settings by section and name; the name of a setting without a section is empty."""
    return {
        (section, name): value
        for section, part in to_dict(config).items()
        for name, value in (part.items() if isinstance(part, dict) else [("", part)])
    }


def agent_of(checkpoint: Checkpoint, scaled_as: Catalogue | None = None) -> Any:
    """The agent, a Learner, of a checkpoint on the CPU, made without an environment.

    ``scaled_as``: the catalogue of its training if items have joined that of the checkpoint since. Raises
    UserError if the saved state doesn't fit.
    """
    agent = make_agent(checkpoint.config, checkpoint.interface, checkpoint.catalogue, scaled_as=scaled_as)
    with restoring():
        agent.load_state_dict(checkpoint.agent)
    return agent


def choose_device(name: str) -> torch.device:
    """The device of that name; auto is cuda if there is one. Raises UserError if cuda is missing."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: this machine or this build of torch has no CUDA: use --device cpu.")
    return torch.device(name)
