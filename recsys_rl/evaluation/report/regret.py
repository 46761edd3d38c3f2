"""The regret of policies after each step of a session, as lines of one chart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from recsys_rl.evaluation.report.drawing import number, short_name, sizes, text
from recsys_rl.evaluation.report.lines import drawn_lines, lines_svg
from recsys_rl.evaluation.report.page import Row


def regret_html(regret_by_step: Row | None = None, yardstick: str | None = None) -> str:
    """The section of the page; "" without a regret, or where no row can be drawn."""
    regret = regret_by_step or {"steps": {}}
    lines = drawn_lines(regret["steps"], yardstick)
    if not lines:
        return ""
    versus, users = text(regret["versus"]), number(regret["users"], 0)
    note = (
        f"Regret after each step: the reward that {versus} has earned until then, minus that of the policy; "
        f"the mean over {users} users, who earn nothing after they have left. A line that has become level "
        f"loses nothing more: the policy now earns as much as {versus}."
    )
    drawn = sizes(lambda px: regret_svg(lines, str(regret["versus"]), width=px))
    return f'<h2>Regret by step</h2><p class="note">{note}</p>{drawn}'


def regret_svg(lines: Mapping[str, Sequence[float]], versus: str, *, width: int = 760) -> str:
    """The chart of ``lines``, as ``lines_svg`` takes them."""
    return lines_svg(lines, f"regret against {short_name(versus)}", f"Regret against {versus}", width=width)
