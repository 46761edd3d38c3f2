"""Regret by step: how much a policy has lost by each step of a session, against one that knows the user.

With r_t the reward of a policy in step t, and c_t that of the ceiling with the same user, the regret after
step t is the mean over users of sum_{k <= t} (c_k - r_k). A user who has left earns nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from recsys_rl.evaluation.report.drawing import number, short_name
from recsys_rl.evaluation.report.lines import lines_html
from recsys_rl.evaluation.report.page import Page, Picture, Row
from recsys_rl.evaluation.table import ORACLE, Played

CEILINGS = ("informed", ORACLE)
"""Rows that know the profile, or the user: the first of these that was played is the ceiling."""


def regret_by_step(played: Mapping[str, Played]) -> dict[str, Any]:
    """The regret of each row after each step, over the users that the ceiling has played too.

    Returns: ``versus``, the ceiling; ``users``, their number; ``steps`` {row: [regret after step 1, 2, ...]}.
    Without a ceiling ``versus`` is "" and there are no rows.
    """
    ceiling = next((name for name in CEILINGS if name in played), "")
    if not ceiling:
        return {"versus": "", "users": 0, "steps": {}}
    best = played[ceiling]
    lost_by_policy = {}
    for name, other in played.items():
        if name != ceiling:
            common = best.places[torch.isin(best.places, other.places)]
            earned = [_earned(played, common) for played in (best, other)]  # (T, n) each
            steps = max(len(row) for row in earned)
            lost = _lengthened(earned[0], steps) - _lengthened(earned[1], steps)
            lost_by_policy[name] = lost.double().mean(1).tolist()
    return {"versus": ceiling, "users": len(best.places), "steps": lost_by_policy}


def mean_regret_by_step(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The mean over seeds of ``regret_by_step`` for the rows that all seeds have; ``users`` are added up."""
    curves = {}
    for name in results[0]["steps"]:
        if all(name in result["steps"] for result in results):
            rows = [torch.tensor(result["steps"][name]) for result in results]
            length = max(map(len, rows))
            curves[name] = torch.stack([_lengthened(row, length) for row in rows]).mean(0).tolist()
    users = sum(result["users"] for result in results)
    return {"versus": results[0]["versus"], "users": users, "steps": curves}


def _earned(played: Played, places: Tensor) -> Tensor:
    """(T, n): rewards so far of the users at ``places``."""
    return played.sessions.rewards[:, torch.isin(played.places, places)].cumsum(0)


def _lengthened(earned: Tensor, steps: int) -> Tensor:
    """``earned`` (T, ...) as (steps, ...): after the last session's end nothing changes."""
    return torch.cat([earned, earned[-1:].expand(steps - len(earned), *earned.shape[1:])])


def regret_html(regret: Row | None, page: Page) -> str:
    """The section of the page; "" without a regret, or where no row can be drawn."""
    if regret is None:
        return ""
    versus, users = str(regret["versus"]), number(regret["users"], 0)
    note = (
        f"Regret after each step: the reward that {versus} has earned until then, minus that of the policy; "
        f"the mean over {users} users, who earn nothing after they have left. A line that has become level "
        f"loses nothing more: the policy now earns as much as {versus}."
    )
    title, said = f"regret against {short_name(versus)}", f"Regret against {versus}"
    return lines_html("Regret by step", note, regret["steps"], page, title, said)


REGRET = Picture("regret", lambda evaluated: evaluated.result.get("regret_by_step"), regret_html)
