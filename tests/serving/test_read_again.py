"""The log of a server, read again: each row's probability is the one with which the server drew.

Some requests have candidates, others have exclusions, and others are lists.
"""

from __future__ import annotations

import json
import math
import random
import shutil
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from recsys_rl.checkpoint import Checkpoint, load, save
from recsys_rl.cli import main
from recsys_rl.cli.train import train_options
from recsys_rl.errors import UserError
from recsys_rl.logs.decision_log import DecisionLog, concatenate
from recsys_rl.logs.experience.logged import Logged, make_logged
from recsys_rl.logs.parts import PART
from recsys_rl.logs.source import open_log
from recsys_rl.logs.transitions import observe
from recsys_rl.logs.users.from_log import check_learnable
from recsys_rl.make import agent_of
from recsys_rl.serving.at_rest.export_record import export_record
from recsys_rl.serving.at_rest.opened_record import open_snapshot
from recsys_rl.serving.at_rest.record_interval import interval_of
from recsys_rl.serving.loop.gate_compare import bench, compare
from recsys_rl.serving.loop.learners import Learner, Task
from recsys_rl.serving.loop.rounds import LOG
from recsys_rl.serving.loop.served_log import survey
from recsys_rl.utils.user_hashes import number_of
from tests.own_logs import items_file, policy, write_csv
from tests.serving.servers import event, recommend, send, serving

At = Callable[[str], Path]
LATER = 9000.0  # seconds after which all sessions are mature
ITEMS = 12  # of the own place


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A policy of an own place with known items, with other weights than at the begin of training."""
    folder, drawn = tmp_path_factory.mktemp("own"), random.Random(0)
    header = ["user", "session", "step", "item", "signal.clicked", "propensity", "context.age"]
    rows = [
        [session % 30, f"s{session}", step, f"i{item}", drawn.randrange(2), 1 / (ITEMS - step), 20 + session]
        for session in range(40)
        for step, item in enumerate(drawn.sample(range(ITEMS), 5))
    ]
    log = write_csv(folder / "s.csv", header, rows)
    path = policy(folder / "p.pt", log, "reinforce", items=str(items_file(folder / "items.csv", ITEMS)))
    known, generator = load(path), torch.Generator().manual_seed(0)
    weights = {
        name: values + 0.02 * torch.randn(values.shape, generator=generator)
        if values.is_floating_point() and name.startswith("model.")
        else values
        for name, values in known.agent.items()
    }
    save(path, replace(known, agent=weights))
    return path


def limits(number: int, longest: int, ids: list[str], drawn: random.Random) -> dict[str, Any]:
    """Candidates in 1 of 20 requests, exclusions in 1 of 7, and lists of up to ``longest`` items in half."""
    fields: dict[str, Any] = {"n": longest} if number % 2 else {}
    if number % 20 == 3:
        fields["candidates"] = drawn.sample(ids, 9)
    if number % 7 == 2:
        fields["exclude"] = drawn.sample(ids, 2)
    return fields


def visit(client: Any, known: Checkpoint, numbers: Iterator[int], longest: int, user: str) -> list[float]:
    """A session until its end: the log-probabilities of its rows, as the server answered."""
    own_place, drawn = known.config.env == "own-log", random.Random(user)
    ids = [str(name) for name in known.catalogue.item_names or known.catalogue.item_ids.tolist()]
    signal, left, logprobs = known.interface.signals[0], known.interface.session_length, list[float]()
    while left:
        fields = limits(next(numbers), min(longest, left), ids, drawn)
        if own_place:
            fields["context"] = {"age": 20 + len(user)}
        answer = recommend(client, user, **fields)
        left -= len(answer["items"])
        logprobs += [math.log(shown["propensity"]) for shown in answer["items"]]
        places = range(len(answer["items"]))
        send(client, *(event(answer, signal, drawn.randrange(2), position=place) for place in places))
    return logprobs


class Recorded(NamedTuple):
    """A policy, the log of its record, and the log-probabilities of each user's rows as they were served."""

    path: Path
    log: Path
    served: dict[int, list[float]]


@pytest.fixture(scope="module", params=[("satiation", 1), ("satiation", 3), ("own", 1), ("own", 3)])
def recorded(
    request: pytest.FixtureRequest, own: Path, checkpoint: At, tmp_path_factory: pytest.TempPathFactory
) -> Recorded:
    """A log in two parts, the first without any limits."""
    place, longest = request.param
    path = own if place == "own" else checkpoint(place)
    folder = tmp_path_factory.mktemp("recorded")
    (folder / "log").mkdir()
    known, served, since = load(path), dict[int, list[float]](), 0
    with serving(path, folder / "r.sqlite") as client:
        for part, (sessions, numbers) in enumerate(((3, iter([0] * 99)), (40, iter(range(999))))):
            for number in range(sessions):
                user = f"{part} {number}"
                served[number_of(user)] = visit(client, known, numbers, longest, user)
            since = exported(folder / "r.sqlite", folder / "log" / f"{part}.parquet", since)
    return Recorded(path, folder / "log", served)


def exported(db: Path, out: Path, since: int = 0) -> int:
    """Export an interval; returns where the next one begins."""
    snapshot = open_snapshot(db)
    try:
        done = export_record(snapshot, out, interval_of(snapshot, since, now=time.time() + LATER))
    finally:
        snapshot.store.close()
    return done.watermark


def of_policy(known: Checkpoint, log: DecisionLog) -> Tensor:
    """(E,) float64: the log-probability of each row under the policy."""
    with torch.no_grad():
        terms: Tensor = agent_of(known).place_logprobs(observe(log, known.catalogue), log.items)
        return terms.sum(1)


def learned_from(path: Path, log: Path) -> Logged:
    """The experience of a run of `train --checkpoint path --log log`."""
    options = ["--algo", "reinforce", "--checkpoint", str(path), "--log", str(log)]
    return make_logged(train_options(options).config, load(path).world, torch.Generator())


def test_a_logged_probability_is_the_served_one_whatever_a_request_asked(recorded: Recorded) -> None:
    path, folder, served = recorded
    log = concatenate([*open_log((str(folder),), load(path)).parts(PART)])
    by_row = [served[user][step] for user, step in zip(log.users.tolist(), log.steps.tolist(), strict=True)]
    assert log.num_rows == sum(map(len, served.values())) and log.candidates is not None
    torch.testing.assert_close(log.logprobs, torch.tensor(by_row).double(), atol=1e-6, rtol=0)
    if log.header.platform == "satiation":  # the second part, after 15 rows, names what could be shown
        showable = observe(log, load(path).catalogue).showable(log.header.num_items).sum(1)
        assert torch.equal((log.candidates >= 0).sum(1)[15:], showable[15:])
    again = of_policy(load(path), log)
    assert float(log.logprobs.std()) > 0.05  # the policy is not uniform
    torch.testing.assert_close(again, log.logprobs, atol=1e-6, rtol=0)
    assert float((again - log.logprobs).exp().mean()) == pytest.approx(1, abs=1e-6)


def test_train_learns_from_what_the_policy_saw(recorded: Recorded) -> None:
    table = learned_from(recorded.path, recorded.log).table
    agent = agent_of(load(recorded.path))
    with torch.no_grad():
        again = agent.place_logprobs(table.obs.rows(table.before), table.items).sum(1)
    torch.testing.assert_close(again, table.logprobs, atol=1e-6, rtol=0)


def test_the_weights_of_the_policy_that_served_are_1(recorded: Recorded, tmp_path: Path) -> None:
    path, folder, _ = recorded
    result, algo = tmp_path / "ope.json", load(path).config.algo
    judged = ["ope", "--log", str(folder), "--checkpoint", str(path), "--policy", algo, "--no-world"]
    assert main([*judged, "--json", str(result)]) == 0
    rows = json.loads(result.read_text())["rows"]
    means = [row["mean_weight"] for row in rows if row["mean_weight"] is not None]
    assert means and means == pytest.approx([1] * len(means), abs=1e-6)


def test_the_gate_has_a_model_of_such_sessions(recorded: Recorded, monkeypatch: pytest.MonkeyPatch) -> None:
    """The policy that served beside itself: no model is lacking, and the difference is 0."""
    monkeypatch.setattr("recsys_rl.logs.ope.world.EPOCHS", 1)
    monkeypatch.setattr("recsys_rl.logs.users.fit.LEAST_STEPS", 2)
    known = load(recorded.path)
    log = concatenate([*open_log((str(recorded.log),), known).parts(PART)])
    on = bench(recorded.log, log, known)
    assert not on.doubt and survey(recorded.log, known).unjudged == ""
    compared = compare(on, on.champion)
    assert torch.equal(compared.new, compared.old) and bool(compared.new.isfinite().all())
    check_learnable("log", log)  # raises no UserError


def test_retrain_says_what_the_gate_can_not_judge_before_it_learns(
    checkpoint: At, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The history of `long-video` holds events, which no model of users predicts."""

    def fails(task: Task) -> Path:
        raise UserError("no candidate")

    monkeypatch.setattr(
        "recsys_rl.serving.loop.retrain.learners_of", lambda *_: [Learner("cql", "never", fails)]
    )
    monkeypatch.setattr("recsys_rl.serving.at_rest.record_interval.IN_FLIGHT", -LATER)
    folder, db = tmp_path / "policies", tmp_path / "r.sqlite"
    folder.mkdir()
    path = Path(shutil.copy(checkpoint("long-video"), folder / "1.pt"))
    with serving(path, db) as client:
        for user in range(40):
            send(client, event(recommend(client, f"u{user}"), "leave"))
    assert main(["retrain", "--db", str(db), "--policies", str(folder)]) == 2
    lines = capsys.readouterr().err.splitlines()
    said = survey(folder / LOG, load(path)).unjudged
    assert said and lines.index(said) < next(at for at, line in enumerate(lines) if line.startswith("no cql"))


@pytest.mark.parametrize("place", ["satiation", "observe-only"])
def test_a_uniform_application_has_the_weights_of_random(checkpoint: At, tmp_path: Path, place: str) -> None:
    """It draws among some candidates, or among all items; on `satiation` no session shows an item twice."""
    path, folder, drawn = checkpoint("satiation"), tmp_path / "log", random.Random(0)
    ids, steps, options = [*map(str, range(24))], 5, dict[str, Any]()
    shown = defaultdict[str, list[str]](list)
    if place == "observe-only":
        items = items_file(tmp_path / "items.csv")
        options = {"observe_only": True, "items": str(items), "signals": ("engagement",)}
        ids, path = [f"i{item}" for item in range(4)], tmp_path / "policies"
    folder.mkdir()
    with serving(path, tmp_path / "r.sqlite", **options) as client:
        for number in range(100):
            some = drawn.sample(ids, 3) if number % 20 == 3 else None
            mine = shown[user := str(number // steps)]
            showable = [item for item in some or ids if item not in mine or place == "observe-only"]
            mine.append(drawn.choice(showable))
            body = {"user_id": user, "items": mine[-1:], "propensity": 1 / len(showable), "candidates": some}
            answer = client.post("/v1/observe", json={**body, "policy": "rules"})
            assert answer.status_code == 200, answer.text
            send(client, event(answer.json(), "engagement", drawn.randrange(2)))
    exported(tmp_path / "r.sqlite", folder / "0.parquet")
    result = tmp_path / "ope.json"
    judged = ["ope", "--log", str(folder / "0.parquet"), "--policy", "random", "--json", str(result)]
    named = ["--checkpoint", str(path)] if place == "satiation" else []
    assert main([*judged, *named, "--no-world"]) == 0
    rows = json.loads(result.read_text())["rows"]
    means = [row["mean_weight"] for row in rows if row["mean_weight"] is not None]
    assert means and means == pytest.approx([1] * len(means), abs=1e-6)
