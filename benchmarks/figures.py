"""The figures of docs/02 and docs/03, drawn from the functions that they explain, and those of docs/06.

    python -m benchmarks.figures

writes docs/images/{gae,clipping,trap,kink,session}.svg, those of feed_figures.py, and shop-month.svg. Every
number comes from the code with its defaults, or from benchmarks/results: run it again after a change of an
equation or a setting, and after new results. A test compares the files with what it would write.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from benchmarks import feed_figures, shop_month
from benchmarks.harness.panel import LINES, Panel
from recsys_rl.agents.ppo import PPOConfig
from recsys_rl.data.catalogue import MadeUpConfig
from recsys_rl.env.rec_env import RecEnv
from recsys_rl.env.satiation import Satiation, SatiationConfig
from recsys_rl.evaluation.report.drawing import number, spread, svg, text
from recsys_rl.evaluation.rivals.references import Myopic, Planner
from recsys_rl.functional.losses import clipped_surrogate
from recsys_rl.functional.returns import gae
from recsys_rl.make import make_env, make_world
from recsys_rl.protocols import Policy
from recsys_rl.settings.config import Config
from recsys_rl.types import Catalogue, Population
from recsys_rl.utils.files import write_text

IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images"


def gae_figure() -> str:
    """The weight of each later TD error in the advantage of a step, for several lambda."""
    settings, steps = Config(algo="ppo", env="satiation").agent_config, 20
    assert isinstance(settings, PPOConfig)
    # Row l of column l alone has a TD error, of 1: the advantage of row 0 is then the weight of step l.
    impulse, zero = torch.eye(steps + 1), torch.zeros(steps + 1, steps + 1)
    never = zero.bool()
    panel = Panel(56, 480, (0, steps), (0, 1))
    parts = [
        panel.axes(
            f"weight of the TD error l steps later, gamma = {settings.gamma:g}",
            "l, steps after the one whose advantage it is",
            range(0, steps + 1, 5),
            (0, 0.5, 1),
        )
    ]
    lambdas, ends = (1.0, settings.gae_lambda, 0.8, 0.5, 0.0), []
    for value in lambdas:
        weights = gae(impulse, zero, zero, never, never, settings.gamma, value)[0].tolist()
        preset = value == settings.gae_lambda
        parts.append(panel.line(range(steps + 1), weights, "learned" if preset else "baseline"))
        ends.append(weights[-1])
    places = spread([panel.y(end) for end in ends], 18)
    words = {1.0: "all rewards, minus V", 0.0: "the TD error alone", settings.gae_lambda: "the preset"}
    for value, height in zip(lambdas, places, strict=True):
        said = f"lambda = {value:g}" + (f": {words[value]}" if value in words else "")
        style = "learned strong" if value == settings.gae_lambda else "muted"
        parts.append(f'<text class="{style}" x="548" y="{height + 4:.1f}">{text(said)}</text>')
    return svg(
        800,
        310,
        "Weight of later TD errors in generalised advantage estimation: one at once with lambda 0, slowly "
        "falling with lambda near 1.",
        parts,
    )


def clipping_figure() -> str:
    """PPO's objective of one sample, over its ratio, for a good and a bad item."""
    eps, ratios = PPOConfig().clip_eps, torch.linspace(0.01, 2, 200)
    titles = {1.0: "a good item: A = +1", -1.0: "a bad item: A = −1"}
    parts = []
    for index, (advantage, title) in enumerate(titles.items()):
        low = 0.0 if advantage > 0 else -2.0
        panel = Panel(56 + 400 * index, 320, (0, 2), (low, low + 2))
        left, right = panel.x(1 - eps), panel.x(1 + eps)
        parts.append(
            f'<rect class="band" x="{left:.1f}" y="{panel.top}" width="{right - left:.1f}" '
            f'height="{panel.height}"/>'
        )
        marks = (0, 1 - eps, 1 + eps, 2)
        parts.append(panel.axes(title, "ratio of new to old probability", marks, (low, low + 1, low + 2)))
        xs, sign = ratios.tolist(), torch.tensor([advantage])
        believed = [-clipped_surrogate(r.log(), torch.tensor(0.0), sign, eps).item() for r in ratios]
        parts.append(panel.line(xs, [advantage * x for x in xs], "baseline", "5 4"))
        parts.append(panel.line(xs, believed, "learned"))
        if advantage > 0:
            parts.append(panel.word(1.28, 1 + eps, "flat: likely enough", "learned", 20))
            parts.append(panel.word(0.06, 1.14, "steep: bring it back", "learned"))
        else:
            parts.append(panel.word(0.06, eps - 1, "flat: rare enough", "learned", -10))
            parts.append(panel.word(1.22, -1.12, "steep: push it down", "learned"))
    legend = (
        ("learned", "the smaller of the two, which PPO uses", 56, ""),
        ("baseline", "ratio times A, unclipped", 406, "5 4"),
    )
    for style, said, x, dash in legend:
        parts.append(
            f'<path class="curve" style="stroke:{LINES[style]};stroke-dasharray:{dash or "none"}" '
            f'd="M{x} 322h22"/><text class="muted" x="{x + 30}" y="326">{said}</text>'
        )
    return svg(
        800,
        344,
        f"The clipped surrogate over the ratio, clip range {eps:g}: flat above {1 + eps:g} for a good item, "
        f"flat below {1 - eps:g} for a bad one, steep everywhere else.",
        parts,
    )


def alike_items(count: int, affinity: float) -> tuple[Catalogue, Population]:
    """Items that fit the only user equally well, from much better than they are popular to the reverse."""
    towards = torch.tensor([affinity, (1 - affinity**2) ** 0.5])
    catalogue = Catalogue(
        embedding=towards.expand(count, 2).clone(),
        item_ids=torch.arange(count),
        titles=(),
        popularity=torch.logspace(-3, 0, count),
        quality=torch.linspace(1, 0, count),
        available=torch.ones(count, dtype=torch.bool),
        source="made up",
    )
    taste, rows = torch.tensor([[1.0, 0.0]]), torch.tensor([0])
    return catalogue, Population(taste, taste, rows, rows, rows)


def trap_figure() -> str:
    """Appeal and satisfaction of items that fit a rested user equally well, over their catchiness."""
    affinity, count = 0.4, 121
    settings = SatiationConfig(num_items=count, embedding_dim=2)
    users = Satiation(*alike_items(count, affinity), settings)
    items = torch.arange(count).unsqueeze(0)  # (1, K): all of them, each as if it were the first
    state = users.sample(torch.tensor([0]))
    felt = users.respond(state, items, torch.ones_like(items, dtype=torch.bool), None)
    catchy = users.catch > 0
    xs = [0.0, *users.catch[catchy].tolist()]
    first = int(catchy.nonzero()[0]) - 1  # the last that isn't catchy
    panel = Panel(56, 520, (0, xs[-1]), (0, 1))
    parts = [
        panel.axes(
            f"one user, items of the same fit (cosine {affinity:g})",
            "catchiness, in z-scores: how much more popular than good",
            [x / 2 for x in range(int(2 * xs[-1]) + 1)],
            (0, 0.5, 1),
        )
    ]
    words = {
        "appeal, the share that is watched: the reward now": (felt.signals[:, :, 0], "inside"),
        "satisfaction, how good it was: unseen": (felt.signals[:, :, 1], "learned"),
    }
    ends = [values[0, -1].item() for values, _ in words.values()]
    for (said, (values, style)), end in zip(words.items(), ends, strict=True):
        parts.append(panel.line(xs, values[0, first:].tolist(), style))
        head, tail = said.split(": ")
        y = panel.y(end)
        parts.append(f'<text class="{style} strong" x="588" y="{y:.1f}">{head.split(",")[0]}</text>')
        parts.append(f'<text class="muted" x="588" y="{y + 17:.1f}">{head.split(", ")[1]}</text>')
        parts.append(f'<text class="muted" x="588" y="{y + 34:.1f}">{tail}</text>')
    half = panel.y(0.5)
    parts.append(f'<path class="reference" d="M56 {half:.1f}H576"/>')
    parts.append(panel.word(1, 0.5, "satisfaction below one half costs patience", "muted", -8))
    return svg(
        800,
        316,
        "Appeal rises and satisfaction falls with an item's catchiness, for items that fit a user equally "
        "well.",
        parts,
    )


def kink_figure() -> str:
    """What an item is worth to a user with full patience, over its catchiness, for several affinities."""
    count, affinities, patience = 121, (0.3, 0.45, 0.6), 2.0  # the reward that one unit of patience brings
    settings = SatiationConfig(num_items=count, embedding_dim=2, patience_start=0.99)
    panel, parts, ends = Panel(56, 520, (0, 1.5), (0, 1)), [], []
    parts.append(
        panel.axes(
            "the reward, and what the item takes from a patience that is full",
            "catchiness, in z-scores: how much more popular than good",
            (0, 0.5, 1, 1.5),
            (0, 0.5, 1),
        )
    )
    items = torch.arange(count).unsqueeze(0)  # (1, K)
    for affinity in affinities:
        users = Satiation(*alike_items(count, affinity), settings)
        state = users.sample(torch.tensor([0]))
        felt = users.respond(state, items, torch.ones_like(items, dtype=torch.bool), None)
        appeal, satisfaction = felt.signals[0, :, 0], felt.signals[0, :, 1]
        cost = settings.patience_cost * (0.5 - satisfaction).clamp_min(0)
        worth, catch = appeal - patience * cost, users.catch
        shown = (catch > 0) & (catch <= panel.x_range[1])
        best = int(worth.masked_fill(~shown, -torch.inf).argmax())
        parts.append(panel.line(catch[shown].tolist(), worth[shown].tolist(), "learned"))
        x, y = panel.x(catch[best].item()), panel.y(worth[best].item())
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" style="fill:{LINES["inside"]}"/>')
        ends.append(worth[shown][-1].item())
    for affinity, height in zip(affinities, spread([panel.y(end) for end in ends], 18), strict=True):
        parts.append(f'<text class="muted" x="588" y="{height + 4:.1f}">affinity {affinity:g}</text>')
    return svg(
        800,
        316,
        "Worth of an item over its catchiness: a bend at its top, at more catchiness for more affinity.",
        parts,
    )


def watch(agent: Policy, env: RecEnv, user: Tensor) -> tuple[list[float], list[float], bool]:
    """One session of ``user`` (1,): rewards, patience before each step, and whether the user left."""
    obs, rewards, patience = env.reset(user), [], []
    while True:
        patience.append(env.user_state.patience.item())
        step = env.step(agent.act(obs).items)
        rewards.append(step.reward.item())
        if step.terminated or step.truncated:
            return rewards, patience, bool(step.terminated)
        obs = step.obs


def session_figure() -> str:
    """The session of one user with the short-sighted optimum and with the planner, without noise."""
    settings = SatiationConfig(num_items=300, embedding_dim=16, noise=0.0)
    people = MadeUpConfig(data="synthetic", num_users=100)
    config = Config(env="satiation", data_config=people, env_config=settings)
    world = make_world(config)
    env = make_env(config, world, 1, torch.Generator().manual_seed(0), heldout=True)
    assert isinstance(env, RecEnv)
    length, parts, totals = settings.max_episode_steps, [], []
    agents: dict[str, tuple[Policy, str]] = {
        "short-sighted": (Myopic(env), "inside"),
        "planned": (Planner(env), "learned"),
    }
    for index, (name, (agent, style)) in enumerate(agents.items()):
        rewards, patience, left = watch(agent, env, world.population.heldout[:1])
        totals.append(sum(rewards))
        panel = Panel(56 + 400 * index, 320, (0, length), (0, 1))
        title = f"{name}: {number(totals[-1], 1)} in {len(rewards)} steps"
        parts.append(panel.axes(title, "step", range(0, length + 1, 5), (0, 0.5, 1)))
        for step, reward in enumerate(rewards):
            x, y = panel.x(step + 0.12), panel.y(reward)
            parts.append(
                f'<rect x="{x:.1f}" y="{y:.1f}" width="{panel.width / length * 0.76:.1f}" '
                f'height="{panel.y(0) - y:.1f}" style="fill:{LINES[style]};opacity:.45"/>'
            )
        ends = [*patience, 0.0] if left else patience
        parts.append(panel.line(range(len(ends)), ends, "baseline"))
        if left and len(rewards) < length:
            parts.append(panel.word(len(rewards) + 0.3, 0.06, "the user leaves", "strong"))
    parts.append(
        '<rect x="56" y="314" width="11" height="11" style="fill:var(--muted);opacity:.45"/>'
        '<text class="muted" x="75" y="324">reward of the step</text>'
        f'<path class="curve" style="stroke:{LINES["baseline"]}" d="M226 320h22"/>'
        '<text class="muted" x="256" y="324">patience before it (hidden)</text>'
    )
    return svg(
        800,
        342,
        f"Two sessions of one user: the short-sighted one earns {number(totals[0], 1)} and ends when "
        f"patience is used up, the planned one earns {number(totals[1], 1)}.",
        parts,
    )


FIGURES = {
    "gae": gae_figure,
    "clipping": clipping_figure,
    "trap": trap_figure,
    "kink": kink_figure,
    "session": session_figure,
    **feed_figures.FIGURES,
    "shop-month": shop_month.figure,
}


def main() -> None:
    for name, draw in FIGURES.items():
        write_text(IMAGES / f"{name}.svg", draw() + "\n")
        print(IMAGES / f"{name}.svg")


if __name__ == "__main__":
    main()
