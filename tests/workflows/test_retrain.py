"""One turn of learning from a served record, and the gate, on a world of 24 items."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from recsys_rl.checkpoint import load
from recsys_rl.checkpoint.home import load_at_home
from recsys_rl.cli import main
from recsys_rl.serve.versions import sha256_of
from recsys_rl.workflows.gate import GateConfig, gate
from recsys_rl.workflows.retrain import RetrainConfig, retrain
from tests.doors import SATIATION, steps, train_in
from tests.serve.servers import event, recommend, send, serving


def visit(db: Path, policies: Path, sessions: int = 60, seed: int = 0) -> None:
    """Sessions of two to five steps, of 20 people of the data and 20 strangers, which have matured."""
    drawn = random.Random(seed)
    with serving(policies, db, session_timeout=0.01, feedback_window=0.01) as client:
        for number in range(sessions):
            user = str(number % 20) if number % 2 else f"stranger {number % 40}"
            for _ in range(drawn.randint(2, 5)):
                decision = recommend(client, user)
                send(client, event(decision, "engagement", drawn.random()))
            client.post("/v1/end", json={"user_id": user})
    time.sleep(0.05)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with policies/champion.pt and its record, r.sqlite."""
    folder = tmp_path_factory.mktemp("served")
    (folder / "policies").mkdir()
    champion = train_in(folder / "run", *SATIATION, *steps(1))
    (folder / "policies/champion.pt").write_bytes(champion.read_bytes())
    visit(folder / "r.sqlite", folder / "policies")
    return folder


@pytest.fixture(autouse=True)
def few_steps() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("recsys_rl.users.fit.LEAST_STEPS", 2)
        patch.setattr("recsys_rl.workflows.learners.MEMBERS", 2)
        patch.setattr("recsys_rl.workflows.learners.EPOCHS", 1)
        yield


@pytest.fixture(scope="module")
def learned(served: Path) -> list[Path]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("recsys_rl.users.fit.LEAST_STEPS", 2)
        patch.setattr("recsys_rl.workflows.learners.MEMBERS", 2)
        patch.setattr("recsys_rl.workflows.learners.EPOCHS", 1)
        return retrain(options(served))


def options(folder: Path, **settings: object) -> RetrainConfig:
    given = {"steps": 2048, "decisions": 6400, "quiet": True, **settings}
    return RetrainConfig(str(folder / "r.sqlite"), str(folder / "policies"), **given)  # type: ignore[arg-type]


def test_a_turn_learns_two_candidates_and_says_from_what(served: Path, learned: list[Path]) -> None:
    assert [path.name for path in learned] == ["ppo-1.pt", "cql-1.pt"]
    champion = sha256_of(served / "policies/champion.pt")
    for path in learned:
        values = json.loads(path.with_name(f"{sha256_of(path)}.json").read_text())
        assert (values["file"], values["parent"], values["round"]) == (path.name, champion, 1)
        assert values["from"] == 0 and values["to"] > 0 and 0 < values["sessions"] < 60
        config = load_at_home(path).config
        assert config.env == "satiation"
        assert values["split"] == {"heldout_fraction": config.data_config.heldout_fraction, "seed": 0}
    assert load(learned[0]).config.env == "learned"
    assert load(learned[1]).config.agent_config.temperature == 0.1


def test_nothing_new_nothing_learned(served: Path, learned: list[Path]) -> None:
    before = [path.stat().st_mtime_ns for path in learned]
    assert retrain(options(served)) == learned
    assert [path.stat().st_mtime_ns for path in learned] == before


def test_gate_writes_its_verdict_and_the_card(served: Path, learned: list[Path]) -> None:
    verdict = gate(GateConfig(str(learned[0]), str(served / "r.sqlite"), quiet=True))
    stem = learned[0].with_name(sha256_of(learned[0]))
    values = json.loads(stem.with_suffix(".gate.json").read_text())
    assert values["challenger"] == stem.name and values["answer"] == verdict.answer
    assert values["sessions"] == verdict.sessions > 0 and values["by"] == "world"
    assert values["low"] < values["difference"] < values["high"]
    assert "held-out user" in stem.with_suffix(".gate.md").read_text()
    assert gate(GateConfig(str(learned[0]), str(served / "r.sqlite"), quiet=True)) == verdict


def test_gate_ends_with_the_code_of_its_answer(served: Path, learned: list[Path]) -> None:
    """Nine sessions tell nothing about policies that hardly differ."""
    code = main(["gate", str(learned[1]), "--db", str(served / "r.sqlite")])
    answer = json.loads(learned[1].with_name(f"{sha256_of(learned[1])}.gate.json").read_text())["answer"]
    assert code == {"better": 0, "no harm seen": 0, "worse": 3, "can't tell": 4}[answer]
