"""Off-policy estimates where items come and go.

    python -m benchmarks.ope_stocks [--only stocks|mask] [--logs 160] [--seed 0] [--smoke]

A made-up shop: each person likes one of 8 brands and cheap things, and an item has a charm that no column
tells. Decisions are single ones, drawn by a softmax of what the shop guesses, and each could show the items
of its own moment. Truths are exact.

`stocks`: logs of 500 decisions; 40 items are there from the first one on, 20 come and 10 go while the log is
made, and 12 come after. ``covered`` counts the 95 % intervals that hold the true value of a policy over the
items of each moment; ``mean_weight`` is the mean of all logs.

`mask`: is a challenger better than the champion from now on? Each log of 1,000 decisions has a shop, a
champion that made it, and a challenger of its own. 40 items are there at first, and 5 come while it is made;
then a share of the 45 goes, and 5 others come. Both policies are judged by `dr` among the items of then, or
among those of them that are there now. ``right`` counts the differences with the sign of the true one among
the items of now, ``covered`` the intervals that hold it, ``wrong`` those that lie on the other side of 0.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from benchmarks.harness import tables
from benchmarks.harness.turns import Row
from recsys_rl.data.tables.item_encoding import StockItem, fitted
from recsys_rl.data.timeline import ALWAYS, NEVER, ItemTimeline, without_gone
from recsys_rl.logs.decision_log import DecisionHeader, DecisionLog, assemble
from recsys_rl.logs.ope.config import OpeConfig
from recsys_rl.logs.ope.diagnostics import student_t
from recsys_rl.logs.ope.ope import estimates
from recsys_rl.logs.ope.playable import playable
from recsys_rl.logs.ope.read_log import STREAMS, ReadLog
from recsys_rl.logs.rewards import of_signals
from recsys_rl.types import Action, Catalogue, Interface, Obs
from recsys_rl.utils.seeding import generators

BRANDS = 8
ESTIMATORS = ("ips", "dr")


@dataclass(frozen=True)
class Shop:
    """I items by their rows, and moments 0 .. N of decisions at which each is there."""

    brands: Tensor  # (I,) int64
    cheap: Tensor  # (I,) bool
    charm: Tensor  # (I,) float64
    since: Tensor  # (I,) int64: the first moment
    until: Tensor  # (I,): the first one after the last; NEVER for an item that is there now

    @property
    def rates(self) -> Tensor:
        """(T, I) float64: the probability of a click of each taste."""
        liked = torch.arange(BRANDS).unsqueeze(1) == self.brands
        return (0.05 + 0.45 * liked + 0.2 * self.cheap + self.charm).clamp(max=0.95)

    def catalogue(self) -> Catalogue:
        columns = zip(
            self.brands.tolist(),
            self.cheap.double().tolist(),
            self.since.tolist(),
            self.until.tolist(),
            strict=True,
        )
        items = [
            StockItem(
                f"i{row}", f"i{row}", {"brand": f"b{brand}", "cheap": cheap}, until == NEVER, since, until
            )
            for row, (brand, cheap, since, until) in enumerate(columns)
        ]
        return fitted(items)[0].catalogue(
            items, torch.full((len(items),), 1 / len(items)), "made up", "stock"
        )


def shop(since: Tensor, until: Tensor, noise: torch.Generator) -> Shop:
    items = len(since)
    return Shop(
        torch.randint(BRANDS, (items,), generator=noise),
        torch.rand(items, generator=noise) < 0.25,
        0.2 * torch.rand(items, generator=noise, dtype=torch.float64),
        since,
        until,
    )


@dataclass(frozen=True)
class Tabled:
    """A policy by logits (T, I) of tastes and items; -inf at items that it never shows."""

    logits: Tensor
    uniform: float = 0.0  # share of uniform draws among the items that it can show
    noise: torch.Generator = field(default_factory=lambda: torch.Generator().manual_seed(0))  # of draws

    def chances(self, tastes: Tensor, mask: Tensor) -> Tensor:
        """(B, I) float64, of the tastes (B,) and the items that may be shown (B, I)."""
        logits = self.logits[tastes].masked_fill(~mask, -torch.inf)
        able = logits > -torch.inf
        return (1 - self.uniform) * logits.softmax(1) + self.uniform * able / able.sum(1, keepdim=True)

    def item_probabilities(self, obs: Obs, num_items: int) -> Tensor:
        assert obs.mask is not None
        return self.chances(obs.context.argmax(1), obs.mask)

    def place_logprobs(self, obs: Obs, items: Tensor) -> Tensor:
        return self.item_probabilities(obs, self.logits.shape[1]).gather(1, items).log()

    def act(self, obs: Obs, greedy: bool = False) -> Action:
        chances = self.item_probabilities(obs, self.logits.shape[1])
        items = chances.argmax(1, keepdim=True) if greedy else chances.multinomial(1, generator=self.noise)
        return Action(items, chances.gather(1, items)[:, 0].log())


def value(of: Shop, policy: Tabled, masks: Tensor) -> float:
    """The mean reward over all tastes and the items (E, I) that could be shown."""
    masks, times = masks.unique(dim=0, return_counts=True)
    total = 0.0
    for mask, number in zip(masks, times.tolist(), strict=True):
        chances = policy.chances(torch.arange(BRANDS), mask.expand(BRANDS, -1))
        total += number * float((chances * of.rates).sum(1).mean())
    return total / int(times.sum())


def logged(of: Shop, catalogue: Catalogue, logger: Tabled, rows: int, noise: torch.Generator) -> DecisionLog:
    """Decisions 0 .. ``rows`` - 1, each of a new person, at the moments of these numbers."""
    moments = torch.arange(rows)
    tastes = torch.randint(BRANDS, (rows,), generator=noise)
    context = torch.nn.functional.one_hot(tastes, BRANDS)
    there = ItemTimeline.of(catalogue).available_at(moments)
    shown = dataclasses.replace(logger, noise=noise).act(Obs(context, mask=there))
    clicked = torch.rand(rows, generator=noise) < of.rates[tastes, shown.items[:, 0]]
    interface = Interface(
        (("taste", BRANDS),), (len(of.brands),), signals=("click",), session_length=1, profile=False
    )
    log = assemble(
        DecisionHeader(("logger",), interface, ("click",)),
        users=moments,
        items=shown.items,
        logprobs=shown.logprob,
        signals=clicked.view(-1, 1, 1),
        terminated=torch.ones(rows),
        given={"taste": context},
    )
    return dataclasses.replace(log, stock=moments)


def judged(
    log: DecisionLog, catalogue: Catalogue, policies: Sequence[Tabled]
) -> list[tuple[dict[str, Tensor], float]]:
    """Of each policy its terms (N,) by ESTIMATORS and its mean weight, as `ope` finds them."""
    options = OpeConfig(log=("made-up.csv",), world=False)
    read = ReadLog(log, catalogue, of_signals(("click",), {"click": 1.0}), generators(0, *STREAMS))
    further = [playable(str(at), of) for at, of in enumerate(policies)]
    with contextlib.redirect_stderr(io.StringIO()):
        result, found = estimates(options, read, further)
    means = {row.policy: row.weights.mean for row in result.rows if row.estimator == "ips" and row.weights}
    return [({by: found.terms[of.name][by] for by in ESTIMATORS}, means[of.name]) for of in further]


def guessed(of: Shop, noise: torch.Generator, error: float) -> Tabled:
    """A softmax of rates with an error of each item, and one of each pair of a taste and an item."""
    sizes = (len(of.brands),), (BRANDS, len(of.brands))
    errors = [error * torch.randn(size, generator=noise, dtype=torch.float64) for size in sizes]
    return Tabled(4 * (of.rates + errors[0] + errors[1]))


def stocks(logs: int, rows: int, seed: int) -> list[Row]:
    """How many intervals hold the truth, of policies with other items than the logger's."""
    noise = torch.Generator().manual_seed(seed)
    since, until = torch.full((72,), ALWAYS), torch.full((72,), NEVER)
    since[40:60] = torch.arange(1, 21) * rows // 22
    since[60:] = rows
    until[:10] = torch.arange(1, 11) * rows // 12
    of = shop(since, until, noise)
    catalogue, late = of.catalogue(), since > 0
    logger = dataclasses.replace(guessed(of, noise, 0.1), uniform=0.2)
    every = guessed(of, noise, 0.1)
    policies = {
        "the logger": logger,
        "all items": every,
        "items of the beginning": Tabled(every.logits.masked_fill(late, -torch.inf)),
        "fond of new items": Tabled(every.logits + late.double()),
    }
    then = ItemTimeline.of(catalogue).available_at(torch.arange(rows))
    truths = [value(of, policy, then) for policy in policies.values()]
    covered, weights = Counter[tuple[str, str]](), dict.fromkeys(policies, 0.0)
    for number in range(logs):
        made = logged(of, catalogue, logger, rows, torch.Generator().manual_seed(seed * 1_000_003 + number))
        found = judged(made, catalogue, list(policies.values()))
        for name, (terms, mean), truth in zip(policies, found, truths, strict=True):
            weights[name] += mean / logs
            for by, each in terms.items():
                low, high = student_t(each)
                covered[name, by] += low <= truth <= high
    return [
        {
            "case": name,
            "estimator": by,
            "logs": logs,
            "covered": covered[name, by],
            "truth": truth,
            "mean_weight": weights[name],
        }
        for name, truth in zip(policies, truths, strict=True)
        for by in ESTIMATORS
    ]


GONE = (
    ("any", 0.0),
    ("any", 0.2),
    ("any", 0.5),
    ("any", 0.8),
    ("shown most", 0.2),
    ("shown most", 0.5),
    ("the challenger's", 0.2),
)
"""Which items go after the log, and their share."""
MASKS: dict[str, Callable[[Catalogue], Catalogue]] = {"then": lambda of: of, "then and now": without_gone}


def mask(logs: int, rows: int, seed: int) -> list[Row]:
    """Whether a challenger and the champion are ordered as from now on, by the items of each moment."""
    return [row for kind, share in GONE for row in of_gone(kind, share, logs, rows, seed)]


def of_gone(kind: str, share: float, logs: int, rows: int, seed: int) -> list[Row]:
    found: dict[str, list[tuple[float, ...]]] = {name: [] for name in MASKS}
    for number in range(logs):
        noise = torch.Generator().manual_seed(seed * 1_000_003 + number)
        since = torch.full((50,), ALWAYS)
        since[40:45] = torch.arange(1, 6) * rows // 8
        since[45:] = rows
        of = shop(since, torch.full((50,), NEVER), noise)
        champion, challenger = (guessed(of, noise, 0.15) for _ in range(2))
        gone = _going(kind, round(45 * share), champion, challenger, noise)
        of = dataclasses.replace(of, until=of.until.index_fill(0, gone, rows))
        catalogue, now = of.catalogue(), (of.until == NEVER).unsqueeze(0)
        made = logged(of, catalogue, dataclasses.replace(champion, uniform=0.2), rows, noise)
        truth = value(of, challenger, now) - value(of, champion, now)
        for name, laid in MASKS.items():
            (new, mean), (old, _) = judged(made, laid(catalogue), [challenger, champion])
            terms = new["dr"] - old["dr"]
            found[name].append((float(terms.mean()), *student_t(terms), truth, mean))
    rows_of = []
    for name, values in found.items():
        difference, low, high, truth, weight = torch.tensor(values, dtype=torch.float64).T
        rows_of.append(
            {
                "case": f"{share:.0%} go: {kind}",
                "mask": name,
                "estimator": "dr",
                "logs": logs,
                "right": int((difference * truth > 0).sum()),
                "covered": int(((low <= truth) & (truth <= high)).sum()),
                "wrong": int((((low > 0) & (truth < 0)) | ((high < 0) & (truth > 0))).sum()),
                "error": float((difference - truth).square().mean().sqrt()),
                "half_width": float((high - low).mean() / 2),
                "mean_weight": float(weight.mean()),
            }
        )
    return rows_of


def _going(kind: str, number: int, champion: Tabled, challenger: Tabled, noise: torch.Generator) -> Tensor:
    """The rows (G,) of the items that go, of the first 45."""
    if kind == "any":
        return torch.randperm(45, generator=noise)[:number]
    mask = torch.arange(50).expand(BRANDS, -1) < 45
    mine, theirs = (of.chances(torch.arange(BRANDS), mask).mean(0) for of in (champion, challenger))
    liked = mine if kind == "shown most" else theirs - mine
    return liked[:45].argsort(descending=True)[:number]


QUESTIONS: dict[str, tuple[Callable[[int, int, int], list[Row]], int]] = {
    "stocks": (stocks, 500),
    "mask": (mask, 1_000),
}


def main() -> None:
    parser = tables.parser(__doc__, "logs", 160)
    parser.add_argument("--only", choices=tuple(QUESTIONS), help="one question; without it, all")
    parser.add_argument("--seed", type=int, default=0)
    args = tables.parse(parser, "ope_stocks")
    torch.set_num_threads(args.threads or 1)
    rows: list[Row] = []
    for question, (answer, decisions) in QUESTIONS.items():
        if args.only in (None, question):
            logs, size = (2, 100) if args.smoke else (args.logs, decisions)
            found = answer(logs, size, args.seed)
            rows += [{"question": question, "seed": args.seed, **row} for row in found]
    tables.publish(rows, args)


if __name__ == "__main__":
    tables.run(main)
