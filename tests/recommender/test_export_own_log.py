"""`recsys-rl export --onnx` of the policy of a team's own log: the file says how to encode its context."""

from __future__ import annotations

import csv
import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from recsys_rl.checkpoint import save
from recsys_rl.cli import main
from recsys_rl.logs.source import open_log
from recsys_rl.logs.transitions import observe
from recsys_rl.recommender import load
from tests.own_logs import clicks, items_file, policy, sessions


@pytest.fixture(scope="module", autouse=True)
def packages() -> None:
    for name in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(name, reason=f"{name}, of the extra export, is not installed")


def exported(path: Path) -> tuple[object, dict[str, Any]]:
    """The session of the exported checkpoint, and the metadata of the file."""
    import onnxruntime

    file = path.with_suffix(".onnx")
    assert main(["export", "--checkpoint", str(path), "--onnx", str(file)]) == 0
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    facts = session.get_modelmeta().custom_metadata_map
    return session, {name: json.loads(text) for name, text in facts.items()}


def test_a_caller_who_encodes_by_the_metadata_gets_the_scores_of_the_policy(tmp_path: Path) -> None:
    """The rows of the log are encoded here by hand, from the JSON alone."""
    log = clicks(tmp_path / "clicks.csv")
    path = policy(tmp_path / "mine.pt", log, items=str(items_file(tmp_path / "items.csv")))
    session, facts = exported(path)
    rows = list(csv.DictReader(log.open()))
    checkpoint = load(path).checkpoint
    context = np.zeros((len(rows), checkpoint.interface.context_size), np.float32)
    for piece in facts["context_pieces"]:
        for row, values in enumerate(rows):
            text = values[f"context.{piece['name']}"]
            if piece["kind"] == "text":
                context[row, piece["start"] + piece["values"].index(text)] = 1
                continue
            for at, number in enumerate(map(float, text.split("|"))):
                encoded = (number - piece["shift"][at]) / piece["scale"][at]
                context[row, piece["start"] + at] = encoded
    (scores,) = session.run(None, {"context": context})  # type: ignore[attr-defined]
    decisions = next(open_log(checkpoint.config.agent_config.log, checkpoint).parts(1000))
    wanted = load(path).agent.scores(observe(decisions, checkpoint.catalogue))
    np.testing.assert_allclose(scores, wanted.numpy(), atol=1e-5, rtol=1e-5)
    assert facts["item_ids"] == ["i0", "i1", "i2", "i3"]
    assert facts["chance"] == 0
    assert {"age", "device", "v", "clock"} <= facts["interface"]["context"].keys()


def test_sessions_have_their_history_among_the_inputs(tmp_path: Path) -> None:
    path = policy(tmp_path / "mine.pt", sessions(tmp_path / "s.csv"), weights=("clicked=1",))
    session, facts = exported(path)
    names = {one.name for one in session.get_inputs()}  # type: ignore[attr-defined]
    assert names == {"context", "history", "signals"}
    checkpoint = load(path).checkpoint
    log = next(open_log(checkpoint.config.agent_config.log, checkpoint).parts(1000))
    obs = observe(log, checkpoint.catalogue)
    inputs = {name: getattr(obs, name).numpy() for name in names}
    (scores,) = session.run(None, inputs)  # type: ignore[attr-defined]
    wanted = load(path).agent.scores(obs)
    torch.testing.assert_close(torch.from_numpy(scores), wanted, atol=1e-5, rtol=1e-5)
    known = facts["interface"]
    assert known["signals"] == ["clicked", "dwell"]
    sizes = known["context"]
    start = sum(size for name, size in list(sizes.items())[: list(sizes).index("clock")])
    clock = log.steps / known["session_length"]
    assert known["session_length"] > 1 and sizes["clock"] == 1 and clock.max() > 0
    torch.testing.assert_close(obs.context[:, start], clock.float())


def test_the_metadata_have_how_the_policy_draws(tmp_path: Path) -> None:
    path = policy(tmp_path / "mine.pt", clicks(tmp_path / "clicks.csv"))
    made = load(path).checkpoint
    draws = {"chance": torch.tensor(0.25), "draw_ratio": torch.tensor(2.0)}
    save(path, dataclasses.replace(made, agent={**made.agent, **draws}))
    _, facts = exported(path)
    assert (facts["chance"], facts["ratio"]) == (0.25, 2.0)
