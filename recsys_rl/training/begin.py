"""The start of a run, new or resumed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from recsys_rl.checkpoint import Checkpoint, load
from recsys_rl.checkpoint.home import split_of, with_seed
from recsys_rl.make import make_agent, make_world
from recsys_rl.models.policy import NetworkPolicy
from recsys_rl.records import Brought
from recsys_rl.settings.config import Config
from recsys_rl.settings.fields import check_used
from recsys_rl.training.agreement import check_same
from recsys_rl.training.ranks import ALONE, Ranks, part_of_rank
from recsys_rl.training.resume import restore
from recsys_rl.training.run import Run
from recsys_rl.training.warm_start import check_items, warm_start
from recsys_rl.types import Interface, World
from recsys_rl.utils.find import find
from recsys_rl.utils.seeding import generators

STREAMS = ("model", "users", "policy", "shuffle")


def begin(config: Config, resumed: Checkpoint | None, device: torch.device, ranks: Ranks = ALONE) -> Run:
    """Make or restore the world, the environment, the agent and the random streams of a run.

    ``resumed``: the checkpoint to resume. Raises UserError on every rank if ranks would begin with different
    settings, worlds or weights.
    """
    config = config if resumed is not None else _with_its_split(config)
    items = _of_items(config, resumed)
    world = _world(config, resumed, items, ranks)
    run = _made(config, world, _split(config, resumed, items), resumed, device, ranks)
    if resumed is not None:
        restore(run, resumed, device, ranks.rank)
    elif run.env is not None:
        run.env.reset()
    check_same(run, device, ranks)
    return run


def _made(
    config: Config, world: World, split: int, resumed: Checkpoint | None, device: torch.device, ranks: Ranks
) -> Run:
    """The run before its first step. ``split``: the seed by which users of a log are held out."""
    settings, weights, note = config.train_config, None, ""
    if resumed is None and settings.init_from is not None:
        weights, note = check_items(config, world, load(settings.init_from, config.env))
    world = world.to(device)
    # All ranks draw the weights from the same stream, on the CPU. Each rank has its own other streams.
    names = {name: f"{name}/{ranks.rank}" if ranks.rank else name for name in STREAMS}
    own = generators(settings.seed, *names.values(), device=device)
    streams = {name: own[names[name]] for name in STREAMS}
    streams["model"] = generators(settings.seed, "model")["model"]
    rank_config = part_of_rank(with_seed(config, split), ranks.size)
    num_updates = max(1, settings.total_timesteps // config.agent_config.steps_per_update)
    process, average = (ranks.rank, ranks.size), ranks.average if ranks.size > 1 else None

    def agent_for(interface: Interface) -> Any:
        return make_agent(rank_config, interface, world.catalogue, num_updates, streams, device, average)

    make = find(config.algorithm.experience.maker, "--algo")
    experience, agent = make(rank_config, world, streams, agent_for, num_updates, average, process)
    run = Run(config, world, experience, agent, streams, num_updates, note=note)
    if (brought := config.platform.brought(config)) is not None:
        run.info |= _about_users(brought, settings.seed, agent)
    if weights is not None:
        run.note += warm_start(config, world, agent, weights, device)
        run.info["steps_before"] = weights.total_steps
    if split != settings.seed:
        _hold_out_as_there(run, split, new=resumed is None)
    run.info |= _log_end(experience, weights, resumed)
    return run


def _log_end(experience: Any, warm: Checkpoint | None, resumed: Checkpoint | None) -> dict[str, int]:
    """The last time of all that the policy of a log with times learns from; {} if it is unknown."""
    ends = [getattr(experience, "last_time", None)]
    ends += [of.info.get("log_end") for of in (warm, resumed) if of is not None]
    times = [end for end in ends if end is not None]
    return {"log_end": max(times)} if len(times) == len(ends) else {}


def _with_its_split(config: Config) -> Config:
    """The settings that the log of the run brings: encodings of its training side depend on the seed."""
    brought = config.platform.brought(config)
    if brought is None or config.platform.tables is None:
        return config
    return replace(config, env_config=replace(config.env_config, **brought.settings["env_config"]))


def _about_users(brought: Brought, seed: int, agent: Any) -> dict[str, Any]:
    """The facts of a checkpoint about the users that a file brings to a run with this seed."""
    facts: dict[str, Any] = {"home": brought.home} if brought.home else {}
    if facts and isinstance(agent, NetworkPolicy):
        facts["chance_at_home"] = agent.served_chance  # at a team's own place; it learns without
    if brought.heldout_seed not in (None, seed):  # the users know what they were fitted to
        facts["heldout_seed"] = brought.heldout_seed
    return facts


def _of_items(config: Config, resumed: Checkpoint | None) -> Checkpoint | None:
    """The checkpoint whose items a new run has; None for a resumed one, and for items from elsewhere.

    With a file of items beside it, it is laid over these: they can be shown from now on. The others that it
    knows can't, but stay known, as older decisions of a log show them.
    """
    path = getattr(config.agent_config, "checkpoint", None)
    if path is None or resumed is not None:
        return None
    there, tables = load(path, config.env), config.platform.tables
    if tables is None:
        return there
    from recsys_rl.checkpoint.stock import encoding_of, joined, over  # polars
    from recsys_rl.data.tables.items import check_columns, read_items, stock_items

    find_items: Callable[[Any], str | None] = tables.items_of_log
    file = config.data_config.items or find_items(getattr(config.agent_config, "log", None) or ())
    if file is None:
        return there
    column = tables.columns(config.env_config).get("item", "item")
    facts = read_items(file, column, bool(there.catalogue.item_names), encoding_of(there).columns)
    check_columns(file, facts, encoding_of(there).columns)
    last = None
    if facts.clock == "time":
        log = tables.open_log(config.agent_config.log, config.data_config, config.env_config, there.catalogue)
        last = log.tables.last_time
    items = joined(there, stock_items(facts.ids, facts, last), goes_on=False, clock=facts.clock)
    return over(there, items, learns=True, clock=facts.clock)


def _split(config: Config, resumed: Checkpoint | None, items: Checkpoint | None) -> int:
    """The seed by which users of a log are held out: with --checkpoint its own, as it knows the others.

    Raises UserError for another share of held-out users than that of the checkpoint.
    """
    source = items or resumed
    if source is None or getattr(config.agent_config, "checkpoint", None) is None:
        return config.train_config.seed
    (share, seed), own = split_of(source), config.data_config.heldout_fraction
    check_used(("heldout_fraction", share != own, f"that of --checkpoint is {share:g}"))
    return seed


def _hold_out_as_there(run: Run, seed: int, new: bool) -> None:
    """Write down that users are held out by the seed of --checkpoint; a ``new`` run says so."""
    run.info["heldout_seed"] = seed
    there = getattr(run.config.agent_config, "checkpoint", None)
    line = (
        f"users are held out as in {there}, by seed {seed} and not by --seed {run.config.train_config.seed}: "
        "its items and encodings know the others"
    )
    run.note = "\n".join(filter(None, [run.note, line if new else ""]))


def _world(config: Config, resumed: Checkpoint | None, items: Checkpoint | None, ranks: Ranks) -> World:
    source = resumed or items
    if source is not None:
        return source.world
    with ranks.in_turn():  # the first rank downloads data and learns embeddings into the cache
        return make_world(config)
