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
from typing import Annotated, Any, TypeVar

import tyro

from recsys_rl import __version__
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
from recsys_rl.fields import did_you_mean

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
  recsys-rl train --resume                        go on with the run in checkpoints/ppo.pt

The defaults shown are those of the chosen --algo and --env. Settings in the file of --config replace
them, and options given here replace both. A run that is resumed keeps its own settings; only intervals,
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
    """What `train` is told."""

    run: Annotated[Draft, tyro.conf.arg(name="")]
    config: str | None = None
    """TOML file of settings by section, as in [env_config] num_items = 500. Each run logs one."""
    resume: bool = False
    """Go on with --checkpoint-dir's <algo>.pt, whose settings it takes, as if it had not been interrupted."""


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
    config, resume = train_options(argv)
    if place is not None:
        config = place.settle(config)
    elif config.train_config.num_processes > 1:
        launch(argv, config.train_config.num_processes)
        return
    from recsys_rl.train import Interrupted, train  # here, as torch takes longer to import than --help may

    try:
        if place is None:
            train(config, resume)
        else:
            _train_as_rank(place, requests, config, resume)
    except Interrupted as stop:
        if place is None or place.rank == 0:
            print(stop, file=sys.stderr)
        raise KeyboardInterrupt from None


def _train_as_rank(place: Place, requests: list[int] | None, config: Config, resume: bool) -> None:
    from recsys_rl.distributed.group import join
    from recsys_rl.run import choose_device
    from recsys_rl.train import train

    settings = config.train_config
    cuda = choose_device(settings.device).type == "cuda"
    with join(place, requests, settings.join_timeout, cuda) as ranks:
        train(config, resume, ranks)


def _evaluate(argv: list[str]) -> None:
    options = evaluate_options(argv)
    from recsys_rl.evaluate import evaluate

    evaluate(options)


def train_options(argv: list[str]) -> tuple[Config, bool]:
    """The config, and whether to resume. Raises UserError; `--help` raises SystemExit(0)."""
    given = _peek(argv, "algo", "env", "config")
    settings = {} if given.config is None else _read_settings(Path(given.config), given.env is not None)
    typed = {name: getattr(given, name) for name in ("algo", "env") if getattr(given, name) is not None}
    chosen = {"algo": Config.algo, "env": Config.env, **settings, **typed}
    options = _parse_train(argv, to_dict(defaults(chosen["algo"], chosen["env"])), settings, typed)
    if options.resume:  # the same again, over the settings of the run that the first reading found
        folder = options.run.train_config.checkpoint_dir
        run = _settings_of_run(folder, options.run.algo, given.env is not None)
        options = _parse_train(argv, run, settings, typed)
    fields = {f.name: getattr(options.run, f.name) for f in dataclasses.fields(Config)}
    return Config(**fields), options.resume


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


def _settings_of_run(folder: str, algo: str, env_is_typed: bool) -> dict[str, Any]:
    """The settings in the checkpoint to resume, which may have been moved to ``folder`` since."""
    from recsys_rl.checkpoint import check_algo, load  # imports torch, for which --help may not wait

    path = Path(folder) / f"{algo}.pt"
    checkpoint = load(path)
    check_algo(path, checkpoint, algo)
    settings = to_dict(checkpoint.config)
    _check_no_module(str(path), settings["env"], env_is_typed)
    return overlay(settings, {"train_config": {"checkpoint_dir": folder}})


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
