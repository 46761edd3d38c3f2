"""Checks of a DecisionLog: each mistake is one UserError that names the first row with it.

Rows are counted from 1, in the order of the file.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from recsys_rl.decisions.log import DecisionLog, catalogue_hash
from recsys_rl.types import Catalogue, UserError

ROUNDING = 1e-5
"""Largest error of a logarithm or of a sum of logarithms that counts as rounding."""


def check_distributions(name: str, every: Tensor, place: Callable[[int], str]) -> None:
    """Raise UserError unless each row of ``every`` (E, I) is a distribution; ``place`` names a row."""
    wrong = ~((every >= 0).all(1) & ((every.sum(1) - 1).abs() <= 1e-4))  # True for NaN
    if bool(wrong.any()):
        row = int(wrong.nonzero()[0])
        raise UserError(
            f"{name}: the probabilities of {place(row)} are no distribution: give numbers of at least 0 that "
            "sum to 1."
        )


def check_probabilities(name: str, values: Tensor, column: str) -> None:
    """Raise UserError unless ``values`` (E,) are possible in ``column``, logprob or propensity.

    Probabilities are above 0 and at most 1; logarithms are at most 0 and finite.
    """
    as_log = column == "logprob"
    finite = values.isfinite()
    bad = ~finite | (values > (ROUNDING if as_log else 1.0)) | (False if as_log else values <= 0)
    if not bool(bad.any()):
        return
    known = values[finite]
    hint = ""
    if as_log and len(known) and bool(((known >= 0) & (known <= 1)).all()):
        hint = "; the values look like probabilities: name the column propensity"
    if not as_log and len(known) and bool((known <= 0).all()):
        hint = "; the values look like logarithms: name the column logprob"
    row = int(bad.nonzero()[0])
    rule = (
        "a logarithm of a probability is a number up to 0"
        if as_log
        else "a probability is above 0 and at most 1, as the action was taken"
    )
    raise UserError(f"{name}: {column} is {values[row]:g} in row {row + 1}: {rule}{hint}.")


def check_rows(name: str, log: DecisionLog, rows: Tensor) -> None:
    """Raise UserError for the first mistake in a log whose rows are ordered by session and step.

    ``rows`` (E,) are the numbers of the rows in the file.
    """
    _check_sessions(name, log, rows)
    _check_items(name, log, rows)
    _check_values(name, log, rows)


def check_catalogue(name: str, log: DecisionLog, catalogue: Catalogue, source: str = "") -> None:
    """Raise UserError if the log is of another catalogue than ``catalogue``.

    ``source``: the data that the checkpoint's catalogue was made of, in words; "" if unknown.
    """
    if log.header.num_items == catalogue.num_items and log.header.catalogue == catalogue_hash(catalogue):
        return
    of = f", made of {source}" if source else ""
    mend = "give the checkpoint, or the log, of the same data and seed"
    if log.header.num_items == catalogue.num_items:
        raise UserError(
            f"{name} is a log of another catalogue than the checkpoint's{of}: both have "
            f"{catalogue.num_items:,} items, but their ids, embeddings or attributes differ; {mend}."
        )
    raise UserError(
        f"{name} is a log of another catalogue ({log.header.num_items:,} items) than the checkpoint's "
        f"({catalogue.num_items:,} items{of}): {mend}."
    )


def _first(bad: Tensor, rows: Tensor) -> tuple[int, int] | None:
    """The place and the number in the file of the first of the ``bad`` (E,) rows; None if there is none."""
    if not bool(bad.any()):
        return None
    places = bad.nonzero().squeeze(1)
    place = int(places[rows[places].argmin()])
    return place, int(rows[place])


def _check_sessions(name: str, log: DecisionLog, rows: Tensor) -> None:
    new = torch.ones(log.num_rows, dtype=torch.bool)  # the first row of a session
    new[1:] = log.sessions[1:] != log.sessions[:-1]
    before = torch.arange(log.num_rows).sub(1).clamp_min(0)  # of the row before in the same session
    end = log.terminated | log.truncated

    found = _first(~new & (log.steps == log.steps[before]), rows)
    if found is not None:
        at, row = found
        same = all(torch.equal(x[at], x[at - 1]) for x in (log.users, log.items, log.times, log.signals))
        what = "are the same decision twice" if same else "are both"
        where = "" if same else f" step {int(log.steps[at])} of session {int(log.sessions[at])}"
        raise UserError(f"{name}: rows {int(rows[at - 1])} and {row} {what}{where}: remove one of them.")
    first = torch.where(new, 0, log.steps[before] + 1)
    found = _first(log.steps != first, rows)
    if found is not None:
        at, row = found
        raise UserError(
            f"{name}: session {int(log.sessions[at])} has step {int(log.steps[at])} in row {row} but no step "
            f"{int(first[at])}: steps count 0, 1, 2, ... without a gap; leave the whole session out."
        )
    found = _first(~new & (log.users != log.users[before]), rows)
    if found is not None:
        at, row = found
        raise UserError(
            f"{name}: session {int(log.sessions[at])} is of the users {int(log.users[before[at]])} and "
            f"{int(log.users[at])} (row {row}): give each session of each user its own number."
        )
    found = _first(~new & (log.times < log.times[before]), rows)
    if found is not None:
        at, row = found
        raise UserError(
            f"{name}: session {int(log.sessions[at])} goes back in time at step {int(log.steps[at])} (row "
            f"{row}): times may not fall within a session."
        )
    found = _first(~new & end[before], rows)
    if found is not None:
        at, row = found
        raise UserError(
            f"{name}: session {int(log.sessions[at])} goes on after it ended (row {row}): only the last step "
            "may be terminated or truncated."
        )
    last = torch.ones_like(new)
    last[:-1] = new[1:]
    found = _first((last & ~end) | (log.terminated & log.truncated), rows)
    if found is not None:
        at, row = found
        how = "both terminated and truncated" if bool(end[at]) else "neither terminated nor truncated"
        raise UserError(
            f"{name}: the last step of session {int(log.sessions[at])} (row {row}) is {how}: give one, "
            "terminated if the user left, truncated if the recording stopped."
        )


def _check_items(name: str, log: DecisionLog, rows: Tensor) -> None:
    lists = {
        "items": log.items,
        "candidates": log.candidates,
        "exclude": log.exclude,
        "event_items": log.event_items,
    }
    for column, items in lists.items():
        if items is None or not items.shape[1]:
            continue
        wrong = (items < -1) | (items >= log.header.num_items)
        found = _first(wrong.any(1), rows)
        if found is not None:
            at, row = found
            raise UserError(
                f"{name}: {column} holds {int(items[at][wrong[at]][0])} in row {row}: items are 0 to "
                f"{log.header.num_items - 1}, rows of the catalogue, or -1 for an empty place."
            )
    shown = log.items >= 0  # (E, K)
    if log.exclude is not None:
        _refuse(name, log, rows, shown & _holds(log.exclude, log.items), "is among the row's exclude")
    if log.candidates is not None:
        outside = shown & ~_holds(log.candidates, log.items)
        _refuse(name, log, rows, outside, "is not among the row's candidates")
    places = log.items.shape[1]
    if log.header.interface.repeats and places == 1:
        return
    # The same item twice in a session, or in a slate where items may repeat.
    group = torch.arange(log.num_rows) if log.header.interface.repeats else log.sessions
    key = torch.stack([group.repeat_interleave(places), log.items.flatten()], 1)  # (E K, 2)
    _, inverse, counts = torch.unique(key, dim=0, return_inverse=True, return_counts=True)
    twice = (counts[inverse] > 1).view_as(log.items) & shown
    if bool(twice.any()):
        order = inverse.view_as(log.items).masked_fill(~twice, -1).flatten().sort(stable=True)
        again = torch.zeros(len(key), dtype=torch.bool)
        again[order.indices[1:]] = (order.values[1:] == order.values[:-1]) & (order.values[1:] >= 0)
        where = "slate" if log.header.interface.repeats else "session"
        _refuse(name, log, rows, again.view_as(log.items), f"was shown before in the same {where}")


def _holds(lists: Tensor, items: Tensor) -> Tensor:
    """(E, K) bool: True where the row of ``lists`` (E, n) holds the item of ``items`` (E, K)."""
    return torch.stack([(lists == item.unsqueeze(1)).any(1) for item in items.unbind(1)], 1)


def _refuse(name: str, log: DecisionLog, rows: Tensor, bad: Tensor, why: str) -> None:
    """Raise UserError for the first ``bad`` (E, K) item."""
    found = _first(bad.any(1), rows)
    if found is not None:
        at, row = found
        raise UserError(
            f"{name}: item {int(log.items[at][bad[at]][0])} of row {row} {why}, so it could not be shown: "
            "correct the row, or leave its session out."
        )


def _check_values(name: str, log: DecisionLog, rows: Tensor) -> None:
    for place, signal in enumerate(log.header.signals):
        found = _first(~log.signals[..., place].isfinite().all(1), rows)
        if found is not None:
            raise UserError(
                f"{name}: the signal {signal!r} is no finite number in row {found[1]}: give every shown "
                "item its outcome."
            )
    for piece, values in log.handed.items():
        found = _first(~values.isfinite().all(1), rows)
        if found is not None:
            raise UserError(f"{name}: the context {piece!r} is no finite number in row {found[1]}.")
    if log.has_propensities:
        _check_factors(name, log, rows)
    elif log.place_logprobs is not None or log.logger_logprobs is not None:
        raise UserError(
            f"{name} has place_logprobs or logger_logprobs but neither logprob nor propensity: add that of "
            "the whole action."
        )


def _check_factors(name: str, log: DecisionLog, rows: Tensor) -> None:
    factors = log.place_logprobs
    if factors is not None:
        found = _first(~((factors.sum(1) - log.logprobs).abs() <= ROUNDING * factors.shape[1]), rows)
        if found is not None:
            raise UserError(
                f"{name}: place_logprobs of row {found[1]} do not add up to its logprob: a row's probability "
                "is the product of its places'."
            )
    several = log.logger_logprobs
    if several is not None:
        bad = several.isnan() | (several > ROUNDING)  # -inf: this logger never takes the action
        own = several.gather(1, log.loggers.unsqueeze(1)).squeeze(1)
        found = _first(bad.any(1) | ~((own - log.logprobs).abs() <= ROUNDING), rows)
        if found is not None:
            raise UserError(
                f"{name}: logger_logprobs of row {found[1]} are impossible: they are logarithms up to 0, and "
                "that of the row's own logger is its logprob."
            )
    elif len(log.header.loggers) > 1:
        raise UserError(
            f"{name} has several loggers but no column logger_logprobs: each row needs its logprob under "
            "every logger."
        )
