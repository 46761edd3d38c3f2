"""The gallery of platforms: of each a picture, its question, the claim, and the command.

The platforms are those of PLATFORMS; question and command are in their records. Pictures and claims come
from benchmarks/results, so they change with the next measurement.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import shop_month
from benchmarks.harness.newest import Row, origin, read
from benchmarks.harness.returns import Runs, percent, spread, vector
from benchmarks.harness.tables import RESULTS
from benchmarks.learning_tables import DRAWN, SHOWN
from docs.site.measured import anchor
from recsys_rl.env import PLATFORMS
from recsys_rl.env.assortment import COUPONS
from recsys_rl.evaluation import returns_chart_svg
from recsys_rl.records import Platform
from recsys_rl.utils.find import find
from recsys_rl.utils.metrics import Interval, interval

LEFT_OUT = ("ppo", "untrained", "ranker", "ranker-greedy", "a2c", "credited")
"""Rows that a picture has no room for."""

WIDTHS = {"narrow": 358, "wide": 760}
"""Pixels of a picture on a phone, and elsewhere: its text does not scale."""
PICTURE = (
    '<picture><source media="(max-width: 600px)" srcset="images/platform-{name}-narrow.svg">'
    '<img src="images/platform-{name}-wide.svg" width="100%" alt="{what}."></picture>'
)


@dataclass(frozen=True)
class Shown:
    """What the results say of a platform."""

    rows: Sequence[Mapping[str, Any]]  # of the picture, as ``returns_chart_svg`` takes them
    claim: str  # one or two sentences
    source: str  # command, commit and date
    yardstick: str | None = None
    what: str = "The mean return of each policy, with 95 % intervals"


def bar(policy: str, estimate: Interval) -> dict[str, Any]:
    ends = {"return_low": estimate.low, "return_high": estimate.high}
    return {"policy": policy, "return_mean": estimate.mean, **ends}


def simulated(results: Path, name: str) -> Shown:
    """A platform on which benchmarks.learning trains PPO."""
    task = {shown: task for task, shown in SHOWN.items()}.get(name, name)
    runs = Runs(results, task)
    ours, rival = runs.mean(runs.learned), runs.yardstick
    left_out = {*LEFT_OUT} - ({"ppo"} if name in DRAWN else set())
    played = [policy for policy in runs.policies if policy not in left_out]
    if len(runs.seeds) == 1:
        claim = (
            f"First results, of one seed: PPO with its most probable items earns {ours.mean:.2f} a session, "
            f"and `{rival}`, the best row that learns no network and sees what PPO sees, "
            f"{runs.mean(rival).mean:.2f}."
        )
        ends = {"return_low": None, "return_high": None}  # of one seed there is no interval over seeds
        rows = [{"policy": policy, "return_mean": runs.mean(policy).mean, **ends} for policy in played]
        return Shown(rows, claim, f"`python -m benchmarks.learning {task} --seeds 0`, {runs.origin}", rival)
    gain, who = runs.gain(), "PPO"
    if name in DRAWN:
        ours, who = runs.mean("ppo"), "PPO, where it draws its items,"
        gain = interval(vector(runs.values("ppo")) / runs.yardsticks() - 1)
    claim = (
        f"{who} earns {ours.mean:.2f} a session ({spread(ours)}) with users held out of training. That is "
        f"{more(gain)} `{rival}`, the best row that learns no network and sees only what PPO sees."
    )
    rows = [bar(policy, runs.mean(policy)) for policy in played]
    return Shown(rows, claim, f"`python -m benchmarks.learning {task}`, {runs.origin}", rival)


def more(gain: Interval) -> str:
    """A gain in words, with its interval."""
    if gain.low > 0:
        return f"{percent(gain)} more than"
    if gain.high < 0:
        return f"{percent(Interval(-gain.mean, -gain.high, -gain.low))} less than"
    return f"not measurably different ({100 * gain.low:+.1f} to {100 * gain.high:+.1f} %) from"


def learned(results: Path) -> Shown:
    """Users learned from a log: a policy trained with them, beside one trained in the simulator itself."""
    rows = read(results, "learned_users", ("env", "log"), env="satiation")
    bars = [bar("ppo in the simulator", interval(vector(_numbers(rows, "online", log="medium"))))]
    shares = {}
    for log in ("medium", "random"):
        bars.append(bar(f"ppo, users of {log} log", interval(vector(_numbers(rows, "return_mean", log=log)))))
        shares[log] = statistics.mean(_numbers(rows, "share", log=log))
    claim = (
        f"A policy that was trained with users learned from a log earns {100 * shares['medium']:.0f} % of "
        f"what PPO earns that was trained in the simulator behind the log, if a half-trained policy made "
        f"the log, and {100 * shares['random']:.0f} % if the items were random (`satiation`)."
    )
    return Shown(bars, claim, f"`python -m benchmarks.learned_users`, {origin(rows)}")


def own_log(results: Path) -> Shown:
    """Logs with a known answer, made of a data set with classes."""
    every = read(results, "own_log", ("data", "logger", "policy", "decisions"), data="digits", logger="mild")
    rows = [row for row in every if row["decisions"] == "20000" and row["right"]]
    kinds = dict.fromkeys(row["policy"] for row in rows)
    means = {kind: statistics.mean(_numbers(rows, "right", policy=kind)) for kind in kinds}
    names = {"logger": "random, logger", "logger, its best": "random, its best item"}
    bars = [
        {"policy": names.get(kind, kind), "return_mean": mean, "return_low": None, "return_high": None}
        for kind, mean in means.items()
    ]
    claim = (
        "From 20,000 decisions of a weak policy, which shows the right item in "
        f"{100 * means['logger']:.0f} % of cases, `reinforce` learns to show it in "
        f"{100 * means['reinforce']:.1f} % (digits, where the right item is known)."
    )
    what = "The share of decisions with the right item"
    return Shown(bars, claim, f"`python -m benchmarks.own_log`, {origin(rows)}", what=what)


def foreign(results: Path) -> Shown:
    """An environment of Gymnasium, with one preset for all of them."""
    rows = read(results, "foreign", ("env", "system", "seed"), env="lunarlander")
    systems = dict.fromkeys(row["system"] for row in rows)
    means = {system: interval(vector(_numbers(rows, "return_mean", system=system))) for system in systems}
    names = {"recsys_rl": "ppo of recsys_rl", "stable-baselines3": "ppo of SB3"}
    ours, theirs = means["recsys_rl"], means["stable-baselines3"]
    claim = (
        f"On LunarLander-v3 PPO ends at {ours.mean:.0f} ({ours.low:.0f} to {ours.high:.0f}) after 200,000 "
        f"steps with the preset that all environments of Gymnasium have; Stable-Baselines3's defaults end at "
        f"{theirs.mean:.0f} ({theirs.low:.0f} to {theirs.high:.0f})."
    )
    bars = [bar(names.get(system, system), mean) for system, mean in means.items()]
    return Shown(bars, claim, f"`python -m benchmarks.foreign --only lunarlander`, {origin(rows)}")


def month(results: Path) -> Shown:
    """A month of visits under fixed screens, linear scores and PPO."""
    rows = read(results, "shop_month", time="all 35 days")
    rows = [row for row in rows if row["reference_rate"] == "0.03"]
    margin, sold = ({row["policy"]: float(row[name]) for row in rows} for name in ("margin", "purchased"))
    half = {row["policy"]: float(row["margin_half"]) for row in rows}
    none, most = (shop_month.always(COUPONS[at]) for at in (0, -1))
    claim = (
        f"Visitors who always get a coupon of 25 % buy {sold[most]:.2f} goods in 35 days and leave a margin "
        f"of {margin[most]:.2f}; visitors who never get one buy {sold[none]:.2f} and leave "
        f"{margin[none]:.2f}. PPO for the purchases of each visit sells {sold[shop_month.PURCHASES]:.1f} and "
        f"leaves {margin[shop_month.PURCHASES]:.2f}; for the margin of a life of visits it leaves "
        f"{margin[shop_month.LIFE]:.2f}."
    )
    bars = [
        bar(
            shop_month.SHORT.get(name, shop_month.LABELS[name]),
            Interval(mean, mean - half[name], mean + half[name]),
        )
        for name, mean in margin.items()
    ]
    what = "The margin of a visitor in 35 days, with 95 % intervals over visitors"
    return Shown(bars, claim, f"`python -m benchmarks.shop_month`, {origin(rows)}", what=what)


def _numbers(rows: Sequence[Row], column: str, **known: str) -> list[float]:
    return [float(row[column]) for row in rows if all(row[k] == v for k, v in known.items())]


OTHERS: dict[str, Callable[[Path], Shown]] = {
    "learned": learned,
    "own-log": own_log,
    "shop": month,
    "gym": foreign,
}
"""Platforms whose picture is not that of benchmarks.learning."""


def shown(name: str, results: Path = RESULTS) -> Shown:
    return OTHERS[name](results) if name in OTHERS else simulated(results, name)


def command(name: str, platform: Platform) -> str:
    """A command that trains on the platform."""
    return f"recsys-rl train {platform.example or f'--env {name}'}"


def title(platform: Platform) -> str:
    """The first sentence of the docstring of the platform's file, without its name."""
    module = sys.modules[platform.config.__module__]
    first = " ".join((module.__doc__ or "").strip().split("\n\n")[0].split())
    words = first.partition(":")[2].strip() if first.startswith("`") else first
    return f"{words[0].upper()}{words[1:]}"


def pages() -> dict[str, str]:
    """The page of the gallery and its pictures, by their paths in the site."""
    platforms: dict[str, Platform] = {name: find(spec, "PLATFORMS") for name, spec in PLATFORMS.items()}
    parts = [
        "# Platforms",
        "A platform is a kind of users: what they answer, what they remember, when they leave. Each is one "
        "file. [A notebook](notebooks/own_platform.ipynb) writes a new one.",
        " · ".join(f"[{name}](#{anchor(name)})" for name in platforms),
    ]
    files = {}
    for name, platform in platforms.items():
        about = shown(name)
        module = platform.config.__module__.replace(".", "/")
        for kind, width in WIDTHS.items():
            chart = returns_chart_svg(about.rows, yardstick=about.yardstick, width=width)
            files[f"images/platform-{name}-{kind}.svg"] = chart
        parts += [
            f"## {name}",
            f"**{platform.question}**",
            title(platform),
            PICTURE.format(name=name, what=about.what),
            f"{about.claim} ({about.source})",
            f"```bash\n{command(name, platform)}\n```",
            f"[The equations](/api/{module}/index.rst), "
            f'<a href="_modules/{module}.html">the file `{module}.py`</a>.',
        ]
    return {"platforms.md": "\n\n".join(parts) + "\n", **files}
