"""What do people without a profile get, on `drift` and on `satiation`, and what helps?

    python -m benchmarks.strangers [--seeds 0] [--only drift satiation] [--keep FOLDER]

The held-out users play as strangers: their profiles are withheld (``evaluate --strangers``). For each
platform and seed two policies are trained with few steps: PPO on users with profiles alone, and PPO where the
profiles of SHARE of the training users are withheld. Beside them play popularity, the static list, `mf` with
fold-in, LinUCB and Thompson sampling, all tuned on training users without profiles; and the ceiling, which
knows the profile (`informed`) or the user (`oracle`).
On `drift` the observation holds the rewards of the session (--history-length 20), without which nothing could
be learned of a stranger.

On `satiation` a further row, `filter`, is what a recommender could do that knows all equations and how tastes
are spread among the training users, but not the user: it infers the taste from each answer and shows the item
that should satisfy most, with catchy items at the end. `filter-without-answers` does the
same for the mean taste.

With ``--keep`` the trained runs are kept in that folder, and read from there the next time. Rows are appended
to benchmarks/results/strangers.csv. A seed takes some four minutes of a processor.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.harness import newest, runs, tables
from benchmarks.harness.turns import Row
from benchmarks.strangers_filter import Filter
from recsys_rl.checkpoint import load
from recsys_rl.env.rec_env import RecEnv
from recsys_rl.env.satiation import Satiation
from recsys_rl.evaluation.checkpoints import Entry
from recsys_rl.evaluation.players import Player, Table, evenly, heldout_users, learned
from recsys_rl.evaluation.report.regret import regret_by_step
from recsys_rl.evaluation.row_makers import RowMakers
from recsys_rl.evaluation.table import Played
from recsys_rl.experience.rollout import play
from recsys_rl.utils.metrics import interval
from recsys_rl.utils.seeding import generators, parse_seeds, stream_seed

SHARE = 0.5
FILTER, DEAF = "filter", "filter-without-answers"
ROWS = ("popularity", "static-list", "mf", "linucb", "lints")
LABELS = {
    "popularity": "popularity",
    "static-list": "static-list",
    "mf": "mf, profile folded in",
    "linucb": "LinUCB",
    "lints": "linear Thompson sampling",
    "ppo": "PPO, trained on known users",
    "ppo-share": "PPO, half of its users strangers",
    DEAF: "the filter without the answers",
    FILTER: "filter (knows the equations)",
    "informed": "informed (knows the profile)",
    "oracle": "oracle (knows the user)",
}


@dataclass(frozen=True)
class Task:
    """A platform of the table."""

    words: tuple[str, ...]  # options of its training
    steps: int  # of each training
    ceiling: str
    ceiling_users: int  # a planner needs half a second for each


TASKS = {
    "drift": Task(("--env", "drift", "--history-length", "20"), 100_000, "oracle", 10**6),
    "satiation": Task(("--env", "satiation"), 300_000, "informed", 32),
}
TINY = (
    *("--data", "synthetic", "--num-users", "40", "--num-items", "40", "--embedding-dim", "4"),
    *("--n-steps", "8", "--num-envs", "8", "--batch-size", "64", "--hidden-dims", "8"),
)


def train(task: Task, seed: int, share: float, folder: Path, smoke: bool) -> Path:
    """The checkpoint of PPO where the profiles of this ``share`` of the training users are withheld."""
    steps = 64 if smoke else task.steps
    words = [
        "train",
        *task.words,
        "--seed",
        str(seed),
        "--total-timesteps",
        str(steps),
        "--eval-interval",
        "0",
    ]
    words += ["--stranger-share", str(share)] if share else []
    runs.trained(folder, "ppo", [*words, *(TINY if smoke else ())])
    return runs.checkpoint_in(folder, "ppo")


def rows_of(task: Task, seed: int, known: Path, mixed: Path) -> dict[str, Played]:
    """The sessions of each row with the held-out users of ``seed``, as strangers."""
    entries = [Entry(path, load(path), name) for path, name in ((known, "ppo"), (mixed, "ppo-share"))]
    first = entries[0].checkpoint
    streams = generators(seed, "evaluation users", "policy", "shuffle", "random")
    users = heldout_users(first.world, 0, seed)
    table = Table(first.config, first.world, users, seed, torch.device("cpu"), streams, strangers=True)
    env = table.env()
    assert isinstance(env, RecEnv)
    players = learned(entries, table, env)
    makers = RowMakers(table, env, first.total_steps, None, ("linucb", "lints")).makers()
    names = [*ROWS, "ppo", "ppo-share", task.ceiling]
    if isinstance(env.user_model, Satiation):
        tastes = first.population.taste[first.population.train]
        for name, learns in ((DEAF, False), (FILTER, True)):
            players[name] = Player(Filter(env.user_model, tastes, learns))
            names.insert(-1, name)
    played = {}
    for name in names:
        print(f"playing {name}", file=sys.stderr)
        count = min(len(users), task.ceiling_users) if name == task.ceiling else len(users)
        places, player = evenly(count, len(users)), players[name] if name in players else makers[name]()
        streams["evaluation users"].manual_seed(stream_seed(seed, "evaluation users"))
        streams["policy"].manual_seed(stream_seed(seed, "policy"))
        played[name] = Played(play(env, player.agent, users[places]), places, player.note)
    return played


def summary(env: str, seed: int, steps: int, task: Task, played: dict[str, Played]) -> list[Row]:
    """A row for each policy: return and its interval, length, and regret after 1, 5, 10 and all steps."""
    regret = regret_by_step(played)["steps"]
    rows = []
    for name, one in played.items():
        over, lost = interval(one.sessions.returns), regret.get(name)
        at = {} if lost is None else {f"regret_{k}": lost[min(k, len(lost)) - 1] for k in (1, 5, 10)}
        row: Row = {"env": env, "seed": seed, "steps": steps, "policy": name, "users": len(one.places)}
        row |= {"return_mean": over.mean, "return_low": over.low, "return_high": over.high}
        row |= {"length_mean": one.sessions.lengths.double().mean().item(), **at}
        rows.append(row | {"regret": None if lost is None else lost[-1], "note": one.note})
    return rows


def run(names: Sequence[str], seeds: Sequence[int], keep: Path, smoke: bool) -> list[Row]:
    """The rows of these platforms and seeds."""
    rows = []
    for env in names:
        for seed in seeds:
            task, folder = TASKS[env], keep / f"{env}-{seed}"
            known, mixed = (train(task, seed, share, folder / str(share), smoke) for share in (0, SHARE))
            rows += summary(env, seed, 64 if smoke else task.steps, task, rows_of(task, seed, known, mixed))
    return rows


def text(results: Path) -> str:
    """Return, length and regret of each row; means over seeds, and intervals over these or over users."""
    rows, parts = newest.read(results, "strangers", ("env", "seed")), []
    for env in dict.fromkeys(row["env"] for row in rows):
        of_env = [row for row in rows if row["env"] == env]
        seeds = list(dict.fromkeys(row["seed"] for row in of_env))
        lines = [_line(name, [row for row in of_env if row["policy"] == name]) for name in LABELS]
        head = [f"strangers on `{env}`", "return", "95 % interval", "steps", "regret after 5", "after all"]
        steps, many = int(of_env[0]["steps"]), len(seeds) > 1
        said = (
            f"Seed{'s' if many else ''} {', '.join(seeds)}; each PPO trained for {steps:,} steps only; "
            f"intervals over {'seeds' if many else 'users'}; {newest.origin(of_env)};\n"
            f"`python -m benchmarks.strangers --threads 1 --only {env} --seeds {','.join(seeds)}`."
        )
        parts.append(f"{newest.table(head, [line for line in lines if line])}\n\n{said}")
    return "\n\n".join(parts)


def _line(name: str, rows: Sequence[newest.Row]) -> list[str]:
    """The cells of a row; [] where no seed has it. The ceiling has no regret."""
    if not rows:
        return []

    def mean(column: str, digits: int) -> str:
        values = [float(row[column]) for row in rows if row[column]]
        return f"{statistics.mean(values):.{digits}f}" if values else ""

    low, high = float(rows[0]["return_low"]), float(rows[0]["return_high"])
    if len(rows) > 1:
        over = interval(torch.tensor([float(row["return_mean"]) for row in rows]))
        low, high = over.low, over.high
    label = LABELS[name] + (f", {rows[0]['users']} users" if name == "informed" else "")
    cells = [label, mean("return_mean", 2), f"{low:.2f} – {high:.2f}", mean("length_mean", 1)]
    return [*cells, mean("regret_5", 2), mean("regret", 2)]


def main() -> None:
    parser = tables.parser(__doc__)
    parser.add_argument("--only", nargs="+", choices=TASKS, default=list(TASKS), metavar="NAME")
    parser.add_argument("--seeds", type=parse_seeds, default="0", help="as in 0-4 or 0,3,7 (default: 0)")
    parser.add_argument("--keep", type=Path, help="folder for the trained runs")
    args = tables.parse(parser, "strangers")
    torch.set_num_threads(args.threads or 1)
    seeds = [0] if args.smoke else args.seeds
    if args.keep is not None:
        tables.publish(run(args.only, seeds, args.keep, args.smoke), args)
        return
    with tempfile.TemporaryDirectory() as folder:
        tables.publish(run(args.only, seeds, Path(folder), args.smoke), args)


if __name__ == "__main__":
    tables.run(main)
