"""The command `recsys-rl`: train, evaluate. Options are the fields of the dataclasses in config.py."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import io
import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypeVar

import tyro

from recsys_rl import __version__
from recsys_rl import folder as folders
from recsys_rl.config import (
    AGENT_CONFIGS,
    Config,
    EvaluateConfig,
    defaults,
    from_dict,
    overlay,
    read_toml,
    to_dict,
)
from recsys_rl.distributed.launch import launch
from recsys_rl.distributed.place import Place, find_place, obey_parent
from recsys_rl.errors import FieldError, UserError, one_line
from recsys_rl.schema import did_you_mean, shown

T = TypeVar("T")

OVERVIEW = """usage: recsys-rl [--version] [--help] COMMAND [OPTIONS]

Reinforcement learning for recommender systems.

commands:
  train      train PPO or A2C on simulated users made from real ratings
  evaluate   play a checkpoint's policy with held-out users, beside the baselines

`recsys-rl COMMAND --help` lists the options; from a checkout, `python -m COMMAND` is the same."""

TRAIN = """Train a recommender on simulated users.

Examples:
  recsys-rl train                                 PPO on drift, over MovieLens
  recsys-rl train --env satiation --seed 1        users who tire of what they have seen
  recsys-rl train --algo a2c --data synthetic     A2C, on made-up items and users
  recsys-rl train --data ratings.csv --rating-column stars
  recsys-rl train --env gym:CartPole-v1           anyone's Gymnasium environment
  recsys-rl train --config run.toml --lr 1e-3     a file's settings, but for one
  recsys-rl train --num-processes 2               two processes that average their gradients
  recsys-rl train --seeds 0-4                     five runs, one after another
  recsys-rl train --resume                        go on with the latest run, that behind checkpoints/ppo.pt
  recsys-rl train --run runs/drift-movielens-ppo-0          go on with another

Each run makes a folder of its own in runs/, which holds its settings, log and checkpoints, and
checkpoints/ppo.pt becomes a link to its checkpoint.

The defaults shown are those of the chosen --algo and --env. Settings in the file of --config replace
them, and options given here replace both. A run that is resumed keeps its own settings; only intervals, data
folders and threads may be given anew, and it goes on on the kind of device (cpu, cuda) that it began on."""

EVALUATE = """Evaluate a checkpoint: every held-out user plays one whole session with it and each baseline.

Examples:
  recsys-rl evaluate                                      checkpoints/ppo.pt
  recsys-rl evaluate --algo a2c --json table.json         checkpoints/a2c.pt, table to a file
  recsys-rl evaluate --checkpoint old.pt --report old.html
  recsys-rl evaluate ppo.pt ranker.pt                     both in one table, with their difference
  recsys-rl evaluate --policy my_policy:Newest            a policy of yours beside the others

Checkpoints of one world share a table. Of runs that differ in their seed alone, each is evaluated in its
own world, and the table holds means over seeds. A policy is an object with act(obs, greedy) -> Action, a
callable that makes one from the catalogue, or a Stable-Baselines3 model; its module is imported."""


@dataclass(frozen=True)
class Draft(Config):
    """One run, whole."""

    def check_together(self) -> None:
        """Nothing yet: a file's half of the settings may need the flags' half."""


@dataclass(frozen=True)
class TrainOptions:
    """Options of `train`."""

    draft: Annotated[Draft, tyro.conf.arg(name="")]
    config: str | None = None
    """TOML file of settings by section, as in [env_config] num_items = 500. Each run writes one."""
    resume: bool = False
    """Go on with the run behind checkpoints/<algo>.pt, whose settings it takes, as if never interrupted."""
    run: str | None = None
    """Go on with the run in this folder in the same way."""
    seeds: str | None = None
    """Make a run for each of these seeds, one after another: 0-4, or 0,2,5."""


class Job(NamedTuple):
    """The runs of one command `train`."""

    config: Config
    folder: Path | None = None  # of the run that goes on; None: a new one
    seeds: tuple[int, ...] = ()  # of several new runs
    note: str = ""  # for the user, about the settings

    def configs(self) -> list[Config]:
        """The settings of each run."""
        settings = self.config.train_config
        return [
            dataclasses.replace(
                self.config,
                train_config=dataclasses.replace(
                    settings, seed=seed, name=None if settings.name is None else f"{settings.name}-{seed}"
                ),
            )
            for seed in self.seeds
        ] or [self.config]


@dataclass(frozen=True)
class EvaluateOptions(EvaluateConfig):
    """The options of `evaluate`; files need no option, and --policy may be given several times."""

    files: tyro.conf.Positional[tuple[str, ...]] = ()
    """Checkpoints to evaluate in one table, in place of --checkpoint."""
    policy: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """module:NAME of a policy of yours, which gets a row too: an object with act(obs, greedy), a callable
    that makes one from the catalogue, or a Stable-Baselines3 model. The current folder is searched first."""

    def __post_init__(self) -> None:
        """The values are checked in the EvaluateConfig that is made of them."""


def main(argv: list[str] | None = None) -> int:
    """Run a command; the exit code is 0, 2 for a user's mistake, or 130 after Ctrl-C."""
    argv = sys.argv[1:] if argv is None else argv
    try:
        return _dispatch(argv)
    except UserError as error:
        said = _as_typed(error, argv) if isinstance(error, FieldError) else error
        print(f"error: {one_line(said)}", file=sys.stderr)
        return 2
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and "alloc" not in str(error) and "memory" not in str(error):
            raise
        print(
            "error: the memory of this machine does not hold it: lower the sizes asked for.", file=sys.stderr
        )
        return 2
    except SystemExit as stop:  # tyro has printed its help
        return int(stop.code or 0)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `| head` has read enough; what is still buffered goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _as_typed(error: FieldError, argv: list[str]) -> str:
    """The complaint by the option's name; by the field's where it isn't typed and there is a --config."""
    typed = {word.partition("=")[0].replace("_", "-").replace("--no-", "--") for word in argv}
    if "--config" in typed and error.option not in typed:
        return str(error)
    return f"{error.option} {error.complaint}"


def _dispatch(argv: list[str]) -> int:
    commands: dict[str, Callable[[list[str]], None]] = {"train": _train, "evaluate": _evaluate}
    first = argv[0] if argv else "--help"
    if first in ("-h", "--help"):
        print(OVERVIEW)
    elif first == "--version":
        print(f"recsys-rl {__version__}")
    elif first in commands:
        commands[first](argv[1:])
    else:
        near = did_you_mean(first, commands)
        raise UserError(f"There is no command {first!r}{near}: choose from {', '.join(commands)}.")
    return 0


def _train(argv: list[str]) -> None:
    place = find_place()
    if place is not None:  # what torch would say in fifty lines, we say in a sentence
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "FATAL")
    requests = None if place is None or place.listener is None else obey_parent()
    job = train_options(argv)
    if job.note and (place is None or (place.rank == 0 and place.listener is None)):
        print(job.note, file=sys.stderr)
    if place is not None and job.seeds:
        raise UserError("--seeds makes runs one after another: with torchrun, give --seed to each of them.")
    configs = job.configs()
    if job.seeds:
        for config in configs:  # all of them before the first begins
            folders.check_free(config)
    for number, config in enumerate(configs):
        try:
            if place is None and config.train_config.num_processes > 1:
                launch(_argv_of_rank(argv, job, config), config.train_config.num_processes)
            else:
                _train_here(place, requests, config, job.folder)
        except (KeyboardInterrupt, UserError):
            left = ", ".join(str(later.train_config.seed) for later in configs[number + 1 :])
            if left:
                print(f"Seeds that were not begun: {left}", file=sys.stderr)
            raise


def _train_here(place: Place | None, requests: list[int] | None, config: Config, folder: Path | None) -> None:
    """One run, or this process's part of it; ``folder`` is that of a run that goes on."""
    from recsys_rl.workflows.train import (  # here, as torch takes longer to import than --help may
        Interrupted,
        train,
    )

    resume = folder is not None
    try:
        if place is None:
            train(config, resume, folder=folder, latest=True)
            return
        from recsys_rl.distributed.group import join
        from recsys_rl.run import choose_device

        config = place.settle(config)
        settings = config.train_config
        cuda = choose_device(settings.device).type == "cuda"
        with join(place, requests, settings.join_timeout, cuda) as ranks:
            train(config, resume, ranks, folder=folder, latest=True)
    except Interrupted as stop:
        if place is None or place.rank == 0:
            with contextlib.suppress(OSError):  # a terminal that was closed
                print(stop, file=sys.stderr)
        raise KeyboardInterrupt from None


def _argv_of_rank(argv: list[str], job: Job, config: Config) -> list[str]:
    """Of the processes of one run: its own seed and name, and the folder that ``--resume`` found."""
    settings = config.train_config
    if job.folder is not None:
        return [*_without(argv, ("run",), ("resume",)), "--run", str(job.folder)]
    if job.seeds:
        name = [] if settings.name is None else ["--name", settings.name]
        return [*_without(argv, ("seeds", "name")), "--seed", str(settings.seed), *name]
    return argv


def _without(argv: list[str], options: tuple[str, ...], flags: tuple[str, ...] = ()) -> list[str]:
    """``argv`` without these options and their values, and without these flags."""
    kept, words = [], iter(argv)
    for word in words:
        name, equals, _ = word.partition("=")
        if name.removeprefix("--") in options and name.startswith("--"):
            if not equals:
                next(words, None)
        elif not (name.startswith("--") and name.removeprefix("--") in flags):
            kept.append(word)
    return kept


def _evaluate(argv: list[str]) -> None:
    options = evaluate_options(argv)
    from recsys_rl.workflows.evaluate import evaluate

    evaluate(options)


def train_options(argv: list[str]) -> Job:
    """The settings, and which run goes on. Raises UserError; `--help` raises SystemExit(0)."""
    given = _peek(argv, "algo", "env", "config", "run")
    settings = {} if given.config is None else _read_settings(Path(given.config), given.env is not None)
    typed = {name: getattr(given, name) for name in ("algo", "env") if getattr(given, name) is not None}
    if given.run is not None:
        typed.setdefault("algo", folders.algo_of(Path(given.run)))
    chosen = {"algo": Config.algo, "env": Config.env, **settings, **typed}
    options = _parse_train(argv, to_dict(defaults(chosen["algo"], chosen["env"])), settings, typed)
    folder = None
    if options.resume or options.run is not None:
        _check_continuation(options)
        folder = folders.latest(options.draft.algo) if options.run is None else Path(options.run)
        # The same again, over the settings of the run that the first reading found.
        run = _settings_of_run(folder, options.draft.algo, given.env is not None)
        options = _parse_train(argv, run, settings, typed)
        draft = options.draft.train_config
        if draft.name is not None or draft.runs_dir != run["train_config"]["runs_dir"]:
            raise UserError(
                f"The run in {folder} keeps its folder: leave --name and --runs-dir out, or start a new run."
            )
    fields = {f.name: getattr(options.draft, f.name) for f in dataclasses.fields(Config)}
    note = _note_of_file(given.config, settings, chosen)
    return Job(Config(**fields), folder, _seeds(options, argv), note)


def _check_continuation(options: TrainOptions) -> None:
    if options.resume and options.run is not None:
        raise UserError("--resume goes on with the latest run and --run with another: give one of them.")
    if options.seeds is not None:
        raise UserError("--seeds makes new runs: leave it out to go on with one.")


def _note_of_file(file: str | None, settings: dict[str, Any], chosen: dict[str, Any]) -> str:
    """A sentence where dials that were chosen for another problem come along."""
    whose = {"algo": Config.algo, "env": Config.env, **settings}
    if file is None or all(whose[name] == chosen[name] for name in ("algo", "env")):
        return ""
    return (
        f"--config {file} is for {whose['algo']} on {whose['env']}: what it sets replaces the preset of "
        f"{chosen['algo']} on {chosen['env']}."
    )


def _seeds(options: TrainOptions, argv: list[str]) -> tuple[int, ...]:
    """0-4 or 0,2,5 (or both: 0-2,7) as numbers, none of them twice."""
    if options.seeds is None:
        return ()
    if _peek(argv, "seed").seed is not None:
        raise UserError("--seed is one run's, and --seeds are those of several: give one of them.")
    found: list[int] = []
    for part in options.seeds.split(","):
        ends = re.fullmatch(r"\s*(\d{1,10})(?:-(\d{1,10}))?\s*", part)
        low, high = (int(ends[1]), int(ends[2] or ends[1])) if ends else (1, 0)
        if not low <= high < 2**32 or high - low >= 1000:
            raise UserError(
                f"--seeds is {shown(options.seeds)}: give seeds as 0-4 or 0,2,5, each at most 4294967295 and "
                "at most 1000 of them."
            )
        found += range(low, high + 1)
    return tuple(dict.fromkeys(found))


def _parse_train(
    argv: list[str], base: dict[str, Any], settings: dict[str, Any], typed: dict[str, Any]
) -> TrainOptions:
    """Options over settings of the file over ``base``."""
    try:
        draft = from_dict(Draft, overlay(overlay(base, settings), typed))
    except FieldError as error:  # of the file, even where an option replaces it
        raise UserError(str(error)) from None
    see = f"recsys-rl train --algo {draft.algo} --help"
    return _parse(TrainOptions, TrainOptions(draft), argv, "recsys-rl train", TRAIN, see)


def _settings_of_run(folder: Path, algo: str, env_is_typed: bool) -> dict[str, Any]:
    """The settings in the checkpoint to resume."""
    from recsys_rl.checkpoint import check_algo, load  # imports torch, for which --help may not wait

    path = folder / f"{algo}.pt"
    checkpoint = load(path)
    check_algo(path, checkpoint, algo)
    settings = to_dict(checkpoint.config)
    _check_no_module(str(path), settings["env"], env_is_typed)
    return settings


def evaluate_options(argv: list[str]) -> EvaluateConfig:
    """Raises UserError; `--help` raises SystemExit(0)."""
    given = _peek(argv, "algo", "checkpoint")
    default = EvaluateOptions()
    if given.algo in AGENT_CONFIGS:
        default = EvaluateOptions(checkpoint=f"checkpoints/{given.algo}.pt")
    see = "recsys-rl evaluate --help"
    options = _parse(EvaluateOptions, default, argv, "recsys-rl evaluate", EVALUATE, see)
    if options.files and given.checkpoint is not None:
        raise UserError(
            f"{options.files[0]} and --checkpoint {given.checkpoint} are given: name all files in one way."
        )
    return EvaluateConfig(**{f.name: getattr(options, f.name) for f in dataclasses.fields(EvaluateConfig)})


def _peek(argv: list[str], *names: str) -> Any:
    """The options on which the defaults of all the others depend; None where absent."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for name in names:
        parser.add_argument(f"--{name}", nargs="?")
    return parser.parse_known_args(argv)[0]


def _read_settings(path: Path, env_is_typed: bool) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise UserError(f"--config {path} can't be read ({error}): give a TOML file.") from error
    settings = read_toml(text, f"--config {path}")
    _check_no_module(f"--config {path}", str(settings.get("env")), env_is_typed)
    return settings


def _check_no_module(source: str, env: str, env_is_typed: bool) -> None:
    if env.count(":") > 1 and not env_is_typed:
        raise UserError(f"{source} names a module to import, as no file may: type --env {env}.")


def _parse(cls: type[T], default: T, argv: list[str], prog: str, description: str, see: str) -> T:
    """Parse with tyro, whose complaints become a UserError of one sentence."""
    drawing = io.StringIO()
    try:
        with contextlib.redirect_stderr(drawing):
            options, unknown = tyro.cli(
                cls,
                prog=prog,
                description=description,
                args=argv,
                default=default,
                return_unknown_args=True,
                config=(tyro.conf.OmitArgPrefixes, tyro.conf.AvoidSubcommands),
            )
    except SystemExit as stop:
        if not stop.code:
            raise
        raise UserError(f"{_complaint(drawing.getvalue())} See {see}.") from None
    if unknown:
        name = unknown[0].partition("=")[0]
        if cls is EvaluateOptions and not name.startswith("-"):
            raise UserError(f"There is no place for {name!r} here: name files side by side; see {see}.")
        if name.replace("_", "-") in ("--log-dir", "--checkpoint-dir"):
            raise UserError(
                f"{name} is of an earlier version: each run has a folder of its own now, in --runs-dir."
            )
        near = did_you_mean(name, _option_names(default))
        raise UserError(f"There is no option {name}{near}: see {see}.")
    return options


def _complaint(drawing: str) -> str:
    """The sentence below the title in what tyro draws: title, rule, sentence, rule, help; framed or not."""
    plain = re.sub(r"\x1b\[[0-9;]*m|[╭╮╰╯│]", "", drawing)
    parts = [" ".join(part.split()) for part in re.split("─+|-{4,}", plain)]
    title, *rest = [part for part in parts if part]
    return (rest[0] if rest else title).rstrip(".") + "."


def _option_names(options: Any) -> list[str]:
    names = []
    for f in dataclasses.fields(options):
        value = getattr(options, f.name)
        names += (
            _option_names(value) if dataclasses.is_dataclass(value) else ["--" + f.name.replace("_", "-")]
        )
    return names


if __name__ == "__main__":  # as launch.py starts it, and `torchrun --nproc-per-node 2 -m recsys_rl.cli train`
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # all is written; threads of gloo have been seen to abort an interpreter that winds down
