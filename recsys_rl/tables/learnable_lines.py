"""The facts of learnable.py as lines for people, beside the description of a log of decisions."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from recsys_rl.errors import amount, short
from recsys_rl.records import Need
from recsys_rl.tables.learnable import Learnable, Propensities, missing_most, reason_against


def learnable_lines(log: Learnable, needs: Mapping[str, Collection[Need]]) -> Iterator[str]:
    """What can be learned from the log. ``needs``: what each algorithm needs, by its name."""
    yield "to learn from this log:"
    yield f"  {_context(log)}"
    if log.propensities is None:
        yield "  propensities: none"
    else:
        yield f"  propensities: {_propensities(log, log.propensities)}"
        yield from (f"  effective sample size: {x}" for x in _effective(log, log.propensities))
    against = reasons(log, needs)
    can = [algo for algo, reason in against.items() if not reason]
    first = "" if log.sound else ", once the problems above are mended"
    yield f"  can learn{first}: {', '.join(can) or 'none'}"
    for reason in dict.fromkeys(filter(None, against.values())):
        yield f"  can't learn: {', '.join(x for x in against if against[x] == reason)} ({reason})"
    yield f"  missing most: {missing_most(log)}"


def reasons(log: Learnable, needs: Mapping[str, Collection[Need]]) -> dict[str, str]:
    """Why each algorithm can't learn from the log; "" for one that can."""
    faults = {algo: reason_against(log, x) for algo, x in needs.items()}
    return {algo: "" if fault is None else fault.text for algo, fault in faults.items()}


def _context(log: Learnable) -> str:
    more = "beside what a session determines" if log.derived else ""
    if log.constant_share is None:
        return f"context: none {more or '(columns context.NAME)'}"
    size = sum(piece.size for piece in log.context)
    text = f"context: {amount(size, 'number')} in {amount(len(log.context), 'column')}"
    text += f" {more}" if more else ""
    constant = [piece.column for piece in log.context if piece.constant]
    names = f" (in {', '.join(constant)})" if constant else ""
    return f"{text}, {log.constant_share:.1%} of them the same in all rows{names}"


def _propensities(log: Learnable, found: Propensities) -> str:
    where = "in all rows" if found.rows == log.rows else f"in {found.rows:,} of {amount(log.rows, 'row')}"
    if found.mean_inverse is None:
        return f"{where}, not compared with the number of choices"
    text = f"{where}; mean of 1 / (propensity x items) {found.mean_inverse:.3f}"
    if found.low is None or found.high is None:
        return f"{text} (1 is right)"
    text += f" [{found.low:.3f}, {found.high:.3f}]"
    if found.too_small:
        return f"{text}: above 1, so they are too small, or more items could be shown"
    if found.too_large:
        return f"{text}: below 1, so some items have no chance, or propensities are too large"
    if found.excess is not None:
        return f"{text} (1 is right), but they don't fit the items shown"
    return f"{text}: plausible (1 is right)"


def _effective(log: Learnable, found: Propensities) -> Iterator[str]:
    if found.uniform_ess is None:
        return
    text = f"uniform policy {found.uniform_ess:,.0f} of {amount(log.rows, 'row')}"
    if found.session_ess is not None:
        text += f" ({found.session_ess:,.1f} whole sessions)"
    if found.best_item is not None:
        best = found.best_item
        text += f"; best single item, {short(best.item)}, {best.ess:,.0f} of the {best.rows:,} that show it"
    yield text
