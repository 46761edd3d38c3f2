"""Checks of the options judge_log and world of a run."""

from __future__ import annotations

from recsys_rl.errors import FieldError
from recsys_rl.evaluation.worlds import check_world
from recsys_rl.settings.config import Config
from recsys_rl.settings.fields import shown
from recsys_rl.types import UserError


def check_judged(config: Config) -> None:
    """Raise FieldError for a judgement that this run can't have, and for options that then have no effect."""
    settings = config.train_config
    check_world(settings.world)
    for name in ("judge_log", "world"):
        value = getattr(settings, name)
        if value is None:
            continue
        if name == "judge_log" and config.platform.file is None:
            raise FieldError(
                f"train_config.{name}",
                f"is {shown(value)}: it judges runs in users who were learned from a log, and {config.env} "
                "has none; leave it out (recsys-rl ope judges a finished policy).",
            )
        if not settings.eval_interval:
            raise FieldError(
                f"train_config.{name}", f"is {shown(value)}: it needs evaluations; give an eval_interval."
            )
        if name == "judge_log" and settings.num_processes > 1:
            raise UserError(
                f"--judge-log needs a single process, and num_processes is {settings.num_processes}: leave "
                "one of them out."
            )
