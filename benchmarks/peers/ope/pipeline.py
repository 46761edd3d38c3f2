"""The estimates of the Open Bandit Pipeline, for `python -m benchmarks.ope_peers`.

    V/bin/python benchmarks/peers/ope/pipeline.py FOLDER

FOLDER has ``decisions-NAME.npz``, ``slates-NAME.npz`` and ``clips.json`` (the clip of each estimator that
has one). The line of JSON has the versions and, of each log, the ``values`` of its estimators, ``widths`` of
bootstrap intervals, and ``refused``: the error of `mips` where the weights of clusters are to be fitted.
"""

from __future__ import annotations

import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from obp import ope

SAMPLES = 1000  # of a bootstrap
PLAIN = {
    "ips": ope.InverseProbabilityWeighting,
    "snips": ope.SelfNormalizedInverseProbabilityWeighting,
    "dm": ope.DirectMethod,
    "dr": ope.DoublyRobust,
    "sndr": ope.SelfNormalizedDoublyRobust,
}
CLIPPED = {"clipped-ips": ope.InverseProbabilityWeighting, "dros": ope.DoublyRobustWithShrinkage}
SLATES = {
    "sips": (ope.SlateStandardIPS, "pscore", "evaluation_policy_pscore"),
    "iips": (
        ope.SlateIndependentIPS,
        "pscore_item_position",
        "evaluation_policy_pscore_item_position",
    ),
    "rips": (ope.SlateRewardInteractionIPS, "pscore_cascade", "evaluation_policy_pscore_cascade"),
}


def of_decisions(log: Any, clips: dict[str, float]) -> dict[str, Any]:
    """All estimates of a log of single decisions."""
    known = {name: log[name] for name in ("reward", "action", "pscore", "action_dist", "position")}
    known["estimated_rewards_by_reg_model"] = log["q"]
    values, widths = {}, {}
    for name, kind in PLAIN.items():
        values[name] = float(kind().estimate_policy_value(**known))
        if name != "dm":
            found = kind().estimate_interval(**known, n_bootstrap_samples=SAMPLES, random_state=0)
            widths[name] = found["95.0% CI (upper)"] - found["95.0% CI (lower)"]
    for name, kind in CLIPPED.items():
        values[name] = float(kind(lambda_=clips[name]).estimate_policy_value(**known))
    marginal = ope.MarginalizedInverseProbabilityWeighting(n_actions=int(log["q"].shape[1]))
    embedded = {"pi_b": log["pi_b"], "action_embed": log["clusters"], "context": log["context"]}
    values["mips"] = float(marginal.estimate_policy_value(**known, **embedded, p_e_a=log["p_e_a"]))
    try:
        marginal.estimate_policy_value(**known, **embedded)
        refused = ""
    except TypeError as error:
        refused = str(error)
    return {"values": values, "widths": widths, "refused": refused}


def of_slates(log: Any) -> dict[str, Any]:
    """All estimates of a log of slates: one row for each place."""
    known = {name: log[name] for name in ("slate_id", "reward", "position")}
    places = len(np.unique(log["position"]))
    values = {}
    for name, (kind, logging, policy) in SLATES.items():
        weights = {logging: log[logging], policy: log[policy]}
        values[name] = float(kind(len_list=places).estimate_policy_value(**known, **weights))
    number = len(log["q"]) // len(log["reward"])
    cascade = ope.SlateCascadeDoublyRobust(len_list=places, n_unique_action=number)
    weights = {name: log[name] for name in ("pscore_cascade", "evaluation_policy_pscore_cascade")}
    model = {"q_hat": log["q"], "evaluation_policy_action_dist": log["chances"], "action": log["action"]}
    values["cascade-dr"] = float(cascade.estimate_policy_value(**known, **weights, **model))
    return {"values": values}


def main() -> None:
    folder = Path(sys.argv[1])
    clips = json.loads((folder / "clips.json").read_text())
    found: dict[str, Any] = {"peer": f"sb-obp {version('sb-obp')}", "numpy": np.__version__, "logs": {}}
    for file in sorted(folder.glob("*.npz")):
        kind, _, name = file.stem.partition("-")
        log = np.load(file)
        found["logs"][name] = of_decisions(log, clips) if kind == "decisions" else of_slates(log)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
