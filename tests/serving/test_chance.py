"""The chance that a policy of a team's own log keeps for all items: one distribution for all who use it."""

from __future__ import annotations

import dataclasses
import json
import math
import time
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch

from recsys_rl.checkpoint import Checkpoint, load, save
from recsys_rl.errors import UserError
from recsys_rl.logs.decision_log import DecisionLog, concatenate
from recsys_rl.logs.ope.config import OpeConfig
from recsys_rl.logs.ope.ope import ope
from recsys_rl.logs.transitions import observe
from recsys_rl.make import agent_of
from recsys_rl.models.policy import CHANCE
from recsys_rl.recommender.export import ExportConfig, export
from recsys_rl.serving.at_rest.export_table import export_table
from recsys_rl.serving.at_rest.opened_record import Record
from recsys_rl.serving.at_rest.record_interval import interval_of
from recsys_rl.training.train import train
from tests.own_logs import clicks, policy
from tests.own_tables import decisions, table
from tests.serving.servers import recommend, serving

SHORT: dict[str, Any] = {"batch_size": 32, "gradient_steps": 4, "hidden_dims": (8,), "total_timesteps": 256}


def sharp(path: Path, chance: float = CHANCE, factor: float = 3e4) -> Path:
    """A policy of a log without sessions that is sure of one item in each context; ``chance``: of it."""
    made = load(policy(path, clicks(path.with_suffix(".csv"))))
    agent = {
        name: values * factor if name.startswith("model.head.logits.") else values
        for name, values in made.agent.items()
    }
    kept = {"chance": torch.tensor(chance, dtype=torch.float64)} if chance else {}
    save(path, dataclasses.replace(made, agent={**agent, **kept}))
    return path


def decided(made: Checkpoint, path: Path) -> DecisionLog:
    assert made.config.platform.tables is not None
    of = made.config.platform.tables.open_log(
        (str(path),), made.config.data_config, made.config.env_config, made.catalogue
    )
    return concatenate([*of.parts(10**6)])


def test_each_item_has_its_chance_and_the_best_item_stays(tmp_path: Path) -> None:
    made, without = load(sharp(tmp_path / "p.pt")), load(sharp(tmp_path / "q.pt", chance=0.0))
    log = decided(made, tmp_path / "p.csv")
    obs = observe(log, made.catalogue)
    kept, bare = (agent_of(of).item_probabilities(obs, 4) for of in (made, without))
    assert float((bare.amax(1) > 0.99).double().mean()) > 0.5
    assert float(kept.min()) > CHANCE / (4 * math.e)
    apart = (kept - (1 - CHANCE) * bare) / CHANCE  # the part of chance, by softmax of the scaled scores
    torch.testing.assert_close(apart.sum(1), torch.ones(len(kept)).double())
    assert float((apart.amax(1) / apart.amin(1)).sub(math.e).abs().max()) < 1e-3
    one, other = agent_of(made).act(obs, greedy=True), agent_of(without).act(obs, greedy=True)
    assert torch.equal(one.items, other.items)


@pytest.mark.parametrize("limits", [{}, {"exclude": ["i1"]}, {"candidates": ["i0", "i2", "i3"]}])
def test_the_served_probability_is_that_of_ope(tmp_path: Path, limits: dict[str, Any]) -> None:
    """With limits of a request, too: the chance is of the items that may be shown."""
    checkpoint, db, out = sharp(tmp_path / "p.pt"), tmp_path / "r.sqlite", tmp_path / "out.parquet"
    ages = [1 + 1.9 * number for number in range(40)]
    with serving(checkpoint, db) as client:
        answers = [
            recommend(client, f"u{age}", context={"age": age, "device": "tv", "v": [0.1, 0.2]}, **limits)
            for age in ages
        ]
        report = client.get(f"/v1/decisions/{answers[0]['decision_id']}").json()
    assert report["replayed"]
    record = Record(db)
    try:
        export_table(record, out, interval_of(record, now=time.time() + 9_000))
    finally:
        record.store.close()
    made = load(checkpoint)
    log = decided(made, out)
    own = agent_of(made).logprob(observe(log, made.catalogue), log.items).double().exp()
    torch.testing.assert_close(log.logprobs.exp(), own, atol=1e-6, rtol=1e-6)
    assert pl.read_parquet(out)["propensity"].to_list() == pytest.approx([x["propensity"] for x in answers])
    assert 1 - CHANCE < max(answer["propensity"] for answer in answers) < 1 - CHANCE / 4


def test_each_learner_of_an_own_log_keeps_it_and_an_earlier_checkpoint_does_not(tmp_path: Path) -> None:
    log = table(tmp_path / "log.csv", decisions(300, users=60))
    for algo in ("bc", "reinforce", "iql", "cql", "bcq"):
        path = train(algo=algo, log=(log,), **SHORT, threads=1, folder=tmp_path / algo, quiet=True)
        found = load(path)
        assert float(found.agent["chance"]) == CHANCE == agent_of(found).model.chance
        older = {name: values for name, values in found.agent.items() if name != "chance"}
        assert agent_of(dataclasses.replace(found, agent=older)).model.chance == 0.0


def test_learning_and_the_judgement_of_ope(tmp_path: Path) -> None:
    """Rewards are 1 for `ale` alone: `ope` gives the policy what `ale` earns, times its probability of it."""
    frame = decisions(600, users=100).drop("context.mood", "context.age", "context.device")
    frame = frame.with_columns(
        pl.lit(0.25).alias("propensity"), (pl.col("item") == "ale").cast(int).alias("clicked")
    )
    log = table(tmp_path / "log.csv", frame)
    long: dict[str, Any] = {**SHORT, "total_timesteps": 25_600, "lr": 0.05}
    path = train(algo="bc", weighted=True, log=(log,), **long, threads=1, folder=tmp_path / "run", quiet=True)
    result = ope(OpeConfig(log=(log,), checkpoint=str(path), policy=("bc", "bc-greedy"), world=False))
    found = {(row.policy, row.estimator): row for row in result.rows}
    greedy, drawn = found["bc-greedy", "ips"], found["bc", "ips"]
    made = load(path)
    chances = agent_of(made).item_probabilities(observe(decided(made, Path(log)), made.catalogue), 4)[0]
    best = float(chances[0])  # `ale` is the first
    assert 1 - CHANCE < best < 1 - CHANCE / 2
    assert drawn.value == pytest.approx(greedy.value * best, rel=1e-5)
    assert drawn.weights is not None and drawn.weights.largest == pytest.approx(4 * best, rel=1e-5)


@pytest.mark.parametrize("wrong", [-0.1, 1.0])
def test_an_altered_share_is_refused(tmp_path: Path, wrong: float) -> None:
    made = load(sharp(tmp_path / "p.pt", chance=0.05))
    agent = {**made.agent, "chance": torch.tensor(wrong, dtype=torch.float64)}
    with pytest.raises(UserError):
        agent_of(dataclasses.replace(made, agent=agent))


@pytest.mark.proof
def test_the_onnx_file_and_its_metadata_give_the_draw(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    made = load(sharp(tmp_path / "p.pt"))
    export(ExportConfig(str(tmp_path / "p.pt"), onnx=str(tmp_path / "p.onnx")))
    session = runtime.InferenceSession(tmp_path / "p.onnx", providers=["CPUExecutionProvider"])
    obs = observe(decided(made, tmp_path / "p.csv"), made.catalogue)
    scores = torch.from_numpy(session.run(["scores"], {"context": obs.context.numpy()})[0]).double()
    scaled = (scores - scores.amin(1, keepdim=True)) / (scores.amax(1) - scores.amin(1)).unsqueeze(1)
    drawn = (1 - CHANCE) * scores.softmax(1) + CHANCE * scaled.softmax(1)
    torch.testing.assert_close(drawn, agent_of(made).item_probabilities(obs, 4), atol=1e-5, rtol=1e-4)
    facts = session.get_modelmeta().custom_metadata_map
    assert json.loads(facts["chance"]) == CHANCE
    assert json.loads(facts["item_ids"]) == ["i0", "i1", "i2", "i3"]
