"""`recsys-rl train`, with the options of the chosen platform, algorithm and source."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import tyro

from recsys_rl.agents import AGENTS
from recsys_rl.cli.parse import checked, parse, peek
from recsys_rl.cli.tasks import TaskOptions, shared_by, tasks_in
from recsys_rl.env import PLATFORMS
from recsys_rl.errors import FieldError, UserError, one_line
from recsys_rl.settings.config import (
    Config,
    TrainConfig,
    brought_settings,
    data_name,
    overlay,
    read_toml,
    section_classes,
    sections_from,
    to_dict,
)
from recsys_rl.settings.fields import check_fields, check_used, hints
from recsys_rl.settings.names import (
    DEFAULT_ALGO,
    DEFAULT_ENV,
    algorithm_of,
    checkpoint_name,
    names_a_module,
    names_a_source,
    platform_of,
    source_of,
)
from recsys_rl.training import folder as folders
from recsys_rl.training.ranks import is_first, size_of_run
from recsys_rl.utils.files import read_text
from recsys_rl.utils.seeding import parse_seeds

TEXT = """Train a recommender on simulated users.

Examples:
  recsys-rl train                                 PPO on drift, over MovieLens
  recsys-rl train --env satiation --seed 1        users who tire of repetition
  recsys-rl train --algo a2c --data synthetic     A2C, on made-up items and users
  recsys-rl train --data ratings.csv --rating-column stars
  recsys-rl train --env gym:CartPole-v1           any Gymnasium environment
  recsys-rl train --algo my_agent:ALGORITHM       your own algorithm, in my_agent.py
  recsys-rl train --config run.toml --lr 1e-3     the settings of a file, with another learning rate
  recsys-rl train --algo bc --env satiation --log log.parquet     clone the policy that made a log
  recsys-rl train --algo cql --env satiation --log log.parquet    learn a better policy from that log
  recsys-rl train --seeds 0-4                     five runs, one after another
  recsys-rl train --seeds 0-19 --jobs 8           twenty runs, eight at a time
  recsys-rl train --resume                        resume the latest run, behind checkpoints/ppo.pt
  recsys-rl train --run runs/drift-movielens-ppo-0          resume another run

Each run has its own folder in runs/ with its settings, log and checkpoints, and checkpoints/ppo.pt becomes a
link to its checkpoint.

The options and defaults shown belong to the chosen --algo, --env and --data. Settings in the file of --config
replace the defaults, and options given here replace both. A resumed run keeps its own settings. Only
intervals, data folders and threads may be changed. It must run on the same kind of device (cpu, cuda) as
before."""


MAIN = (
    *("algo", "env", "config", "run", "seeds", "resume", "jobs"),
    *("data", "items", "event_weights", "num_users", "user_model", "log", "checkpoint"),
    *("num_items", "embedding_dim", "max_episode_steps", "visits"),
    *("encoder", "head", "hidden_dims", "candidates"),
    *("lr", "gamma", "ent_coef", "clip_eps", "n_steps", "num_envs", "batch_size", "update_epochs"),
    *("total_timesteps", "name", "seed", "device", "threads", "init_from", "weights", "limit"),
)
"""The fields that ``--help`` lists, where the run has them: those that README and docs use."""


@dataclasses.dataclass(frozen=True)
class RunOptions(TrainConfig):
    """The settings of the run as options; --limit may be repeated."""

    limit: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """A limit on a stream, as in "ads<=0.1" or "watch>=0.5" (in quotes), kept by a Lagrange multiplier. It
    may be repeated. --limit help lists the streams of the platform."""
    num_processes: tyro.conf.Suppress[tyro.conf.Fixed[int]] = 1


class Job(NamedTuple):
    """The runs of one command `train`."""

    config: Config
    folder: Path | None = None  # folder of the run to resume; None for a new run
    seeds: tuple[int, ...] = ()  # seeds of several new runs
    note: str = ""  # message to the user about the settings
    lists_limits: bool = False  # --limit help: print the streams of the platform in place of training
    tasks: TaskOptions = TaskOptions()  # the processes that share the seeds
    quiet: bool = False

    def configs(self) -> list[Config]:
        """The settings of each seed. The link of init_from is followed once, as each run changes it."""
        config = folders.with_init_behind(self.config)
        settings, name = config.train_config, config.train_config.name
        names = [None if name is None else f"{name}-{seed}" for seed in self.seeds]
        each = [dataclasses.replace(settings, seed=x, name=y) for x, y in zip(self.seeds, names, strict=True)]
        return [dataclasses.replace(config, train_config=one) for one in each]


def run(argv: list[str]) -> None:
    started = size_of_run()
    if started > 1:  # torch would print fifty lines; we print one sentence
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "FATAL")
    job = train_options(argv)
    if job.note and is_first():
        print(job.note, file=sys.stderr)
    if job.lists_limits:
        from recsys_rl.training.about_run import list_streams

        list_streams(job.config)
    elif job.seeds:
        _train_seeds(job, started)
    else:
        _train_here(job.config, job.folder, started > 1, job.quiet)


def _train_seeds(job: Job, started: int) -> None:
    """Train the runs of all seeds, one after another or in the processes that share them."""
    if started > 1:
        raise UserError("--seeds does not work with torchrun: start one run for each seed, with --seed.")
    configs = job.configs()
    for config in configs:  # check all before the first run begins
        folders.check_free(config)
    if job.tasks != TaskOptions():
        from recsys_rl.training.train_seeds import train_seeds

        with shared_by(job.tasks, configs[0].train_config.threads) as map_tasks:
            train_seeds(configs, map_tasks, job.quiet)
        return
    for number, config in enumerate(configs, 1):
        try:
            _train_here(config, None, False, job.quiet)
        except (KeyboardInterrupt, UserError):
            if rest := ", ".join(str(later.train_config.seed) for later in configs[number:]):
                print(f"Seeds not started: {rest}", file=sys.stderr)
            raise


def _train_here(config: Config, folder: Path | None, in_group: bool, quiet: bool) -> None:
    """Train one run, or this process's part of it; ``folder`` is the folder of a run to resume."""
    from recsys_rl.training.train import Interrupted, train

    try:
        if not in_group:
            train(config, folder is not None, folder=folder, latest=True, quiet=quiet)
            return
        from recsys_rl.distributed.group import join, sized
        from recsys_rl.training.run import choose_device

        config = sized(config)
        with join(choose_device(config.train_config.device).type == "cuda") as ranks:
            train(config, folder is not None, ranks, folder=folder, latest=True, quiet=quiet)
    except Interrupted as stop:
        if is_first():
            with contextlib.suppress(OSError):  # the terminal may be closed
                print(stop, file=sys.stderr)
        raise KeyboardInterrupt from None


def train_options(argv: list[str]) -> Job:
    """The settings, and the run to resume. Raises UserError; `--help` raises SystemExit(0)."""
    peeked = peek(argv, "algo", "env", "data", "config", "run", "checkpoint", "log")
    if peeked.log:
        from recsys_rl.cli.logs import with_log  # polars

        argv = with_log(argv, peeked)
    if names_a_source(peeked.data):
        source_of(peeked.data, typed=True)
    if peeked.algo is not None:
        algorithm_of(peeked.algo, typed=True)
    file = {} if peeked.config is None else _read_settings(Path(peeked.config), peeked.env)
    typed = {name: getattr(peeked, name) for name in ("algo", "env") if getattr(peeked, name) is not None}
    folder, base, has_items = None, dict[str, Any](), peeked.checkpoint is not None
    if peeked.run is not None or "--resume" in argv:
        folder, base = _resumed(peeked, argv, {**file, **typed})
        typed["algo"] = base["algo"]
    elif peeked.checkpoint is not None:
        base = _settings_of_items(peeked)
    elif peeked.data is None:
        base = _brought(argv, {"env": DEFAULT_ENV, **file, **typed}["env"])
        has_items = bool(base)
    chosen = {"algo": DEFAULT_ALGO, "env": DEFAULT_ENV, **base, **file, **typed}
    settings, note = _of_chosen(file, chosen, peeked) if file else ({}, "")
    over = overlay(overlay(base, settings), {name: chosen[name] for name in ("algo", "env")})
    if peeked.data is not None:
        over = overlay(over, {"data_config": {"data": peeked.data}})
    if not has_items:
        _check_typed(data_name(over), peeked.data)
    options = _parse(argv, over, peeked.config)
    if folder is not None:
        _check_continuation(options, folder, base)
    return _job(options, argv, folder, note)


def _job(options: Any, argv: list[str], folder: Path | None, note: str) -> Job:
    """The runs of the parsed options. Raises UserError."""
    of_run = checked(TrainConfig, options.train_config)
    lists_limits = "help" in of_run.limit
    if lists_limits:
        of_run = dataclasses.replace(of_run, limit=())
    sections = {f.name: getattr(options, f.name) for f in dataclasses.fields(Config)}
    config = Config(**{**sections, "train_config": of_run})
    alone = options.seeds is None and options.jobs == 1 and options.on is None
    seeds, tasks = ((), TaskOptions()) if alone else _several(options, argv, config)
    return Job(config, folder, seeds, note, lists_limits, tasks, options.quiet)


def _resumed(peeked: Any, argv: list[str], named: Mapping[str, Any]) -> tuple[Path, dict[str, Any]]:
    """The folder of the run to resume, and its settings.

    ``named``: the settings that the file of --config and the options give. Raises UserError.
    """
    if peeked.run is not None and "--resume" in argv:
        raise UserError("--resume resumes the latest run and --run the given run: give one of them.")
    from recsys_rl.checkpoint import check_algo, load

    algo = named.get("algo", DEFAULT_ALGO)
    if peeked.run is not None and peeked.algo is None:
        algo = folders.algo_of(Path(peeked.run))
    folder = folders.latest(algo) if peeked.run is None else Path(peeked.run)
    path = folder / checkpoint_name(algo)
    checkpoint = load(path, peeked.env)
    check_algo(path, checkpoint, algo)
    base = to_dict(checkpoint.config)
    _check_same_world(folder, base, named.get("env", base["env"]), peeked.data)
    return folder, base


def _settings_of_items(peeked: Any) -> dict[str, Any]:
    """The settings of the checkpoint whose items a run from a log has. Raises UserError."""
    from_log = peeked.algo is not None and algorithm_of(peeked.algo).experience.from_log
    check_used(
        (
            "checkpoint",
            not from_log,
            "only with --algo bc and others that learn from a log",
        ),
        ("env", peeked.env is not None, "--checkpoint has its own platform"),
        ("data", peeked.data is not None, "--checkpoint has its own items"),
    )
    from recsys_rl.checkpoint.home import settings_of_items

    return settings_of_items(peeked.checkpoint)


def _brought(argv: list[str], env: str) -> dict[str, Any]:
    """The settings that the file of the platform brings, of users who were learned for example."""
    file = platform_of(env).file if isinstance(env, str) else None
    names = () if file is None else tuple(name.replace("_", "-") for name in file.fields)
    return brought_settings(env, vars(peek(argv, *names)))


def _parse(argv: list[str], settings: Mapping[str, Any], file: str | None) -> Any:
    """Parse the options over these settings, into a dataclass with the fields of Config and the command's."""
    algo, env = settings["algo"], settings["env"]
    try:
        sections = sections_from(settings)
        for name, section in sections.items():
            check_fields(section, name)
    except FieldError as error:
        if file is None:
            raise
        raise UserError(str(error)) from None  # an error of the file, even if an option replaces the value
    of_run = vars(sections["train_config"])
    if peek(argv, "limit").limit is not None:  # options replace those of a file
        of_run = {**of_run, "limit": ()}
    sections["train_config"] = RunOptions(**of_run)

    values = {"algo": algo, "env": env, **sections, "resume": False, "quiet": False}
    kinds = NAMES | {name: type(section) for name, section in sections.items()} | OF_COMMAND
    fields = [(name, kind, values.get(name)) for name, kind in kinds.items()]
    cls = dataclasses.make_dataclass("TrainOptions", fields, bases=(TaskOptions,), frozen=True)
    return parse(cls, cls(), argv, "recsys-rl train", TEXT, MAIN)


def _typed(kind: Any, text: str) -> Any:
    return Annotated[kind, tyro.conf.arg(help=text)]


PLATFORM_TEXT = (
    f"The platform: {', '.join(PLATFORMS)}:Id (gym:CartPole-v1), gym:module:Id, or your own module:PLATFORM."
)
NAMES = {
    "algo": _typed(str, f"The algorithm: {', '.join(AGENTS)}, or your own module:ALGORITHM."),
    "env": _typed(str, PLATFORM_TEXT),
}
OF_COMMAND = {
    "config": _typed(
        str | None,
        "TOML file of settings by section, as in [env_config] num_items = 500; each run writes one.",
    ),
    "run": _typed(
        str | None, "Resume the run in this folder with its own settings, as if it was never interrupted."
    ),
    "seeds": _typed(str | None, "Train one run for each of these seeds, one after another: 0-4, or 0,2,5."),
    "resume": _typed(bool, "Resume the latest run, behind checkpoints/<algo>.pt, with its own settings."),
    "quiet": _typed(
        bool, "Print nothing about the run, and judge no policy on the held-out side of its log."
    ),
}
"""The options of the command before and after the settings."""


def _of_chosen(file: Mapping[str, Any], chosen: Mapping[str, Any], peeked: Any) -> tuple[dict[str, Any], str]:
    """The settings of a file that the chosen platform, algorithm and source have, and a note.

    The note is a message to the user if the file is for another problem, or if a setting is left out.
    """
    whose = {"algo": DEFAULT_ALGO, "env": DEFAULT_ENV, **file}
    if not all(isinstance(whose[name], str) for name in ("algo", "env")):
        return dict(file), ""  # a later check raises the error
    data = data_name(file)
    of_file = section_classes(whose["algo"], whose["env"], data)
    of_run = section_classes(chosen["algo"], chosen["env"], peeked.data or data)
    settings, left_out = dict(file), []
    for name in of_file:
        section = settings.get(name)
        if of_file[name] is not of_run[name] and isinstance(section, Mapping):
            lost = hints(of_file[name]).keys() - hints(of_run[name]).keys()
            gone = [field for field in section if field in lost]
            settings[name] = {field: value for field, value in section.items() if field not in gone}
            left_out += gone
    notes = []
    if any(whose[name] != chosen[name] for name in ("algo", "env")):
        notes.append(
            f"--config {peeked.config} is for {whose['algo']} on {whose['env']}: its settings replace the "
            f"preset of {chosen['algo']} on {chosen['env']}."
        )
    if left_out:
        notes.append(
            f"These settings of --config {peeked.config} are left out, as this run does not have them: "
            f"{', '.join(left_out)}."
        )
    return settings, " ".join(notes)


def _check_same_world(folder: Path, base: Mapping[str, Any], env: str, data: str | None) -> None:
    """Raise UserError if the resumed run would get another platform or other data."""
    of_file = base["data_config"].get("data")
    for name, old, new in (("env", base["env"], env), ("data", of_file, data or of_file)):
        same = name == "data" and old is not None and Path(old).absolute() == Path(new).absolute()
        if old != new and not same:
            raise UserError(
                f"The run in {folder} was made with --{name} {old}, but --{name} is {new} now: leave "
                f"--{name} out to resume, or start a new run without --resume or --run."
            )


def _check_typed(data: object, typed: str | None) -> None:
    """Raise UserError for a source of a module that only a file or the run to resume names."""
    if names_a_source(data) and data != typed:
        raise UserError(
            f"The settings name {one_line(data)} as their data, but a file may not import a module: type "
            f"--data {one_line(data)}."
        )


def _check_continuation(options: Any, folder: Path, base: Mapping[str, Any]) -> None:
    settings, reason = options.train_config, f"the resumed run keeps its folder {folder}"
    check_used(
        ("seeds", options.seeds is not None, "it makes new runs"),
        ("name", settings.name is not None, reason),
        ("runs_dir", settings.runs_dir != base["train_config"]["runs_dir"], reason),
    )


def _several(options: Any, argv: list[str], config: Config) -> tuple[tuple[int, ...], TaskOptions]:
    """The seeds of several runs, and the processes that share them. Raises UserError if they don't fit."""
    tasks, each = tasks_in(options), config.train_config
    alone = options.seeds is None
    check_used(
        ("jobs", alone and tasks.jobs > 1, "only with --seeds"),
        ("on", alone and tasks.on is not None, "only with --seeds"),
        ("seed", peek(argv, "seed").seed is not None, "--seeds gives several"),
        ("record", each.record is not None, "--seeds makes several runs, and each needs its own folder"),
    )
    return parse_seeds(options.seeds), tasks


def _read_settings(path: Path, typed_env: str | None) -> dict[str, Any]:
    settings = read_toml(read_text(path, "--config", "a TOML file"), f"--config {path}")
    env = str(settings.get("env"))
    if names_a_module(env) and typed_env is None:
        raise UserError(f"--config {path} names a module, but a file may not import one: type --env {env}.")
    if names_a_module(env) and typed_env != env and env.partition(":")[0] not in PLATFORMS:
        raise UserError(  # only its module defines its settings, and the user did not type it
            f"--config {path} is for {env}, but --env is {typed_env}: give a file for {typed_env}, or type "
            f"--env {env}."
        )
    return settings
