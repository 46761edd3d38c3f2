"""The content of the JSON file of `recsys-rl ope`."""

from __future__ import annotations

import dataclasses
from typing import Any

from recsys_rl.ope.bandit import BANDIT, CLIPPED
from recsys_rl.ope.estimate import recommend
from recsys_rl.ope.intervals import PROMISES
from recsys_rl.ope.printing import plain
from recsys_rl.ope.sequential import SEQUENTIAL
from recsys_rl.ope.slate import SLATE
from recsys_rl.workflows.ope_bench import CLUSTERED, Bench
from recsys_rl.workflows.ope_compare import compare
from recsys_rl.workflows.ope_judge import judge_all
from recsys_rl.workflows.ope_world import with_checks


def _not_computed(bench: Bench) -> list[dict[str, Any]]:
    """Each reason for which estimators are missing, with the estimators and the policies."""
    found: dict[str, tuple[list[str], list[str]]] = {}
    if bench.steps > 1:
        names = [*BANDIT, *CLIPPED, *CLUSTERED]
        found["for logs of one step, and these sessions have several"] = names, []
    else:
        same = "for sessions of several steps; at one step they are ips, snips, dr, sndr and dm"
        found[same] = list(SEQUENTIAL), []
        if bench.places > 1:
            found["for single items, and these are slates"] = list(CLUSTERED), []
    if bench.places == 1:
        found["for slates of several items"] = list(SLATE), []
    for policy, reasons in bench.left_out.items():
        for name, reason in reasons.items():
            estimators, policies = found.setdefault(reason, ([], []))
            estimators += [] if name in estimators else [name]
            policies += [] if policy in policies else [policy]
    return [
        {"reason": reason, "estimators": estimators, "policies": policies}
        for reason, (estimators, policies) in found.items()
    ]


def _grouped(bench: Bench) -> str:
    """The groups of items for mips and offcem, in words; "" without groups."""
    clusters, _ = bench.clusters
    if clusters is None:
        return ""
    return f"{int(clusters.clusters.max()) + 1} clusters, by k-means of the items' embeddings"


def result_of(bench: Bench) -> dict[str, Any]:
    """The content of the JSON file."""
    judged, checks = with_checks(bench, judge_all(bench))
    table = recommend({name: x.estimates for name, x in judged.items()}, bench.trusted)
    found = compare(bench, judged, table, checks)
    rows: list[dict[str, Any]] = []
    for name, estimates in table.items():
        rows += [{"policy": name, **row.row()} for row in estimates]
    of = bench.prepared
    return {
        "about": {
            "log": bench.options.log,
            "checkpoint": bench.checkpoint,
            "decisions": of.log.num_rows,
            "sessions": len(of.grid),
            "users": len(of.users.unique()),
            "items": of.catalogue.num_items,
            "discount": of.gamma,
            "log_discount": of.log.header.discount,
            "loggers": list(of.log.header.loggers),
            "q": bench.options.q,
            "q_by": bench.options.q_by,
            "interval": bench.options.interval,
            "promise": PROMISES[bench.options.interval],
            "promises": {kind: PROMISES[kind] for kind in sorted({str(row["interval"]) for row in rows})},
            "clusters": _grouped(bench),
        },
        "rows": [{name: plain(value) for name, value in row.items()} for row in rows],
        "not_computed": _not_computed(bench),
        "propensities": None if bench.fitted is None else bench.fitted.row(),
        "world_checks": [dataclasses.asdict(x) | {"wrong": x.wrong, "text": x.sentence} for x in checks],
        "compare": None
        if found is None
        else {name: plain(x) for name, x in dataclasses.asdict(found).items()}
        | {"text": found.sentence, "brief": found.brief},
    }
