"""Three figures of docs/06: ads on `social-feed`, over a visit, over a year, and under a limit.

``python -m benchmarks.figures`` draws them from benchmarks/results/feed_load.csv (benchmarks.feed_load) and
limits.csv (benchmarks.limits).
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

from benchmarks.harness import newest
from benchmarks.harness.panel import LINES, Panel
from benchmarks.harness.tables import RESULTS
from benchmarks.limits import GROUP
from recsys_rl.evaluation.report.drawing import svg

LEFT, WIDTH, WORDS = 56, 470, 540  # pixels: of the plot, and where the words beside it begin
STYLES = ("baseline", "learned", "inside")
RUNS = {
    "paid": "the hard rule alone",
    "paid-limit": "ads<=0.1",
    "paid-limit-half": "ads<=0.05",
}


def load_figure() -> str:
    """Time spent against the load of ads, in the first month and after most of a year."""
    rows = newest.read(RESULTS, "feed_load")
    panel = Panel(LEFT, WIDTH, (0, 20), (0.8, 1.0))
    title = "time spent, relative to a feed without ads"
    parts = [panel.axes(title, "ads, % of the places", range(0, 21, 4), (0.8, 0.9, 1.0))]
    lines = {}
    for name, style in (("the first month", "baseline"), ("months 10 to 12", "learned")):
        at = [row for row in rows if row["time"] == name]
        loads = [100 * float(row["load"]) for row in at]
        parts.append(panel.line(loads, [float(row["spent"]) for row in at], style))
        for load, row in zip(loads, at, strict=True):
            parts.append(_whisker(panel, load, float(row["spent_low"]), float(row["spent_high"]), style))
        lines[f"{name}: {100 * float(at[-1]['spent']) - 100:.0f} %"] = (float(at[-1]["spent"]), style)
    parts += panel.names(WORDS, lines)
    said = "Time spent falls linearly in the load of ads, and three times as fast after most of a year."
    return svg(800, 310, said, parts)


def visit_figure() -> str:
    """The share of ads over the places of a visit, with and without limits."""
    panel = Panel(LEFT, WIDTH, (0, 40), (0, 30))
    title = "ads in each five places, % (revenue pays ten times as much)"
    parts = [panel.axes(title, "place of the visit", range(0, 41, 10), (0, 10, 20, 30))]
    lines = {}
    for (name, label), style in zip(_measured().items(), STYLES, strict=False):
        each = [[100 * float(share) for share in row["ads_by_place"].split()] for row in _rows(name)]
        means = [statistics.mean(shares) for shares in zip(*each, strict=True)]
        parts.append(panel.line([GROUP * (k + 0.5) for k in range(len(means))], means, style))
        lines[label] = (means[-1], style)
    parts += panel.names(WORDS, lines)
    return svg(800, 310, "The share of ads over a visit under the hard rule and under two limits.", parts)


def cost_figure() -> str:
    """The return of learning against the share of ads, one point for each seed."""
    points = {
        name: [(100 * float(row["ads"]), float(row["learned_return"])) for row in _rows(name)]
        for name in _measured()
    }
    earned = [y for each in points.values() for _, y in each]
    low, top = 10 * int(min(earned) / 10), 10 * (int(max(earned) / 10) + 1)
    panel = Panel(LEFT, WIDTH, (0, 25), (low, top))
    title = "return of a visit with revenue ten times, held-out users"
    parts = [panel.axes(title, "ads, % of the places", range(0, 26, 5), range(low, top + 1, 10))]
    means = {
        name: [statistics.mean(values) for values in zip(*each, strict=True)] for name, each in points.items()
    }
    ordered = sorted(means.values())
    parts.append(panel.line([x for x, _ in ordered], [y for _, y in ordered], "baseline", "5 4"))
    lines = {}
    for (name, label), style in zip(_measured().items(), STYLES, strict=False):
        parts += [
            f'<circle cx="{panel.x(x):.1f}" cy="{panel.y(y):.1f}" r="4" style="fill:{LINES[style]}"/>'
            for x, y in points[name]
        ]
        ads, mean = means[name]
        lines[f"{label}: {ads:.1f} % ads"] = (mean, style)
    parts += panel.names(WORDS, lines)
    return svg(800, 310, "What a limit on ads costs: the return falls with the share of ads.", parts)


def _measured() -> dict[str, str]:
    """Of RUNS, those that have results."""
    return {name: label for name, label in RUNS.items() if _rows(name)}


def _rows(name: str) -> Sequence[newest.Row]:
    """The results of a run, of the seeds that all of RUNS with results have: each seed has its own users."""
    by_run = {run: newest.read(RESULTS, "limits", ("run", "seed"), run=run) for run in RUNS}
    seeds = [{row["seed"] for row in rows} for rows in by_run.values() if rows]
    return [row for row in by_run[name] if row["seed"] in set.intersection(*seeds)]


def _whisker(panel: Panel, x: float, low: float, high: float, style: str) -> str:
    at = f"M{panel.x(x):.1f} {panel.y(low):.1f}V{panel.y(high):.1f}"
    return f'<path style="stroke:{LINES[style]}" d="{at}"/>'


FIGURES: dict[str, Callable[[], str]] = {
    "feed-load": load_figure,
    "feed-visit": visit_figure,
    "feed-limit": cost_figure,
}
