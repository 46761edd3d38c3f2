"""Our estimators and verdicts beside other packages: the arrays that these get, and what is counted.

The packages need environments of their own. Scripts in their place write the equations down once more.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import ope_peers, verdict_peers
from benchmarks.harness.peer_script import answer_of_peer
from recsys_rl.errors import UserError
from recsys_rl.logs.ope.estimators import ESTIMATORS
from tests.doors import benchmark_here

PIPELINE = """
import json, sys
from pathlib import Path
import numpy as np

folder = Path(sys.argv[1])
clips = json.loads((folder / "clips.json").read_text())
log = np.load(folder / "decisions-made.npz")
rows = np.arange(len(log["reward"]))
pi, q, r = log["action_dist"][rows, :, log["position"]], log["q"][rows, :, log["position"]], log["reward"]
w, mine = pi[rows, log["action"]] / log["pscore"], q[rows, log["action"]]
v = (pi * q).sum(1)
group = log["p_e_a"][:, :, 0]  # (A, G)
at = rows, log["clusters"][:, 0]
values = {
    "ips": (w * r).mean(),
    "snips": (w * r).sum() / w.sum(),
    "dm": v.mean(),
    "dr": (v + w * (r - mine)).mean(),
    "sndr": v.mean() + (w * (r - mine)).sum() / w.sum(),
    "clipped-ips": (np.minimum(w, clips["clipped-ips"]) * r).mean(),
    "dros": (v + clips["dros"] * w / (w**2 + clips["dros"]) * (r - mine)).mean(),
    "mips": ((pi @ group)[at] / (log["pi_b"][rows, :, log["position"]] @ group)[at] * r).mean(),
}
slates = np.load(folder / "slates-slates.npz")
number = len(np.unique(slates["slate_id"]))
kinds = {"sips": "pscore", "iips": "pscore_item_position", "rips": "pscore_cascade"}
of_slates = {
    name: (slates[f"evaluation_policy_{kind}"] / slates[kind] * slates["reward"]).sum() / number
    for name, kind in kinds.items()
}
above, total = 1.0, 0.0
shape = number, len(slates["reward"]) // number
q, chances = (slates[name].reshape(*shape, -1) for name in ("q", "chances"))
weights = (slates["evaluation_policy_pscore_cascade"] / slates["pscore_cascade"]).reshape(shape)
items, rewards = (slates[name].reshape(shape) for name in ("action", "reward"))
for k in range(shape[1]):
    here = q[np.arange(number), k, items[:, k]]
    total = total + weights[:, k] * (rewards[:, k] - here) + above * (chances[:, k] * q[:, k]).sum(1)
    above = weights[:, k]
of_slates["cascade-dr"] = total.mean()
made = {"values": values, "widths": {"ips": 0.1}, "refused": "no"}
logs = {"made": made, "slates": {"values": of_slates}}
print("a line of its own\\n" + json.dumps({"peer": "stand-in 1", "numpy": "2", "logs": logs}, default=float))
"""

SKDR = """
import json, sys
from pathlib import Path
import numpy as np

logs = {}
for file in sorted(Path(sys.argv[1]).glob("*.npz")):
    log = np.load(file)
    assert log["policy"].shape == (200, 5) and np.allclose(log["policy"].sum(1), 1)
    answers = {"as_shown": "deploy", "baseline": "do_not_deploy", "delta": "worse"}
    logs[file.stem] = answers | {"value": float(log["reward"].mean()), "health": "ok"}
print(json.dumps({"peer": "stand-in 2", "logs": logs}))
"""


def stand_in(folder: Path, text: str) -> Path:
    path = folder / "peer.py"
    path.write_text(text)
    return path


def test_estimators_equal_their_equations_on_the_arrays_that_the_peer_gets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ope_peers, "PEER", stand_in(tmp_path, PIPELINE))
    benchmark_here(ope_peers.main, tmp_path, "--smoke", "--json", "peers.json")
    rows = json.loads((tmp_path / "peers.json").read_text())["rows"]
    assert [row["estimator"] for row in rows] == [
        *ope_peers.PLAIN[:5],
        *ope_peers.CLIPS,
        "mips",
        "sips",
        "iips",
        "rips",
        "cascade-dr",
    ]
    assert all(row["difference"] < ope_peers.SAME for row in rows)
    commands = {row["estimator"]: row["command"] for row in rows if "command" in row}
    assert set(commands) == {"ips", "snips", "sips", "rips"}
    assert all(value < ope_peers.SAME for value in commands.values())


def test_made_slates_have_probabilities() -> None:
    """Over all slates the weights have the mean 1, and the first place stands below nothing."""
    log = ope_peers.made_slates(torch.Generator().manual_seed(1), 20_000)
    assert torch.allclose(log.policy[:, 0, 0], log.policy[:, 1, 0])
    for kind in ("sips", "iips", "rips"):
        weigh = ESTIMATORS[kind].weights
        assert weigh is not None
        assert weigh(log.evidence()).mean().item() == pytest.approx(1, abs=0.05)
    assert torch.allclose(log.chances.sum(2), torch.ones(20_000, 3, dtype=torch.float64))
    assert torch.allclose(log.chances.gather(2, log.items.unsqueeze(2)).squeeze(2), log.policy[:, 0])


def test_a_python_without_the_peer_is_refused(tmp_path: Path) -> None:
    for benchmark in (ope_peers, verdict_peers):
        with pytest.raises(UserError):
            answer_of_peer(str(tmp_path / "python"), benchmark.PEER, "it", tmp_path)


@pytest.mark.parametrize("kind", verdict_peers.POLICIES)
def test_judged_policies_earn_what_is_said(kind: str) -> None:
    of, (share, size) = verdict_peers.game(), verdict_peers.POLICIES[kind]
    assert of.earned(of.logging) == pytest.approx(0.557, abs=5e-4)
    for sign in verdict_peers.SIGNS:
        policy = of.policy(share, sign * size)
        assert policy.min().item() > 0 and np.allclose(policy.sum(1), 1)
        assert of.earned(policy) - of.earned(of.logging) == pytest.approx(sign * size)
        assert (policy / of.logging).max().item() < {"near": 2, "far": 5.5}[kind]


def test_verdicts_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`deploy` is wrong where the truth is 0 or below, `worse` where it is 0 or above."""
    monkeypatch.setattr(verdict_peers, "PEER", stand_in(tmp_path, SKDR))
    benchmark_here(verdict_peers.main, tmp_path, "--smoke", "--json", "verdicts.json")
    rows = json.loads((tmp_path / "verdicts.json").read_text())["rows"]
    assert len(rows) == 6 * 5
    wrong = {
        judge: [row["wrong"] for row in rows if row["judge"] == judge and row["policy"] == "near"]
        for judge in ("as_shown", "baseline", "delta")
    }
    assert wrong == {"as_shown": [1, 0, 1], "baseline": [0, 0, 0], "delta": [1, 1, 0]}
    assert sum(row["stopped"] for row in rows) == 6
    ours = [row for row in rows if row["judge"] == verdict_peers.OURS]
    assert all(row["better"] + row["neither"] + row["worse"] == row["logs"] == 1 for row in ours)
