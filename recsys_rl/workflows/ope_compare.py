"""The answer of `recsys-rl ope --compare`."""

from __future__ import annotations

from collections.abc import Sequence

from recsys_rl.ope.estimate import Estimate, enough
from recsys_rl.ope.judging import Difference, Judgement, difference
from recsys_rl.ope.printing import about_model
from recsys_rl.workflows.ope_bench import Bench
from recsys_rl.workflows.ope_config import LOGGED, TARGET
from recsys_rl.workflows.ope_world import WorldCheck


def compare(
    bench: Bench,
    judged: dict[str, Judgement],
    table: dict[str, list[Estimate]],
    checks: Sequence[WorldCheck],
) -> Difference | None:
    """The difference of the two policies of --compare, by the recommended estimator.

    ``checks`` are those of the learned model of `world`.
    """
    if bench.options.compare is None:
        return None
    pair = bench.options.compare
    keys = [bench.target_name if name == TARGET else name for name in pair]
    rows = [row for key in keys for row in table[key]]
    marked = next((row.estimator for row in rows if row.recommended), None)
    shared = [
        x
        for x in (marked, bench.trusted, "snips", "wpdis")
        if all(x in judged[key].terms or key == LOGGED for key in keys)
    ]
    name = str(shared[0])
    # snips and wpdis stand in for an estimator that can't be computed, and must meet its conditions.
    good = name == marked or (
        name != bench.trusted and all(enough(row) for row in rows if row.estimator == name)
    )
    told: dict[str, list[str]] = {}  # the policies of each warning
    for key in keys:
        for row in table[key]:
            if row.estimator in (name, "mean") and row.warnings:
                told.setdefault(row.warning, []).append(key)
    doubts = [f"Warning for {' and '.join(those)}: {text}" for text, those in told.items()]
    first, second = (judged[key].terms.get(name, judged[key].terms.get("mean")) for key in keys)
    assert first is not None and second is not None
    return difference(
        pair,
        name,
        first,
        second,
        bench.prepared.users,
        bench.prepared.log.num_rows,
        doubt=" ".join(doubts),
        covered=all(row.covered for row in rows),
        trusted=good,
        model=about_model([check.wrong for check in checks]) if name == "world" else "",
        missing="" if name in (marked, bench.trusted) else bench.trusted,
    )
