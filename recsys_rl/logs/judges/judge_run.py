"""The judgement of a run without a simulator: `ope` on the held-out users of its log."""

from __future__ import annotations

import sys
from itertools import chain
from pathlib import Path

from recsys_rl.evaluation.checkpoints import row_name
from recsys_rl.logs.ope.config import OpeConfig
from recsys_rl.logs.ope.ope import ope
from recsys_rl.logs.source import Place, open_log
from recsys_rl.logs.writer import DecisionWriter
from recsys_rl.training.run import Run
from recsys_rl.types import UserError

HELDOUT, ESTIMATES = "heldout.parquet", "ope.json"
"""The files beside a checkpoint: the decisions on which its policy is judged, and all estimates."""


def judge_run(run: Run, checkpoint: Path) -> None:
    """Write the held-out decisions of the run's log beside its ``checkpoint``, and judge the policy on them.

    The table of ``ope`` is printed, and written as ope.json; a finished run that has one is not judged again.
    If ``ope`` can't judge the policy, the reason is printed: the run itself is whole.
    """
    path, answer = checkpoint.with_name(HELDOUT), checkpoint.with_name(ESTIMATES)
    if answer.exists():
        return
    log = open_log(run.config.agent_config.log, Place.of_run(run.config, run.world))
    pieces = log.heldout_parts()
    first = next(pieces, None)
    if first is None:
        print(
            f"{log.name} holds no decisions of held-out users, so nothing here can judge the policy: "
            "`recsys-rl record --users all` records them, and `recsys-rl evaluate` plays a simulator.",
            file=sys.stderr,
        )
        return
    with DecisionWriter(path, first.header) as writer:
        for piece in chain([first], pieces):
            writer.write(piece)
    print("judging the policy on the held-out users of the log", file=sys.stderr)
    options = OpeConfig(
        log=(str(path),),
        checkpoint=str(checkpoint),
        env=run.config.env,
        policy=(row_name(run.config),),
        json=str(answer),
        threads=run.config.train_config.threads,
    )
    try:
        ope(options)
    except UserError as error:
        print(f"the policy is trained, and not judged: {error}", file=sys.stderr)
