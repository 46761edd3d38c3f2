"""`recsys-rl evaluate` of a policy of people's own tables: no simulator plays, estimates are printed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from recsys_rl.checkpoint import Checkpoint
from recsys_rl.errors import UserError, one_line
from recsys_rl.logs.judges.judge_run import ESTIMATES
from recsys_rl.logs.ope.verdict import read_verdicts, verdict_lines
from recsys_rl.utils.progress import announce
from recsys_rl.utils.terminal import say


def print_estimates(path: Path, checkpoint: Checkpoint) -> dict[str, Any]:
    """Print the small table that `train` wrote beside the checkpoint at ``path``. Returns its values.

    Raises UserError without such a file.
    """
    log = one_line(" + ".join(Path(file).name for file in checkpoint.config.agent_config.log))
    file = path.resolve().with_name(ESTIMATES)
    judge = f"recsys-rl ope --log FILE --checkpoint {path}"
    if not file.is_file():
        raise UserError(
            f"{path} is of {log or 'a log'}, which has no simulator that could play a policy, and no "
            f"{ESTIMATES} is beside it: judge it on a log with {judge}."
        )
    try:
        values = json.loads(file.read_bytes())
        table, headline = read_verdicts(values["verdicts"]), str(values["headline"])
    except (OSError, ValueError, KeyError, TypeError, UserError) as error:
        raise UserError(
            f"{path} is of {log}, which has no simulator, and {file} holds no table of estimates: judge it "
            f"on a log with {judge}."
        ) from error
    announce(
        f"{path} is of {log}, which has no simulator that could play a policy: these are the estimates on "
        f"the held-out side of that log; on a newer one, {judge}"
    )
    for line in verdict_lines(table, headline):
        say(line)
    return {"headline": headline, "verdicts": [row.values() for row in table]}
