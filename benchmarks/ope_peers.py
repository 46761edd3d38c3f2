"""Our estimators beside those of the Open Bandit Pipeline, on the same numbers.

    python -m benchmarks.ope_peers --python V/bin/python [--data-dir FOLDER] [--json FILE] [--csv FILE]

V is an environment of its own with the pipeline, which needs NumPy 1 (the package `obp` stops at Python 3.10;
`sb-obp` is its successor by the same author):

    python -m venv V && V/bin/pip install sb-obp

Three logs: ``made``, single decisions of 12 items with exact propensities; ``slates``, three of six items
drawn one after another; ``open-bandit``, the random log of Open Bandit's small version and Thompson sampling,
left out where the data is not there. Both get the same weights and the same predictions of a reward model, in
float64. ``difference`` is relative to theirs. ``command`` is that of `recsys-rl ope`, which reads the made
logs from files. ``c`` is a clip that both are given, and ``width`` that of their bootstrap interval, in ours.
"""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor

from benchmarks import open_bandit
from benchmarks.harness import newest, tables
from benchmarks.harness.evidence import of_decisions
from benchmarks.harness.peer_script import answer_of_peer
from benchmarks.harness.turns import Row
from recsys_rl import cli
from recsys_rl.logs.ope.clusters import by_cluster
from recsys_rl.logs.ope.diagnostics import student_t
from recsys_rl.logs.ope.estimators import ESTIMATORS, Evidence, Slates
from recsys_rl.logs.public.open_bandit import load_open_bandit

PEER = tables.ROOT / "benchmarks" / "peers" / "ope" / "pipeline.py"
ROWS, ITEMS, GROUPS, CONTEXT = 4_000, 12, 4, 5
SLATE_ITEMS, PLACES = 6, 3
PLAIN = ("ips", "snips", "dm", "dr", "sndr", "mips")
CLIPS = {"clipped-ips": 2.0, "dros": 5.0}
SAME = 1e-9


@dataclass(frozen=True)
class Decisions:
    """E single decisions, and all that both packages need of them; P places of a page (1 without)."""

    items: Tensor  # (E,) int64
    places: Tensor  # (E,) int64
    rewards: Tensor  # (E,) float64
    context: Tensor  # (E, F) float64
    logging: Tensor  # (E, A) float64: pi_b at the row's place
    policy: Tensor  # (E, A) float64: pi at the row's place
    q: Tensor  # (E, A) float64: predictions of a reward model

    @property
    def groups(self) -> Tensor:
        """(A,) int64: the cluster of each item, by its number."""
        return torch.arange(self.policy.shape[1]) % GROUPS

    def chosen(self, values: Tensor) -> Tensor:
        """(E,): the values (E, A) of the logged items."""
        return values.gather(1, self.items.unsqueeze(1)).squeeze(1)

    def evidence(self) -> Evidence:
        """What our estimators get."""
        weights = self.chosen(self.policy) / self.chosen(self.logging)
        v = (self.policy * self.q).sum(1)
        shares = [by_cluster(values, self.groups) for values in (self.policy, self.logging)]
        at = self.groups[self.items].unsqueeze(1)
        clusters = (shares[0].gather(1, at) / shares[1].gather(1, at)).squeeze(1)
        return replace(of_decisions(weights, self.rewards, self.chosen(self.q), v), clusters=clusters)

    def arrays(self) -> dict[str, Any]:
        """What theirs get."""
        one_hot = torch.nn.functional.one_hot(self.groups).double().unsqueeze(2)  # (A, G, 1)
        number = int(self.places.max()) + 1

        def at_places(values: Tensor) -> Any:  # (E, A, P); only the row's own place is read
            return values.unsqueeze(2).expand(-1, -1, number).numpy()

        return {
            "reward": self.rewards.numpy(), "action": self.items.numpy(), "position": self.places.numpy(),
            "context": self.context.numpy(), "pscore": self.chosen(self.logging).numpy(),
            "action_dist": at_places(self.policy), "pi_b": at_places(self.logging), "q": at_places(self.q),
            "clusters": self.groups[self.items].unsqueeze(1).numpy(), "p_e_a": one_hot.numpy(),
        }  # fmt: skip

    def command(self, folder: Path) -> dict[str, float]:
        """The rows of `recsys-rl ope` that need no reward model."""
        log: dict[str, Any] = {"item": self.items.numpy(), "reward": self.rewards.numpy()}
        log |= {"propensity": self.chosen(self.logging).numpy()}
        return judged(folder, log, {"propensity": self.chosen(self.policy).numpy()})


@dataclass(frozen=True)
class SlateRows:
    """E slates of K items, each drawn from those left."""

    items: Tensor  # (E, K) int64
    rewards: Tensor  # (E, K) float64
    logging: Tensor  # (E, 2, K) float64: pi_b of each item given those above, and whatever stands above
    policy: Tensor  # (E, 2, K) float64: the same of the judged policy
    chances: Tensor  # (E, K, A) float64: of the judged policy, of each item given those above
    q: Tensor  # (E, K, A) float64: predictions of what a place and those below it bring

    def evidence(self) -> Evidence:
        """What our estimators get."""
        ratio = (self.policy / self.logging).unsqueeze(1)  # (E, 1, 2, K)
        q, v = self.q.gather(2, self.items.unsqueeze(2)).squeeze(2), (self.chances * self.q).sum(2)
        parts = [values.unsqueeze(1) for values in (self.rewards, q, v)]
        slates = Slates(ratio[:, :, 0], ratio[:, :, 1], None, *parts)
        alive = torch.ones(len(self.items), 1, dtype=torch.bool)
        return Evidence(ratio[:, :, 0].prod(2), self.rewards.sum(1, keepdim=True), alive, slates=slates)

    def arrays(self) -> dict[str, Any]:
        """What theirs get: a row for each place."""
        number, places = self.items.shape
        arrays = {"slate_id": torch.arange(number).repeat_interleave(places)}
        arrays |= {"reward": self.rewards.flatten(), "position": torch.arange(places).repeat(number)}
        arrays |= {"action": self.items.flatten(), "q": self.q.flatten(), "chances": self.chances.flatten()}
        for name, of in (("", self.logging), ("evaluation_policy_", self.policy)):
            above = of[:, 0].cumprod(1)
            arrays[f"{name}pscore"] = above[:, -1:].expand(-1, places).flatten()
            arrays[f"{name}pscore_cascade"] = above.flatten()
            arrays[f"{name}pscore_item_position"] = of[:, 1].flatten()
        return {name: values.numpy() for name, values in arrays.items()}

    def command(self, folder: Path) -> dict[str, float]:
        """The rows of `recsys-rl ope` that a file of probabilities is enough for."""
        mine, theirs = self.policy[:, 0], self.logging[:, 0]
        log: dict[str, Any] = {"items": self.items.tolist(), "signal.click": self.rewards.tolist()}
        log |= {"propensity": theirs.prod(1).numpy(), "place_logprobs": theirs.log().tolist()}
        target = {"propensity": mine.prod(1).numpy(), "place_logprobs": mine.log().tolist()}
        return judged(folder, log, target)


def made(generator: torch.Generator, rows: int) -> Decisions:
    """Decisions of a softmax; the policy is another softmax, and the reward model is wrong."""
    context = torch.randn(rows, CONTEXT, generator=generator, dtype=torch.float64)

    def linear(scale: float) -> Tensor:
        of_items = torch.randn(CONTEXT, ITEMS, generator=generator, dtype=torch.float64)
        return scale * context @ of_items

    logging, policy, rates = linear(0.4).softmax(1), linear(0.4).softmax(1), linear(0.5).sigmoid()
    items = torch.multinomial(logging, 1, generator=generator)
    rewards = torch.bernoulli(rates.gather(1, items).squeeze(1), generator=generator)
    q = (rates + 0.2 * torch.rand(rates.shape, generator=generator, dtype=torch.float64)).clamp_max(1)
    return Decisions(
        items.squeeze(1), torch.zeros(rows, dtype=torch.int64), rewards, context, logging, policy, q
    )


def made_slates(generator: torch.Generator, rows: int) -> SlateRows:
    """Slates of two Plackett-Luce policies; a click is likelier after a click above."""
    every = torch.tensor(list(permutations(range(SLATE_ITEMS), PLACES)))  # (M, K)
    logits = 0.5 * torch.randn(2, rows, SLATE_ITEMS, generator=generator, dtype=torch.float64)
    given = []  # of each policy (E, M, K): pi of each item of each slate, given those above
    for of in logits:
        scores = of.exp()[:, every]  # (E, M, K)
        left = of.exp().sum(1)[:, None, None] - scores.cumsum(2) + scores
        given.append(scores / left)
    drawn = torch.multinomial(given[0].prod(2), 1, generator=generator).squeeze(1)  # (E,)
    items, row = every[drawn], torch.arange(rows)
    at = every.unsqueeze(0) == items.unsqueeze(1)  # (E, M, K): the slates with this item at this place
    both = [torch.stack([of[row, drawn], (of.prod(2).unsqueeze(2) * at).sum(1)], 1) for of in given]
    rates = torch.rand(SLATE_ITEMS, generator=generator, dtype=torch.float64)[items] / 2
    rewards = torch.zeros(rows, PLACES, dtype=torch.float64)
    for place in range(PLACES):
        more = 0.3 * (rewards[:, place - 1] if place else 0.0)
        rewards[:, place] = torch.bernoulli(rates[:, place] + more, generator=generator)
    left, columns = logits[1].exp().clone(), []
    for column in items.unbind(1):
        columns.append(left / left.sum(1, keepdim=True))
        left = left.scatter(1, column.unsqueeze(1), 0.0)
    q = torch.rand(rows, PLACES, SLATE_ITEMS, generator=generator, dtype=torch.float64)  # a wrong model
    return SlateRows(items, rewards, both[0], both[1], torch.stack(columns, 1), q)


def public(data_dir: Path, draws: int) -> Decisions:
    """The random log of Open Bandit, Thompson sampling, and the reward model of benchmarks.open_bandit."""
    log = load_open_bandit(data_dir)
    generator = np.random.RandomState(open_bandit.SEED)
    prior = open_bandit.load_prior(data_dir)
    policy = open_bandit.thompson_policy(prior, draws, open_bandit.PLACES, generator)[log.positions]
    rows = torch.arange(len(log.items))
    q = open_bandit.reward_model(log, rows, open_bandit.folds_of_rows(len(rows)))
    logging = log.propensities.unsqueeze(1).expand(-1, log.num_items)  # uniform
    return Decisions(log.items, log.positions, log.clicks, log.user_features, logging, policy, q)


def judged(folder: Path, log: Mapping[str, Any], target: Mapping[str, Any]) -> dict[str, float]:
    """The values of the file's policy in the JSON of `recsys-rl ope`."""
    paths = [folder / name for name in ("log.parquet", "target.parquet", "ope.json")]
    for path, columns in zip(paths, (log, target), strict=False):
        pl.DataFrame(dict(columns)).write_parquet(path)
    words = ["ope", "--log", str(paths[0]), "--target", str(paths[1]), "--json", str(paths[2]), "--no-world"]
    with contextlib.redirect_stdout(None):
        assert cli.main(words) == 0
    rows = json.loads(paths[2].read_text())["rows"]
    return {row["estimator"]: row["value"] for row in rows if row["policy"].startswith("target")}


def relative(mine: float, other: float) -> float:
    return abs(mine - other) / abs(other)


def compared(
    name: str, log: Decisions | SlateRows, other: Mapping[str, Any], command: Mapping[str, float]
) -> list[Row]:
    """A row for each estimator of a log."""
    evidence, values, rows = log.evidence(), other["values"], list[Row]()
    for estimator, value in values.items():
        of, clip = ESTIMATORS[estimator], CLIPS.get(estimator)
        terms = of.score(evidence) if clip is None else of.clipped(evidence, clip)
        mine = float(terms.mean())
        row: Row = {"log": name, "estimator": estimator, "c": clip, "ours": mine, "theirs": value}
        row |= {"difference": relative(mine, value)}
        if estimator in command and clip is None:  # the command chooses a clip itself
            row |= {"command": relative(command[estimator], value)}
        if estimator in other.get("widths", {}):
            low, high = student_t(terms)
            row |= {"width": other["widths"][estimator] / (high - low)}
        rows.append(row)
    return rows


def _size(differences: list[float]) -> str:
    """The largest one; an empty cell for none."""
    return f"{max(differences):.0e}" if max(differences, default=0.0) else "0" if differences else ""


def agreement(results: Path) -> str:
    """The table of the docs: the largest differences of each estimator."""
    rows = [
        row for row in newest.read(results, "ope_peers") if row["estimator"] in ESTIMATORS and not row["way"]
    ]
    lines = []
    for name in dict.fromkeys(row["estimator"] for row in rows):
        here = [row for row in rows if row["estimator"] == name]
        sizes = [_size([float(row[key]) for row in here if row[key]]) for key in ("difference", "command")]
        widths = ", ".join(f"{float(row['width']):.3f}" for row in here if row["width"])
        lines.append([f"`{name}`", ", ".join(f"`{row['log']}`" for row in here), *sizes, widths])
    head = ["estimator", "logs", "largest difference", "of the command", "width of its interval, in ours"]
    about = f"{rows[-1]['peer']}, NumPy {rows[-1]['numpy']}; `python -m benchmarks.ope_peers`"
    return f"{newest.table(head, lines)}\n\n{about}, {newest.origin(rows)}."


def main() -> None:
    parser = tables.parser(__doc__)
    parser.add_argument("--python", default=sys.executable, help="of the environment with the pipeline")
    parser.add_argument("--data-dir", type=Path, default=tables.ROOT.parent / "shared/data/open-bandit-small")
    args = tables.parse(parser, "ope_peers")
    generator = torch.Generator().manual_seed(0)
    rows, draws = (400, 20_000) if args.smoke else (ROWS, open_bandit.DRAWS)
    logs: dict[str, Decisions | SlateRows] = {
        "made": made(generator, rows), "slates": made_slates(generator, rows)
    }  # fmt: skip
    if args.data_dir.is_dir() and not args.smoke:
        logs["open-bandit"] = public(args.data_dir, draws)
    with tempfile.TemporaryDirectory(prefix="ope-peers-") as name:
        folder = Path(name)
        for log, of in logs.items():
            np.savez(
                folder / f"{'slates' if isinstance(of, SlateRows) else 'decisions'}-{log}.npz", **of.arrays()
            )
        (folder / "clips.json").write_text(json.dumps(CLIPS))
        found = answer_of_peer(args.python, PEER, "the Open Bandit Pipeline", folder)
        about = {name: found[name] for name in ("peer", "numpy")}
        table = [
            about | row
            for log, of in logs.items()
            for row in compared(log, of, found["logs"][log], of.command(folder))
        ]
    tables.publish(table, args, digits=8)
    refused = {of["refused"] for of in found["logs"].values() if of.get("refused")}
    print("\n".join(f"mips without the weights of clusters: {text}" for text in refused))
    far = [row for row in table if row.get("difference", 0) > SAME]
    print(f"{len(far)} rows differ by more than {SAME:g}.")


if __name__ == "__main__":
    tables.run(main)
