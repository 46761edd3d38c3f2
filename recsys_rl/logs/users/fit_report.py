"""The report on learned users: held-out sessions, beside simple predictors and the true simulator.

Each step of a held-out session is predicted from what was shown and answered before it. Signals of 0 and 1
have the log loss, others the mean pinball loss at nine quantiles (logs/users/signals.py). Beside the learned
users stand:

- popularity: the item's mean on the sessions that were learned from;
- additive: that mean and the user's mean difference from it, in the session so far;
- truth: the simulator of the log, where there is one, in the state that the session's answers give.

The survival curve of the learned users is that of their chances of leaving at each step of the real sessions,
each step averaged over the sessions that were still under way in reality. Learned users would lose others and
keep others, so the mean length is that of learned users only if at each step the chance of leaving does not
depend on who is still there. The items after the end of a real session are unknown, so no other is to be had.
Returns, and the sessions that a classifier tries to tell from real ones (real_or_learned.py), are of sessions
with the items and the length of the real ones, in which the learned users answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from recsys_rl.errors import amount
from recsys_rl.logs.users.file import LearnedFile
from recsys_rl.logs.users.item_means import shrunk_means
from recsys_rl.logs.users.real_or_learned import auc, classifier_auc
from recsys_rl.logs.users.session_table import SessionTable
from recsys_rl.logs.users.signals import LEVELS, pinball
from recsys_rl.objective.weighted import stream_weights
from recsys_rl.protocols import UserModel
from recsys_rl.types import Feedback

MOST = 1000  # sessions of the report, evenly spread over those that are held out
DRAWS = 100  # of the true simulator, for its quantiles
PRIOR = 5.0  # answers that a mean is worth before there are any
LENGTHS = " (learned: by the chances of leaving of those who were still there in the real sessions)"
NINE = slice(1, -1)  # the nine levels among LEVELS


class Predictions(NamedTuple):
    """R shown places: probabilities (R,) of signals of 0 and 1, quantiles (R, Q) of other signals."""

    signals: Sequence[Tensor]
    leaving: Tensor | None  # (R',) of R' steps; None: no prediction


def fit_report(
    file: LearnedFile,
    held: SessionTable,
    fitted: SessionTable,
    users: UserModel | None,
    all_signals: SessionTable | None = None,
) -> dict[str, Any]:
    """The report on learned users.

    Args:
        held: the held-out sessions, and ``fitted``, those that were learned from, with the users' signals.
        users: the true simulator; None if there is none.
        all_signals: the held-out sessions with all signals of the simulator, which its state needs.
    """
    chosen = torch.linspace(0, held.num_sessions - 1, min(MOST, held.num_sessions)).long()
    held = held.rows(chosen)
    models = {"learned": _learned(file, held)} | _simple(file, held, fitted)
    if users is not None and all_signals is not None:
        models["truth"] = _truth(file, users, all_signals.rows(chosen))
    values = held.signals[held.shown]  # (R, S)
    kinds = file.members[0].kinds
    signals = []
    for index, signal in enumerate(file.facts.signals):
        of_signal = {name: one.signals[index] for name, one in models.items()}
        scores = _scores(of_signal, values[:, index], kinds.binary[index])
        signals.append({"name": signal.name, "binary": kinds.binary[index], **scores})
    left = held.left_after[held.under_way]  # (R',)
    leaving = {name: one.leaving for name, one in models.items() if one.leaving is not None}
    played = _played(file, held)
    weights = file.facts.of_signals @ stream_weights(file.facts.streams)
    returns = [answers.sum((1, 2)) @ weights for answers in (held.signals, played)]  # (B,) each
    alive = _survival(held, models["learned"].leaving)
    return {
        "sessions": held.num_sessions,
        "decisions": int(held.lengths.sum()),
        "signals": signals,
        "leaving": _scores(leaving, left.float(), True),
        "lengths": {"real": alive[0].sum().item(), "learned": alive[1].sum().item()}
        | {"distance": (alive[0] - alive[1]).abs().max().item()},
        "returns": {"real": returns[0].mean().item(), "learned": returns[1].mean().item()}
        | {"distance": _kolmogorov(*returns)},
        "classifier_auc": classifier_auc(held, played, file.world),
    }


@torch.no_grad()
def _learned(file: LearnedFile, held: SessionTable) -> Predictions:
    """The mean of the networks' probabilities, and of their quantiles."""
    shown, there = held.shown, held.under_way
    kinds, signals, leaving = file.members[0].kinds, [], []
    for member in file.members:
        outputs, logits = member.of_sessions(held)
        leaving.append(logits.sigmoid()[there] * (kinds.leave_weight > 0))
        signals.append(
            [
                (outputs.probability(index) if one else outputs.quantiles(index))[shown]
                for index, one in enumerate(kinds.binary)
            ]
        )
    means = [torch.stack(parts).mean(0) for parts in zip(*signals, strict=True)]
    return Predictions(means, torch.stack(leaving).mean(0))


def _simple(file: LearnedFile, held: SessionTable, fitted: SessionTable) -> dict[str, Predictions]:
    """The predictions by the item's mean, and by that of the user in the session so far beside it."""
    kinds, signals = file.members[0].kinds, {"popularity": [], "additive": []}  # type: ignore[var-annotated]
    of_items = shrunk_means(fitted, file.world.catalogue.num_items, PRIOR)  # (I, S)
    for index, (one, means) in enumerate(zip(kinds.binary, of_items.unbind(1), strict=True)):
        for name, rows in signals.items():
            known, seen = (_by_means(table, index, means, name == "additive") for table in (held, fitted))
            if one:
                rows.append(known.clamp(1e-3, 1 - 1e-3))
            else:
                rest = fitted.signals[..., index][fitted.shown] - seen
                rows.append(known.unsqueeze(1) + rest[: 2**20].quantile(rest.new_tensor(LEVELS)))
    left = torch.zeros(held.items.shape[1])
    at = min(len(left), fitted.items.shape[1])
    left[:at] = _hazard(fitted.left_after.float(), fitted.under_way)[:at]
    by_step = left.expand(held.num_sessions, -1)[held.under_way].clamp(1e-4, 1 - 1e-4)
    return {
        name: Predictions(rows, by_step if name == "popularity" else None) for name, rows in signals.items()
    }


def _by_means(table: SessionTable, index: int, means: Tensor, additive: bool) -> Tensor:
    """(R,): the mean of each shown item, with ``additive`` plus the user's difference so far."""
    shown = table.shown
    known = means[table.items.clamp_min(0)]  # (B, T, K)
    if additive:
        rest = ((table.signals[..., index] - known) * shown).sum(2)  # (B, T)
        before = rest.cumsum(1) - rest
        count = shown.sum(2)
        known = known + (before / (count.cumsum(1) - count + PRIOR)).unsqueeze(2)
    return known[shown]


def _truth(file: LearnedFile, users: UserModel, table: SessionTable) -> Predictions:
    """The simulator's own probabilities and quantiles, along the real sessions."""
    names = [signal.name for signal in users.signals]
    places = [names.index(signal.name) for signal in file.facts.signals]
    kinds, noise = file.members[0].kinds, torch.Generator().manual_seed(0)
    ids, order = file.world.population.user_ids.sort()
    state = users.sample(order[torch.searchsorted(ids, table.users)])
    steps: list[list[Tensor]] = []
    leaving = []
    for step in range(table.items.shape[1]):
        shown = table.items[:, step] >= 0  # (B, K)
        items = table.items[:, step].clamp_min(0)
        mean = users.respond(state, items, shown, None).signals
        drawn: Tensor | None = None
        if not all(kinds.binary):
            draws = [users.respond(state, items, shown, noise).signals[..., places] for _ in range(DRAWS)]
            drawn = torch.stack(draws).quantile(mean.new_tensor(LEVELS), 0)  # (Q, B, K, S)
        columns = []
        for at, (index, one) in enumerate(zip(places, kinds.binary, strict=True)):
            if one or drawn is None:
                columns.append(mean[..., index])
            else:
                columns.append(drawn[..., at].movedim(0, -1))
        steps.append(columns)
        state, leaves = users.advance(state, items, Feedback(table.signals[:, step], shown))
        leaving.append(leaves.float())
    signals = [torch.stack(parts, 1)[table.shown] for parts in zip(*steps, strict=True)]
    return Predictions(signals, torch.stack(leaving, 1)[table.under_way])


@torch.no_grad()
def _played(file: LearnedFile, held: SessionTable) -> Tensor:
    """(B, T, K, S): the answers of the learned users to the items of real sessions, for as many steps."""
    network, noise = file.network, torch.Generator().manual_seed(0)
    member = torch.randint(network.num_members, (held.num_sessions,), generator=noise)
    memory, signals = network.begin(held.given, held.num_sessions), torch.zeros_like(held.signals)
    for step in range(held.items.shape[1]):
        items = held.items[:, step]  # (B, K)
        shown, rows = items >= 0, items.clamp_min(0)
        chance = torch.rand(held.signals[:, step].shape, generator=noise)
        answers = network.drawn(memory, rows, member, chance)
        signals[:, step] = answers * shown.unsqueeze(-1)
        memory, _ = network.after(memory, rows, shown, signals[:, step], member)
    return signals


def _survival(held: SessionTable, leaving: Tensor | None) -> tuple[Tensor, Tensor]:
    """(T,) each: the share of users who are there at each step, of the real ones and of the learned ones.

    The learned chance of a step is the mean over the real sessions that reach it (the module's text).
    """
    there = held.under_way
    real = _hazard(held.left_after.float(), there)
    learned = torch.zeros_like(there, dtype=torch.float32)
    assert leaving is not None
    learned[there] = leaving
    alive = [
        torch.cat([hazard.new_ones(1), (1 - hazard).cumprod(0)[:-1]])
        for hazard in (real, _hazard(learned, there))
    ]
    return alive[0], alive[1]


def _hazard(chance: Tensor, there: Tensor) -> Tensor:
    """(T,): the mean chance of leaving of those who are there."""
    return (chance * there).sum(0) / there.sum(0).clamp_min(1)


def _kolmogorov(one: Tensor, two: Tensor) -> float:
    """The largest distance of two samples' distribution functions."""
    points = torch.cat([one, two]).sort().values
    shares = [
        torch.searchsorted(sample.sort().values, points, right=True) / len(sample) for sample in (one, two)
    ]
    return float((shares[0] - shares[1]).abs().max())


def _scores(
    predictions: Mapping[str, Tensor], values: Tensor, binary: bool
) -> dict[str, dict[str, float | None]]:
    """Loss, AUC and calibration of each predictor of ``values`` (R,).

    The AUC of a number is that of its median, for values above the median of all. The calibration of a
    probability is the mean distance between it and the share of ones, in ten bins of equal size; that of
    quantiles is the largest distance between a level and the share of values below it.
    """
    result: dict[str, dict[str, float | None]] = {"loss": {}, "auc": {}, "calibration": {}}
    for name, predicted in predictions.items():
        if binary:
            loss = nn.functional.binary_cross_entropy(
                predicted.clamp(1e-6, 1 - 1e-6).double(), values.double()
            )
            of_bins = [
                (predicted[rows].mean() - values[rows].mean()).abs() for rows in predicted.argsort().chunk(10)
            ]
            calibration = torch.stack(of_bins).mean()
            area = auc(predicted, values > 0.5)
        else:
            loss = pinball(predicted, values.unsqueeze(1))[:, NINE].mean()
            below = (values.unsqueeze(1) <= predicted).float().mean(0)
            calibration = (below - below.new_tensor(LEVELS)).abs()[NINE].max()
            area = auc(predicted[:, len(LEVELS) // 2], values > values.median())
        result["loss"][name] = float(loss)
        result["auc"][name] = area
        result["calibration"][name] = float(calibration)
    return result


def print_fit_report(report: Mapping[str, Any]) -> None:
    """Print the report of ``fit_report`` as a table."""
    print(f"held out: {report['decisions']:,} decisions of {report['sessions']:,} sessions")
    print(f"{'':28}{'loss':>9}{'AUC':>9}{'calibration':>13}")
    for row in [*report["signals"], {"name": "leaving", **report["leaving"]}]:
        for number, name in enumerate(row["loss"]):
            cells = [row[what][name] for what in ("loss", "auc", "calibration")]
            texts = ["" if value is None else f"{value:.4f}" for value in cells]
            title = row["name"] if number == 0 else ""
            print(f"{title:14}{name:14}{texts[0]:>9}{texts[1]:>9}{texts[2]:>13}")
    for name, note in (("lengths", LENGTHS), ("returns", "")):
        numbers = report[name]
        means = f"real {numbers['real']:.2f}, learned {numbers['learned']:.2f}"
        print(f"mean {name}: {means}; distance {numbers['distance']:.3f}{note}")
    area = report["classifier_auc"]
    print(
        f"AUC of a classifier of {amount(report['sessions'], 'real session')} and as many learned ones: "
        f"{area:.3f} (0.5: it can't tell)"
    )
