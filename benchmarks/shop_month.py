"""Do discounts pay on `shop`? Purchases, revenue and margin in the first visit and over a month of visits.

    python -m benchmarks.shop_month [--seed 0] [--keep FOLDER]

Three fixed screens have a video and a product by the profile, with one coupon throughout: none, or 10 % or
25 %. Two linear scores, the row `rule` of the tables, are searched for the purchases and for the margin of a
visit, with as many steps as PPO. Three policies are trained with PPO (TRAINED): for the purchases of each
visit, for the margin of each visit, and for the margin of a life of visits. All play the lives of the same
held-out users with the same noise, up to 35 days, the policies with their most probable slates. The fixed
screens play a second time with ``reference_rate`` 0, where nobody gets used to a discount.

A row for each policy and time: sums for each user, and their gain over the first rule's sums for the same
user, with the half width of a 95 % interval over users; it is of one training. Goods that are sent back count
on the day on which they come back, and at the latest on the last screen of the life. ``margin_by_day`` has
the mean margin up to the end of each day. ``--keep FOLDER`` keeps the trained runs, and takes those that are
there. Rows are appended to benchmarks/results/shop_month.csv; the tables and the picture of docs/06 are made
from the last run.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.harness import newest, runs, tables
from benchmarks.harness.newest import table
from benchmarks.harness.panel import Panel
from benchmarks.harness.tables import RESULTS
from benchmarks.harness.turns import Row
from recsys_rl.checkpoint import load
from recsys_rl.env.assortment import COUPONS
from recsys_rl.env.rec_env import RecEnv
from recsys_rl.env.retail import Retailer, by_profile
from recsys_rl.env.shop import ShopConfig
from recsys_rl.env.visits import DAYS
from recsys_rl.evaluation.report.drawing import svg
from recsys_rl.evaluation.rivals.rankers import Rule
from recsys_rl.evaluation.rivals.rule_search import search_rule
from recsys_rl.evaluation.rivals.tuning import Trainees, training_part
from recsys_rl.make import agent_of, make_env, make_world, one_visit
from recsys_rl.protocols import Policy
from recsys_rl.settings.config import Config
from recsys_rl.types import Action, Obs, Population, World
from recsys_rl.user_columns import UserColumns

STREAMS = ("purchased", "revenue", "margin", "returned")
ALL = "all 35 days"
TIMES = ("the first visit", "days 1 to 7", "days 22 to 35", ALL)
PURCHASES, MARGIN, LIFE = "ppo, purchases", "ppo, margin", "ppo, margin of lives"
NOTHING = ("watch_ratio=0", "liked=0", "saved=0")
TRAINED = {
    PURCHASES: ("--weights", "purchased=1", *NOTHING),
    MARGIN: ("--weights", "margin=1", "purchased=0", *NOTHING),
    LIFE: ("--weights", "margin=1", "purchased=0", *NOTHING, "--day-discount", "0.9"),
}
SEARCHED = {"rule, purchases": "purchased", "rule, margin": "margin"}
"""The streams for which a linear score is searched."""
FIRST = "always 0 %"
LABELS = {
    FIRST: "by the profile, no coupon",
    "always 10 %": "by the profile, 10 % off",
    "always 25 %": "by the profile, 25 % off",
    "rule, purchases": "linear score searched for the purchases of each visit",
    "rule, margin": "linear score searched for the margin of each visit",
    PURCHASES: "**PPO** for the purchases of each visit",
    MARGIN: "**PPO** for the margin of each visit",
    LIFE: "**PPO** for the margin of a life",
}
STYLES = {
    "always 0 %": ("baseline", ""),
    "always 10 %": ("baseline", "8 4"),
    "always 25 %": ("baseline", "2 4"),
    "rule, purchases": ("inside", "2 4"),
    "rule, margin": ("inside", ""),
    PURCHASES: ("learned", "2 4"),
    MARGIN: ("learned", "8 4"),
    LIFE: ("learned", ""),
}
"""Color and dashes of each line of the picture."""
SHORT = {"rule, purchases": "linear, purchases", "rule, margin": "linear, margin"}
SHORT |= {PURCHASES: "PPO, purchases", MARGIN: "PPO, margin", LIFE: "PPO, margin of a life"}
TINY = (
    *("--data", "synthetic", "--num-users", "30", "--num-items", "60", "--max-episode-steps", "3"),
    *("--n-steps", "8", "--num-envs", "8", "--batch-size", "64", "--hidden-dims", "8"),
    *("--total-timesteps", "64", "--eval-interval", "0"),
)


class Discounter:
    """A retailer who shows videos and products by the profile, and always the same coupon."""

    def __init__(self, world: World, env: RecEnv, discount: float) -> None:
        self.retailer = Retailer(world.catalogue, env.interface, by_profile, 1000, pairs=True)
        named = world.catalogue.attributes
        same = (named["kind"] == world.catalogue.classes("kind").index("coupon")) & (
            (named["discount"] - discount).abs() < 1e-6
        )
        self.coupon = int(same.nonzero()[0])

    def act(self, obs: Obs, greedy: bool = False) -> Action:
        items = self.retailer.act(obs).items
        items[:, 2] = self.coupon
        return Action.certain(items)


@torch.inference_mode()
def lives(env: RecEnv, policy: Policy) -> tuple[Mapping[str, tuple[Tensor, Tensor]], Tensor]:
    """For each of TIMES the sums (N, M) of STREAMS and the visits (N,); and the margin (N, DAYS) by day."""
    names = [stream.name for stream in env.streams]
    at = [names.index(name) for name in STREAMS]
    obs, number = env.reset(env.users), len(env.users)
    alive = torch.ones(number, dtype=torch.bool)
    sums = {time: torch.zeros(number, len(at)) for time in TIMES}
    visits = {time: torch.zeros(number) for time in TIMES}
    by_day = torch.zeros(number, DAYS)
    while bool(alive.any()):
        assert env.session.visit is not None and env.session.day is not None
        visit, day, first = env.session.visit, env.session.day, env.session.steps == 0
        there = dict(zip(TIMES, (visit == 0, day < 7, day >= 21, day >= 0), strict=True))
        step = env.step_without_reset(policy.act(obs, greedy=True).items)
        for time, counts in there.items():
            counts = counts & alive
            sums[time] += step.streams[:, at] * counts.unsqueeze(1)
            visits[time] += counts & first
        margin = step.streams[:, names.index("margin")] * alive
        by_day.scatter_add_(1, day.long().clamp_max(DAYS - 1).unsqueeze(1), margin.unsqueeze(1))
        alive &= ~(step.terminated | step.truncated)
        obs = step.obs
    return {time: (sums[time], visits[time]) for time in TIMES}, by_day


def searched(config: Config, world: World, stream: str, budget: int) -> Policy:
    """The linear score with the highest sum of a stream in visits of training users."""
    single = one_visit(config)
    group, noise = training_part(world.population), torch.Generator().manual_seed(0)

    def visits(users: Population, count: int, generator: torch.Generator) -> RecEnv:
        env = make_env(single, World(world.catalogue, users), count, generator, training=False)
        assert isinstance(env, RecEnv)
        env.weights = torch.tensor([float(one.name == stream) for one in env.streams])
        return env

    interface = visits(group, 1, noise).interface
    trainees = Trainees(visits, world.catalogue, group, interface, noise)
    found = search_rule(trainees, budget)
    columns = UserColumns.of(interface, world.catalogue)
    return Rule(world.catalogue, found.weights, trainees.slate, found.leave_rates, user_columns=columns)


def rows(config: Config, trained: Mapping[str, Path]) -> list[Row]:
    assert isinstance(config.env_config, ShopConfig)
    without = replace(config, env_config=replace(config.env_config, reference_rate=0.0))
    return [*_of_rate(config, trained), *_of_rate(without, {})]


def _of_rate(config: Config, trained: Mapping[str, Path]) -> list[Row]:
    assert isinstance(config.env_config, ShopConfig)
    world = make_world(config)

    def env() -> RecEnv:
        noise, count = torch.Generator().manual_seed(0), len(world.population.heldout)
        made = make_env(config, world, count, noise, heldout=True, training=False)
        assert isinstance(made, RecEnv)
        return made

    policies: dict[str, Policy] = {always(x): Discounter(world, env(), x) for x in COUPONS}
    if trained:
        budget = config.train_config.total_timesteps
        policies |= {name: searched(config, world, stream, budget) for name, stream in SEARCHED.items()}
    policies |= {name: agent_of(load(path)) for name, path in trained.items()}
    result, firsts = list[Row](), dict[str, Tensor]()
    for name, policy in policies.items():
        of_times, by_day = lives(env(), policy)
        for time, (sums, visits) in of_times.items():
            count = len(visits)
            row: Row = {"seed": config.train_config.seed, "reference_rate": config.env_config.reference_rate}
            row |= {"policy": name, "time": time, "users": count, "visits": float(visits.mean())}
            gains = sums - firsts.setdefault(time, sums)
            for end, values in (("", sums), ("_gain", gains)):
                width = 1.96 * values.std(0) / count**0.5
                for stream, mean, half in zip(STREAMS, values.mean(0).tolist(), width.tolist(), strict=True):
                    row |= {f"{stream}{end}": mean, f"{stream}{end}_half": half}
            means = by_day.cumsum(1).mean(0).tolist() if time == ALL else []
            result.append(row | {"margin_by_day": " ".join(f"{mean:.4f}" for mean in means)})
    return result


def always(discount: float) -> str:
    return f"always {100 * discount:g} %"


def text(results: Path) -> str:
    """The tables of docs/06: the policies beside each other, and what 25 % off adds by reference_rate."""
    found = _newest(results)
    default = max(row["reference_rate"] for row in found)
    head = ["time", "policy", *("purchases", "revenue", "margin", "goods that came back", "margin added")]
    body = [
        _table_row(row)
        for time in (TIMES[0], ALL)
        for name in LABELS
        for row in found
        if (row["time"], row["policy"], row["reference_rate"]) == (time, name, default)
    ]
    more = [
        [row["time"], _rate(row["reference_rate"], default), *_cells(row, "_gain")[:3]]
        for time in (TIMES[0], ALL)
        for row in found
        if (row["time"], row["policy"]) == (time, always(COUPONS[-1]))
    ]
    one = found[-1]
    return (
        f"{table(head, body)}\n\nSums for each visitor with the half width of a 95 % interval over visitors; "
        f"margin added: to the first row, for the same visitors. {one['users']} held-out users, one training "
        f"(seed {one['seed']}), {one['date']}, commit {one['commit']}; `python -m benchmarks.shop_month`.\n\n"
        "What a coupon of 25 % adds for the same visitors with the same noise, by the rate at which visitors "
        "get used to a discount:\n\n"
        f"{table(['time', '`reference_rate`', 'purchases', 'revenue', 'margin'], more)}"
    )


def _table_row(row: newest.Row) -> list[str]:
    first = row["policy"] == FIRST
    added = "" if first else _cells(row, "_gain")[STREAMS.index("margin")]
    return [row["time"] if first else "", LABELS[row["policy"]], *_cells(row, ""), added]


def _newest(results: Path) -> Sequence[newest.Row]:
    """The rows of the last run."""
    return newest.read(results, "shop_month")


def _rate(rate: str, default: str) -> str:
    return f"{rate} (the default)" if rate == default else f"{rate}: nobody gets used to it"


def _cells(row: newest.Row, end: str) -> list[str]:
    sign = "+" if end else ""
    pairs = ((float(row[f"{name}{end}"]), float(row[f"{name}{end}_half"])) for name in STREAMS)
    return [f"{mean:{sign}.2f} ± {half:.2f}" for mean, half in pairs]


def figure() -> str:
    """The mean margin of a visitor up to the end of each day."""
    found = [row for row in _newest(RESULTS) if row["time"] == ALL]
    default = max(row["reference_rate"] for row in found)
    lines = {
        row["policy"]: [0.0, *(float(mean) for mean in row["margin_by_day"].split())]
        for row in found
        if row["reference_rate"] == default
    }
    every = [value for values in lines.values() for value in values]
    low, top = math.floor(min(every)), math.ceil(max(every))
    panel = Panel(56, 420, (0, DAYS), (low, top))
    title = "margin of one visitor so far, mean of held-out users"
    marks = range(low, top + 1, max(1, (top - low) // 6))
    parts = [panel.axes(title, "day", range(0, DAYS + 1, 7), marks)]
    parts += [panel.line(range(DAYS + 1), values, *STYLES[name]) for name, values in lines.items()]
    ends = {
        f"{SHORT.get(name, LABELS[name])}: {values[-1]:.2f}": (values[-1], STYLES[name][0])
        for name, values in lines.items()
    }
    parts += panel.names(490, ends)
    return svg(800, 310, "The margin of one visitor over the days of a month, by policy.", parts)


def main() -> None:
    parser = tables.parser(__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="folder to keep the trained runs in, and to take them from")
    args = tables.parse(parser, "shop_month")
    words = ["train", "--env", "shop", "--seed", str(args.seed), "--threads", "1"]
    words += ["--discounts", "--visits", "35"]
    words += [*TINY] if args.smoke else []
    with tempfile.TemporaryDirectory() as temporary:
        trained = {}
        for number, (name, options) in enumerate(TRAINED.items()):
            folder = (args.keep or Path(temporary)) / str(number)
            runs.trained(folder, "ppo", [*words, *options])
            trained[name] = runs.checkpoint_in(folder, "ppo")
        config = load(trained[PURCHASES]).config
        tables.publish(rows(config, trained), args)


if __name__ == "__main__":
    tables.run(main)
