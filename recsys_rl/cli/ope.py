"""`recsys-rl ope`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

import tyro

from recsys_rl.cli.parse import checked, joined, parse
from recsys_rl.cli.tasks import TaskOptions, shared_by
from recsys_rl.errors import UserError
from recsys_rl.logs.ope.answer import EXIT_CODES
from recsys_rl.logs.ope.check_judge import check_judge
from recsys_rl.logs.ope.config import OpeConfig
from recsys_rl.logs.ope.ope import ope
from recsys_rl.settings.fields import check_used

TEXT = """Estimate from a log of decisions the return that a policy would have earned.

Examples:
  recsys-rl ope --log log.parquet                                    checkpoints/ppo.pt, sampled
  recsys-rl ope --log log.parquet --policy ppo --policy popularity --json ope.json
  recsys-rl ope --log log.parquet --compare ppo random               their difference, and is it settled?
  recsys-rl ope --log log.parquet --target mine.parquet              your own policy's probabilities
  recsys-rl ope --log clicks.csv --target mine.csv --compare target logged      your own log
  recsys-rl ope --log newer.csv --checkpoint mine.pt                 a policy that was trained on such a log
  recsys-rl ope --log served.parquet --users heldout --compare new.pt old.pt --verdict new.pt     for scripts
  recsys-rl ope --log parts --policy ppo --jobs 8                    a folder of parts, by eight processes
  recsys-rl ope --check --log clicks.csv                             is the judge right on this log?
  recsys-rl ope --log kuairand-random --target mine.parquet                     a public log

docs/09_logs.md: when the numbers can be trusted."""


@dataclass(frozen=True)
class OpeOptions(TaskOptions, OpeConfig):
    """The options of `ope`; --policy may be repeated."""

    policy: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Row of the evaluation table to judge: ppo, ppo-greedy, random, popularity ..., or the file of a
    further checkpoint, whose policy is sampled (default: the checkpoint's own policy, sampled). Of your own
    log without a checkpoint: random."""
    check: bool = False
    """Try the judge itself on the log of single decisions, where the truth is known: policies that logged,
    from the rows of the others, or made-up ones, to which a part of the log is thinned. One line says in how
    many trials the interval held the truth; the exit code is 0, or 5 if in too few."""

    def __post_init__(self) -> None:
        """Check nothing here: the OpeConfig made from these options checks the values."""


def run(argv: list[str]) -> int:
    """Judge the policies, or try the judge. Returns the exit code of --verdict or --check; 0 without them."""
    options = _typed(argv)
    if options.check:
        why = "--check uses one process"
        check_used(("jobs", options.jobs > 1, why), ("on", options.on is not None, why))
        return check_judge(checked(OpeConfig, options)).exit_code
    with shared_by(options, options.threads) as map_tasks:
        verdict = ope(checked(OpeConfig, options), map_tasks).verdict
    return 0 if verdict is None else EXIT_CODES[verdict.answer]


def ope_options(argv: list[str]) -> OpeConfig:
    """The settings from the command line. Raises UserError; `--help` raises SystemExit(0)."""
    return checked(OpeConfig, _typed(argv))


def _typed(argv: list[str]) -> OpeOptions:
    _check_compare(argv)
    return parse(OpeOptions, OpeOptions(), joined(argv, "log"), "recsys-rl ope", TEXT)


def _check_compare(argv: Sequence[str]) -> None:
    """Raise UserError unless two names follow each --compare."""
    for index, word in enumerate(argv):
        option, equals, first = word.partition("=")
        if option != "--compare":
            continue
        rest = takewhile(lambda argument: not argument.startswith("-"), argv[index + 1 :])
        if len([*rest]) + bool(equals and first) != 2:
            raise UserError("--compare needs two policies, as in --compare ppo random.")
