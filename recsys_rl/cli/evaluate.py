"""`recsys-rl evaluate`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro
from tyro.constructors import PrimitiveConstructorSpec

from recsys_rl.cli.parse import checked, parse
from recsys_rl.cli.tasks import TaskOptions, shared_by
from recsys_rl.errors import UserError
from recsys_rl.evaluation.evaluate import evaluate
from recsys_rl.evaluation.options import EvaluateConfig

TEXT = """Evaluate a checkpoint: its policy and each baseline play one whole session with every held-out user.

Examples:
  recsys-rl evaluate                                      the checkpoint of the latest run
  recsys-rl evaluate --algo a2c --json table.json         checkpoints/a2c.pt, table to a file
  recsys-rl evaluate old.pt --report                      report.html in the folder of old.pt
  recsys-rl evaluate ppo.pt ranker.pt                     both in one table, with their difference
  recsys-rl evaluate --algo my_agent:ALGORITHM own.pt ppo.pt   your own algorithm beside ours
  recsys-rl evaluate --users newcomers.csv                new people, from a log of their events
  recsys-rl evaluate --policy linucb --policy lints       with two bandits, which explore in the session
  recsys-rl evaluate --strangers --policy linucb          people without a profile
  recsys-rl evaluate --policy my_policy:Newest            your own policy beside the others
  recsys-rl evaluate in_learned.pt --world satiation      in the simulator, not in the users of its training
  recsys-rl evaluate --no-planner                         without the rows that take most of the time
  recsys-rl evaluate --jobs 2                             the searches of the table, two at a time
  recsys-rl evaluate runs/*/ppo.pt --jobs 8               many seeds, eight tables at a time

Checkpoints with the same items and users share a table. If runs differ only in their seed, each is evaluated
with its own users, and the table holds means over seeds. A policy is an object with act(obs, greedy) ->
Action, a callable that makes one from the catalogue, or a Stable-Baselines3 model. Its module is imported."""


# An option with or without a file: the file's name, or True; False if it is absent.
OPTIONAL_FILE = PrimitiveConstructorSpec[str | bool](
    nargs=(0, 1),
    metavar="[FILE]",
    instance_from_str=lambda words: words[0] if words else True,
    is_instance=lambda value: isinstance(value, str | bool),
    str_from_instance=lambda value: [value] if isinstance(value, str) else ["none"],
)


@dataclass(frozen=True)
class EvaluateOptions(TaskOptions, EvaluateConfig):
    """The options of `evaluate`. Files are given without an option, and --policy may be repeated."""

    files: tyro.conf.Positional[tuple[str, ...]] = ()
    """Checkpoints to evaluate in one table, in place of --checkpoint."""
    report: Annotated[str | bool, OPTIONAL_FILE] = False
    """Write a self-contained HTML page: learning curve, table, sample sessions. Without FILE it is
    report.html in the folder of the run, with --users report-FILE.html, with --world report-NAME.html."""
    policy: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """A further row of the table: linucb or lints, bandits that learn from a user's answers in the session;
    or module:NAME of your own policy: an object with act(obs, greedy), a callable that makes one from the
    catalogue, or a Stable-Baselines3 model. The current folder is searched first."""

    def __post_init__(self) -> None:
        """Check nothing here: the EvaluateConfig made from these options checks the values."""


def run(argv: list[str]) -> None:
    options = _typed(argv)
    with shared_by(options, options.threads) as map_tasks:
        evaluate(checked(EvaluateConfig, options), map_tasks=map_tasks)


def evaluate_options(argv: list[str]) -> EvaluateConfig:
    """The settings from the command line. Raises UserError; `--help` raises SystemExit(0)."""
    return checked(EvaluateConfig, _typed(argv))


def _typed(argv: list[str]) -> EvaluateOptions:
    options = parse(EvaluateOptions, EvaluateOptions(), argv, "recsys-rl evaluate", TEXT)
    if "" in options.files:
        raise UserError(
            "A checkpoint has the empty name '': give the path of a file, or none for the latest."
        )
    if options.files and options.checkpoint is not None:
        raise UserError(
            f"{options.files[0]} and --checkpoint {options.checkpoint} are given: name all files in one way."
        )
    return options
