"""Rounds that are refused, killed or begun again, with learners that only write a file."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from recsys_rl.errors import UserError
from recsys_rl.serving.loop import gate as gates
from recsys_rl.serving.loop import learners
from recsys_rl.serving.loop import retrain as turns
from recsys_rl.serving.loop.learners import Task
from recsys_rl.serving.loop.retrain import RetrainConfig, retrain
from recsys_rl.serving.loop.rounds import candidate_in, held, known_in, latest_round, part_path, round_folder
from recsys_rl.serving.loop.served_log import Served, Sides
from recsys_rl.training.warm_start import Unfit
from recsys_rl.utils.files import sha256_of

FEW, ENOUGH = Sides(9, 1, 5, 1, ""), Sides(90, 10, 50, 2, "")
CONFIG = SimpleNamespace(
    train_config=SimpleNamespace(seed=0), data_config=SimpleNamespace(heldout_fraction=0.2)
)


def undated(path: Path) -> SimpleNamespace:
    """What is read of a candidate: PPO begins with other weights."""
    info = {"steps_before": 1} if path.stem == "ppo" else {}
    return SimpleNamespace(config=SimpleNamespace(algo=path.stem), info=info)


class Killed(BaseException):
    """The process ends here."""


class Place:
    """A folder of policies with the rows that its record has so far."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.rows, self.sides, self.champion = folder, 100, ENOUGH, "a" * 64
        self.learn: Callable[[str], None] = lambda algo: None
        (folder / "log").mkdir()

    def export(self, *_: object) -> tuple[int, int]:
        until = max((int(path.stem.split("-")[2]) for path in self.folder.glob("log/*")), default=0)
        if until < self.rows:
            part_path(self.folder, until, self.rows).write_text(str(self.rows))
        return until, self.rows

    def learners(self, *_: object) -> list[Any]:
        def learn(algo: str) -> Callable[[Task], Path]:
            def run(task: Task) -> Path:
                self.learn(algo)
                path = task.folder / f"{algo}.out"
                path.write_text(f"{algo} {self.champion} {self.rows}")
                return path

            return run

        return [SimpleNamespace(name=algo, how="", learn=learn(algo)) for algo in ("ppo", "cql")]

    def retrain(self) -> list[str]:
        return [path.name for path in retrain(RetrainConfig("record", str(self.folder), quiet=True))]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    found = Place(tmp_path)
    champion: Any = SimpleNamespace(config=CONFIG, info={})
    monkeypatch.setattr(
        turns, "champion_of", lambda *_: Served(found.champion, tmp_path / "champion.pt", champion)
    )
    monkeypatch.setattr(turns, "export_new", found.export)
    monkeypatch.setattr(turns, "survey", lambda *_: found.sides)
    monkeypatch.setattr(turns, "learners_of", found.learners)
    monkeypatch.setattr(turns, "_undated", lambda path, _: undated(path))
    whole: Any = SimpleNamespace(fingerprint=lambda: b"hash")
    monkeypatch.setattr(turns, "open_log", lambda *_: whole)
    return found


def test_a_round_that_was_refused_grows_with_the_record(place: Place) -> None:
    """One held-out user can't judge anybody; later there are two."""
    place.sides = FEW
    for place.rows in (100, 100, 200):
        with pytest.raises(UserError):
            place.retrain()
    place.sides, place.rows = ENOUGH, 300
    assert place.retrain() == ["ppo-1.pt", "cql-1.pt"]
    latest = latest_round(place.folder)
    assert latest is not None and (latest.number, latest.until) == (1, 300)


def test_a_round_that_no_learner_could_learn_grows_with_the_record(place: Place) -> None:
    def refuse(_: str) -> None:
        raise UserError("Too few.")

    place.learn = refuse
    with pytest.raises(UserError):
        place.retrain()
    place.learn, place.rows = (lambda algo: None), 200
    assert place.retrain() == ["ppo-1.pt", "cql-1.pt"]


def test_a_record_of_one_item_is_refused_before_anything_is_learned(place: Place) -> None:
    place.sides = ENOUGH._replace(lacking="The record shows one item everywhere.", nothing=True)
    with pytest.raises(UserError):
        place.retrain()
    assert not [*place.folder.glob("*.pt")]


def test_kills_in_a_round_that_is_begun_again_do_not_lock_the_folder(place: Place) -> None:
    """The first candidate is there, the champion changes, and the next turn is killed in its learning."""

    def killed_at(algo: str) -> Callable[[str], None]:
        def learn(now: str) -> None:
            if now == algo:
                raise Killed

        return learn

    place.learn = killed_at("cql")
    with pytest.raises(Killed):
        place.retrain()
    first = sha256_of(place.folder / "ppo-1.pt")
    place.champion, place.learn = "b" * 64, killed_at("ppo")
    for _ in range(2):
        with pytest.raises(Killed):
            place.retrain()
    place.learn = lambda algo: None
    assert place.retrain() == ["ppo-2.pt", "cql-2.pt"]
    assert sha256_of(place.folder / "ppo-1.pt") == first


def test_no_round_writes_over_a_policy(place: Place) -> None:
    """The file of the last round is damaged and deleted, as its sentence says."""
    place.retrain()
    first = sha256_of(place.folder / "ppo-1.pt")
    round_file = round_folder(place.folder, 1) / "round.json"
    round_file.write_text("{")
    with pytest.raises(UserError):
        place.retrain()
    round_file.unlink()
    place.champion = first
    assert place.retrain() == ["ppo-2.pt", "cql-2.pt"]
    assert sha256_of(place.folder / "ppo-1.pt") == first
    for path in [*place.folder.glob("*.json"), *place.folder.glob("rounds/*/round.json")]:
        path.unlink()  # nothing is known of its policies
    with pytest.raises(UserError):
        place.retrain()
    assert sha256_of(place.folder / "ppo-1.pt") == first


def test_two_at_once_are_refused(place: Place) -> None:
    with held(place.folder), pytest.raises(UserError):
        place.retrain()
    assert os.listdir(place.folder / "log") == []


def test_the_gate_adds_nothing_to_a_round_that_learns(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another's policy is judged on what is new, and that must wait for the round."""
    theirs = place.folder / "theirs.pt"
    theirs.write_text("theirs")
    champion = Served("a" * 64, place.folder / "champion.pt", SimpleNamespace())  # type: ignore[arg-type]
    monkeypatch.setattr(gates, "champion_of", lambda *_: champion)
    monkeypatch.setattr(gates, "load_at_home", lambda *_: SimpleNamespace())
    monkeypatch.setattr(gates, "check_place", lambda *_: None)
    monkeypatch.setattr(gates, "export_new", place.export)
    with held(place.folder), pytest.raises(UserError):
        gates.gate(gates.GateConfig(str(theirs), policies=str(place.folder), threads=0, quiet=True))
    assert os.listdir(place.folder / "log") == []


def test_only_weights_that_do_not_fit_are_left_out(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Any other mistake ends the learner at once: a second run would be as long, and fail again or lie."""
    runs = list[object]()

    def train(error: UserError, **given: Any) -> Path:
        runs.append(given["init_from"])
        if given["init_from"] is not None:
            raise error
        return place.folder / "ppo.pt"

    checkpoint: Any = SimpleNamespace(
        config=SimpleNamespace(env="satiation", **vars(CONFIG)),
        info={},
    )
    champion = Served("a" * 64, place.folder / "champion.pt", checkpoint)
    task = Task(champion, place.folder / "log", place.folder, 10, None, 1)
    monkeypatch.setattr(learners, "train", lambda **given: train(UserError("The disk is full."), **given))
    with pytest.raises(UserError):
        learners._trained(task, "ppo", init_from="champion.pt")
    assert runs == ["champion.pt"]
    monkeypatch.setattr(learners, "train", lambda **given: train(Unfit("Its head is dense."), **given))
    assert learners._trained(task, "ppo", init_from="champion.pt") == place.folder / "ppo.pt"
    assert runs == ["champion.pt", "champion.pt", None] and "Its head is dense" in capsys.readouterr().err


def test_a_candidate_says_whether_it_began_with_the_weights_of_the_champion(place: Place) -> None:
    place.retrain()
    known = {of.algo: of.warm for name in known_in(place.folder) if (of := candidate_in(place.folder, name))}
    assert known == {"ppo": True, "cql": False}
