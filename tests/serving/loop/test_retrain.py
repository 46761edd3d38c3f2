"""One turn of learning from a served record, and the gate, on a world of 24 items."""

from __future__ import annotations

import dataclasses
import json
import random
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest
import torch

from recsys_rl.checkpoint import load, save
from recsys_rl.checkpoint.home import load_at_home
from recsys_rl.checkpoint.stock import encoding_of, over
from recsys_rl.cli import main
from recsys_rl.data.tables.item_encoding import StockItem, items_of
from recsys_rl.errors import UserError
from recsys_rl.logs.ope.part import heldout_of
from recsys_rl.logs.parts import PART, read_decisions
from recsys_rl.logs.record import RecordConfig, record
from recsys_rl.logs.source import open_log
from recsys_rl.logs.transitions import observe
from recsys_rl.make import agent_of
from recsys_rl.serving.loop import gate_compare, learners, served_log
from recsys_rl.serving.loop import retrain as turns
from recsys_rl.serving.loop.gate import GateConfig, gate, gate_each
from recsys_rl.serving.loop.retrain import RetrainConfig, retrain
from recsys_rl.serving.loop.rounds import latest_round, parts_in
from recsys_rl.serving.loop.served_log import export_new, survey
from recsys_rl.utils.files import sha256_of
from tests.doors import SATIATION, steps, train_in
from tests.own_logs import clicks, policy, sessions, write_csv
from tests.serving.servers import event, recommend, send, serving

LENGTH = 5  # of a session
LATER = 9000.0  # seconds after which sessions are mature


def visit(db: Path, policies: Path, sessions: int = 60, seed: int = 0, first: int = 0) -> None:
    """Whole sessions of 20 people of the data and 20 strangers, which have matured."""
    drawn = random.Random(seed)
    with serving(policies, db) as client:
        for number in range(first, first + sessions):
            user = str(number % 20) if number % 2 else f"stranger {number % 40}"
            for _ in range(LENGTH):
                decision = recommend(client, user)
                send(client, event(decision, "engagement", drawn.random()))


def options(folder: Path, **settings: object) -> RetrainConfig:
    given: dict[str, Any] = {
        "db": str(folder / "r.sqlite"),
        "policies": str(folder / "policies"),
        "steps": 2048,
        "decisions": 6400,
        "quiet": True,
        **settings,
    }
    return RetrainConfig(**given)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with policies/champion.pt and its record, r.sqlite."""
    folder = tmp_path_factory.mktemp("served")
    (folder / "policies").mkdir()
    champion = train_in(folder / "run", *SATIATION, *steps(1))
    (folder / "policies/champion.pt").write_bytes(champion.read_bytes())
    visit(folder / "r.sqlite", folder / "policies")
    return folder


@pytest.fixture(autouse=True, scope="module")
def later_in_few_steps() -> Iterator[None]:
    """Users are learned in few steps, and all sessions have matured."""
    later = SimpleNamespace(time=lambda: time.time() + LATER)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("recsys_rl.logs.users.fit.LEAST_STEPS", 2)
        patch.setattr("recsys_rl.serving.loop.learners.MEMBERS", 2)
        patch.setattr("recsys_rl.serving.loop.learners.EPOCHS", 1)
        patch.setattr("recsys_rl.serving.record.store_reader.time", later)
        yield


@pytest.fixture(scope="module")
def learned(served: Path, later_in_few_steps: None) -> list[Path]:
    return retrain(options(served))


def test_a_turn_learns_two_candidates_and_says_from_what(served: Path, learned: list[Path]) -> None:
    assert [path.name for path in learned] == ["ppo-1.pt", "cql-1.pt"]
    champion = sha256_of(served / "policies/champion.pt")
    for path in learned:
        values = json.loads(path.with_name(f"{sha256_of(path)}.json").read_text())
        assert (values["file"], values["parent"], values["round"]) == (path.name, champion, 1)
        assert (values["from"], values["to"]) == (0, parts_in(served / "policies")[-1][1])
        assert 30 < values["sessions"] < 60  # those of training users
        config = load_at_home(path).config
        assert config.env == "satiation"
        assert values["split"] == {"heldout_fraction": config.data_config.heldout_fraction, "seed": 0}
    assert load(learned[0]).config.env == "learned"
    assert load(learned[1]).config.agent_config.temperature == 0.1


def test_a_round_without_new_sessions_learns_nothing(served: Path, learned: list[Path]) -> None:
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
    number = load(learned[0]).catalogue.num_items
    assert 1 <= values["items"] <= number and 1 <= values["champion_items"] <= number
    assert "held-out user" in stem.with_suffix(".gate.md").read_text()
    assert gate(GateConfig(str(learned[0]), str(served / "r.sqlite"), quiet=True)) == verdict


def test_candidates_of_one_gate_share_a_reading_of_the_log_and_learned_users(
    served: Path, learned: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each gets the verdict that it gets alone, in either order."""
    db, calls = str(served / "r.sqlite"), Counter[str]()
    alone = [gate(GateConfig(str(path), db, quiet=True)) for path in learned]
    for module, name in ((served_log, "open_log"), (gate_compare, "try_world")):
        whole = getattr(module, name)

        def counted(*given: Any, name: str = name, whole: Callable[..., Any] = whole, **named: Any) -> Any:
            calls[name] += 1
            return whole(*given, **named)

        monkeypatch.setattr(module, name, counted)
    assert [*gate_each(GateConfig(db=db, quiet=True), learned)] == alone
    assert calls == {"open_log": 1, "try_world": 1}
    assert [*gate_each(GateConfig(db=db, quiet=True), learned[::-1])] == alone[::-1]


def test_a_verdict_is_written_before_the_next_candidate_is_judged(
    served: Path, learned: list[Path], tmp_path: Path
) -> None:
    shutil.copytree(served, tmp_path / "copy")
    folder = tmp_path / "copy/policies"
    for path in folder.glob("*.gate.*"):
        path.unlink()
    settings = GateConfig(db=str(tmp_path / "copy/r.sqlite"), quiet=True)
    verdicts = gate_each(settings, [folder / path.name for path in learned])
    for number, verdict in enumerate(verdicts, 1):
        written = [json.loads(path.read_text()) for path in folder.glob("*.gate.json")]
        assert len(written) == verdict.look == number and verdict.values() in written


def test_gate_says_how_many_sessions_were_too_many(
    served: Path, learned: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = gate(GateConfig(str(learned[0]), str(served / "r.sqlite"), quiet=True))
    monkeypatch.setattr("recsys_rl.serving.loop.gate_compare.MOST_DECISIONS", 4 * LENGTH)
    part = gate(GateConfig(str(learned[0]), str(served / "r.sqlite"), quiet=True))
    assert (whole.left_out, part.sessions, part.left_out) == (0, 4, whole.sessions - 4)
    assert part.look == whole.look == 1


def test_gate_ends_with_the_code_of_its_answer(served: Path, learned: list[Path]) -> None:
    """Nine sessions tell nothing about policies that hardly differ."""
    code = main(["gate", str(learned[1]), "--db", str(served / "r.sqlite")])
    answer = json.loads(learned[1].with_name(f"{sha256_of(learned[1])}.gate.json").read_text())["answer"]
    assert code == {"better": 0, "no harm seen": 0, "worse": 3, "can't tell": 4}[answer]


class Killed(BaseException):
    """The process ends here."""


@pytest.mark.parametrize(
    ("module", "name", "call"),
    [
        (turns, "survey", 1),  # the interval is exported, and nothing is learned
        (learners, "train", 1),  # users are learned
        (turns, "_publish", 1),  # its facts are written, and the policy is not there
        (learners, "train", 2),  # the first candidate is there
    ],
)
def test_a_killed_turn_ends_with_the_same_candidates(
    served: Path, learned: list[Path], tmp_path: Path, module: Any, name: str, call: int
) -> None:
    """What has come in since the round began belongs to the next one."""
    folder, db = served / "policies", tmp_path / "r.sqlite"
    shutil.copy(served / "r.sqlite", db)
    wanted = [sha256_of(path) for path in learned]
    kept = tmp_path / "kept"
    folder.rename(kept)  # the paths of a run are in its checkpoint
    try:
        folder.mkdir()
        shutil.copy(kept / "champion.pt", folder)
        calls, whole = 0, getattr(module, name)

        def killed(*given: Any, **named: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == call:
                raise Killed
            return whole(*given, **named)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, name, killed)
            with pytest.raises(Killed):
                retrain(options(served, db=str(db)))
        visit(db, folder, sessions=4, seed=1, first=60)
        assert [sha256_of(path) for path in retrain(options(served, db=str(db)))] == wanted
        assert {path.stem for path in folder.glob("*.json")} == {*wanted}
    finally:
        shutil.rmtree(folder)
        kept.rename(folder)


def test_the_next_round_learns_from_all_sessions(served: Path, learned: list[Path], tmp_path: Path) -> None:
    """With another champion, whose values cql gives; PPO begins with the policy that it draws from."""
    shutil.copytree(served, tmp_path / "copy")
    folder, db = tmp_path / "copy/policies", tmp_path / "copy/r.sqlite"
    with serving(folder, db) as client:
        sha256 = sha256_of(folder / "cql-1.pt")
        body = {"sha256": sha256}
        assert client.post("/v1/release/alias", json=body).status_code == 200
    visit(db, folder, sessions=20, seed=2, first=60)
    found = retrain(options(tmp_path / "copy"))
    assert [path.name for path in found] == ["ppo-2.pt", "cql-2.pt"]
    latest = latest_round(folder)
    assert latest is not None and latest.number == 2 and latest.champion == sha256
    assert [until for _, until in parts_in(folder)][-1] == latest.until
    values = json.loads((folder / f"{latest.candidates[0]}.json").read_text())
    before = json.loads((folder / f"{sha256}.json").read_text())
    assert values["parent"] == sha256 and values["sessions"] > before["sessions"]
    assert values["from"] == 0 and values["log_hash"] != before["log_hash"]
    assert load(found[0]).info["steps_before"] > 0
    verdict = gate(GateConfig(str(found[0]), str(db), quiet=True))
    assert verdict.round == 2 and verdict.champion == sha256


def own(
    folder: Path,
    champion: Callable[[Path], Path],
    sessions: int,
    length: int,
    *signals: str,
    binary: bool = False,
) -> Path:
    """A folder with a policy of a team's own log, and its record; ``binary``: signals are 0 and 1."""
    (folder / "policies").mkdir()
    champion(folder / "policies/champion.pt")
    drawn = random.Random(0)
    with serving(folder / "policies", folder / "r.sqlite") as client:
        for number in range(sessions * length):
            context: dict[str, Any] = {"age": drawn.uniform(1, 80)}
            if length == 1:
                context |= {"device": "phone", "v": [drawn.random(), 0.0]}
            decision = recommend(client, f"u{number // length % 50}", context=context)
            values = [float(drawn.random() < 0.5) if binary else drawn.random() for _ in signals]
            send(client, *(event(decision, *pair) for pair in zip(signals, values, strict=True)))
    return folder


def test_single_decisions_are_learned_from_and_judged_by_weights(tmp_path: Path) -> None:
    log = clicks(tmp_path / "clicks.csv")
    own(tmp_path, lambda path: policy(path, log, "reinforce"), 150, 1, "clicked", binary=True)
    found = retrain(options(tmp_path))
    assert [path.name for path in found] == ["reinforce-1.pt", "direct-1.pt"]
    verdict = gate(GateConfig(str(found[0]), str(tmp_path / "r.sqlite"), quiet=True))
    assert verdict.by == "lower-bound" and 0 < verdict.sessions < 150  # too few for `dr`
    both = [*gate_each(GateConfig(db=str(tmp_path / "r.sqlite"), quiet=True), found[::-1])]
    assert both[1] == verdict and both[0].look == 2  # whatever was judged before


def test_second_learner_is_the_direct_method_for_single_items_and_a_clone_for_slates(tmp_path: Path) -> None:
    log, items = clicks(tmp_path / "clicks.csv"), tmp_path / "items.csv"
    write_csv(items, ["item", "brand"], [[f"i{item}", "ab"[item % 2]] for item in range(4)])
    by_id = load(policy(tmp_path / "ids.pt", log, "reinforce"))
    known = load(policy(tmp_path / "known.pt", log, "reinforce", items=str(items)))
    in_slates = dataclasses.replace(known, interface=dataclasses.replace(known.interface, slate_size=2))
    weights = ("clicked=1", "dwell=0.5")
    of_sessions = load(
        policy(tmp_path / "2.pt", sessions(tmp_path / "log.csv"), "reinforce", weights=weights)
    )
    wanted = [(by_id, "direct"), (known, "direct"), (in_slates, "bc"), (of_sessions, "cql")]
    for of, second in wanted:
        for unknown in (False, True):
            first, other = learners.learners_of(of, unknown)
            assert (first.name, other.name) == ("ppo" if of is of_sessions else "reinforce", second)


@pytest.mark.parametrize(("number", "unknown"), [(0, 0), (20, 10 / 620), (200, 190 / 800)])
def test_texts_that_new_encodings_would_leave_out_are_no_reason_for_them(
    tmp_path: Path, number: int, unknown: float
) -> None:
    """600 items have 120 brands, of which 50 have a code. Those that come later have two others."""
    brands = [[f"i{at}", f"b{at % 120:03d}"] for at in range(600)]
    items = write_csv(tmp_path / "items.csv", ["item", "brand"], brands)
    log = clicks(tmp_path / "log.csv", items=600)
    checkpoint = load(policy(tmp_path / "p.pt", log, "reinforce", items=str(items)))
    new = [StockItem(f"n{at}", "", {"brand": f"new {at % 2}"}) for at in range(number)]
    found = survey(log, over(checkpoint, [*items_of(checkpoint.catalogue), *new])).unknown
    assert found == pytest.approx(unknown) and (found > turns.MOST_UNKNOWN) == (number == 200)


@pytest.mark.proof
@pytest.mark.timeout(120)
def test_a_candidate_gets_new_encodings_where_many_items_have_unknown_texts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two of six items are of a brand that is new: killed or not, the round ends with the same bytes."""
    policies, db = tmp_path / "policies", tmp_path / "r.sqlite"
    policies.mkdir()
    rows = [[f"i{item}", "ab"[item % 2], 1.5 * item] for item in range(4)]
    items = write_csv(tmp_path / "items.csv", ["item", "brand", "price"], rows)
    policy(policies / "champion.pt", clicks(tmp_path / "clicks.csv"), "reinforce", items=str(items))
    new = [{"item_id": f"n{at}", "features": {"brand": "c", "price": 2.0}} for at in range(2)]
    drawn = random.Random(0)
    with serving(policies, db) as client:
        assert client.post("/v1/items", json={"items": new}).status_code == 200
        for number in range(120):
            context = {"age": drawn.uniform(1, 80), "device": "phone", "v": [drawn.random(), 0.0]}
            decision = recommend(client, f"u{number % 50}", context=context)
            liked = decision["items"][0]["item_id"].startswith("n")
            send(client, event(decision, "clicked", float(liked)))
    module: Any = learners
    killed, whole = [2], module.train

    def train(*given: Any, **named: Any) -> Path:
        killed[0] -= 1
        if killed[0] == 0:
            raise Killed
        made: Path = whole(*given, **named)
        return made

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(learners, "train", train)
        with pytest.raises(Killed):
            retrain(options(tmp_path, decisions=25_600))
    wanted = [sha256_of(path) for path in retrain(options(tmp_path, decisions=25_600))]
    for path in policies.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != "champion.pt":
            path.unlink()
    found = retrain(options(tmp_path, decisions=25_600))
    assert [path.name for path in found] == ["reinforce-1.pt", "direct-1.pt"]
    assert [sha256_of(path) for path in found] == wanted
    assert "33%" in capsys.readouterr().err
    values = json.loads((policies / "rounds/1/round.json").read_text())
    assert values["unknown"] == pytest.approx(1 / 3) and values["candidates"] == wanted
    brands = [encoding_of(load(path)).pieces[0].values for path in found]
    assert brands == [("a", "b"), ("a", "b", "c")]
    assert json.loads((policies / f"{wanted[1]}.json").read_text())["algo"] == "direct"
    verdicts = [*gate_each(GateConfig(db=str(db), quiet=True), found)]
    assert [of.challenger for of in verdicts if of.sessions] == wanted
    with serving(policies, db) as client:
        assert client.post("/v1/release/alias", json={"sha256": wanted[1]}).status_code == 200
        context = {"age": 30.0, "device": "phone", "v": [0.5, 0.0]}
        shown = [recommend(client, f"v{at}", context=context)["items"][0]["item_id"] for at in range(40)]
        assert sum(name.startswith("n") for name in shown) > 20  # people like them
    assert main(["log", "check", "--db", str(db)]) == 0


def test_the_columns_of_a_team_are_those_of_the_champion(tmp_path: Path) -> None:
    """A log of a team's own names, from which alone nobody can tell what is what; so has the record's log."""
    log, names = tmp_path / "shop.csv", {"item": "article", "clicked": "purchase", "propensity": "chance"}
    text = clicks(tmp_path / "clicks.csv").read_text()
    for old, new in names.items():
        text = text.replace(f",{old},", f",{new},", 1)
    log.write_text(text)
    columns = {"item_column": "article", "reward_column": "purchase", "propensity_column": "chance"}
    own(tmp_path, lambda path: policy(path, log, "reinforce", **columns), 150, 1, "purchase", binary=True)
    found = retrain(options(tmp_path))
    assert {*pl.read_parquet(next((tmp_path / "policies/log").iterdir())).columns} >= {"article", "purchase"}
    for path in found:
        data = load(path).config.data_config
        assert {name: getattr(data, name) for name in columns} == columns
    assert gate(GateConfig(str(found[0]), str(tmp_path / "r.sqlite"), quiet=True)).sessions > 0


def test_a_candidate_of_another_log_of_the_same_items_is_judged_by_its_own_encoding(tmp_path: Path) -> None:
    """Its items have another popularity, and its ages another scale. Read from the log itself, it agrees."""
    log, policies = clicks(tmp_path / "clicks.csv"), tmp_path / "policies"
    own(tmp_path, lambda path: policy(path, log, "reinforce"), 150, 1, "clicked", binary=True)
    newer = clicks(tmp_path / "newer.csv", rows=200, seed=1)
    other = policy(policies / "other.pt", newer, "reinforce")
    mine, champion = load(other), load(policies / "champion.pt")
    with torch.no_grad():
        for name, tensor in mine.agent.items():  # a policy that looks at its context
            if name.startswith("model."):
                tensor += torch.randn(tensor.shape, generator=torch.Generator().manual_seed(len(name)))
    save(other, mine)
    shares, ages = (
        [of.catalogue.popularity.tolist() for of in (mine, champion)],
        [of.config.env_config.log_shape.pieces[0].shift for of in (mine, champion)],
    )
    assert shares[0] != shares[1] and ages[0] != ages[1]
    verdict = gate(GateConfig(str(other), str(tmp_path / "r.sqlite"), quiet=True))
    weights = []
    for part in open_log((str(policies / "log"),), mine).parts(PART):  # in its own encoding
        rows = part.rows(heldout_of(part, mine, champion))
        with torch.no_grad():
            own_logprobs = agent_of(mine).logprob(observe(rows, mine.catalogue), rows.items)
        weights.append((own_logprobs.double() - rows.logprobs).exp())
    every = torch.cat(weights)
    assert len(every) == verdict.sessions
    chi2 = float(every.square().mean() / every.mean().square()) - 1
    assert chi2 > 0.1 and verdict.chi2 == pytest.approx(chi2, rel=1e-4)


def test_candidates_of_other_texts_are_refused_and_of_other_items_are_judged(tmp_path: Path) -> None:
    """A policy reads the items of the record by its own encodings, and has weight 0 where it lacks one."""
    log, policies = clicks(tmp_path / "clicks.csv"), tmp_path / "policies"
    own(tmp_path, lambda path: policy(path, log, "reinforce"), 150, 1, "clicked", binary=True)
    items = ["item,price", *(f"i{item},{item}" for item in range(4))]
    (tmp_path / "items.csv").write_text("\n".join(items) + "\n")
    others: dict[str, tuple[str, str, dict[str, Any]]] = {
        "catalogue": ("i3", "j3", {}),
        "texts": ("phone", "watch", {}),
        "columns": ("", "", {"items": str(tmp_path / "items.csv")}),
    }
    for name, (old, new, settings) in others.items():
        table = tmp_path / f"{name}.csv"
        table.write_text(log.read_text().replace(old, new))
        file = policy(policies / f"{name}.pt", table, "reinforce", **settings)
        options_of = GateConfig(str(file), str(tmp_path / "r.sqlite"), quiet=True)
        if name != "texts":
            assert gate(options_of).by in ("dr", "lower-bound")
            continue
        with pytest.raises(UserError) as refused:
            gate(options_of)
        assert "texts" in str(refused.value)


def test_single_decisions_whose_rewards_have_no_known_ends_have_no_lower_bound(tmp_path: Path) -> None:
    log = clicks(tmp_path / "clicks.csv")
    pl.read_csv(log).with_columns(pl.col("clicked") * 0.7).write_csv(log)  # amounts, and not 0 and 1
    own(tmp_path, lambda path: policy(path, log, "reinforce"), 150, 1, "clicked")
    found = retrain(options(tmp_path))
    verdict = gate(GateConfig(str(found[0]), str(tmp_path / "r.sqlite"), quiet=True))
    assert (verdict.answer, verdict.by) == ("can't tell", "dr") and "lowest" in verdict.reason


@pytest.mark.proof
def test_sessions_of_a_team_are_learned_from_with_the_weights_of_their_champion(tmp_path: Path) -> None:
    log, weights = sessions(tmp_path / "log.csv"), ("clicked=1", "dwell=0.5")
    own(tmp_path, lambda path: policy(path, log, "reinforce", weights=weights), 60, 4, "clicked", "dwell")
    found = retrain(options(tmp_path))
    assert [path.name for path in found] == ["ppo-1.pt", "cql-1.pt"]
    assert {load_at_home(path).config.env for path in found} == {"own-log"}
    assert load(found[1]).config.train_config.weights == weights
    verdict = gate(GateConfig(str(found[1]), str(tmp_path / "r.sqlite"), quiet=True))
    assert verdict.by == "world" and 0 < verdict.sessions < 60


def test_a_policy_of_learned_users_serves_and_is_recorded_on_the_platform(
    served: Path, learned: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "policies").mkdir()
    shutil.copy(learned[0], tmp_path / "policies")
    visit(tmp_path / "r.sqlite", tmp_path / "policies", sessions=20)
    export_new(tmp_path / "r.sqlite", tmp_path / "policies", None)
    log = read_decisions(tmp_path / "policies/log")
    assert (log.header.platform, log.header.loggers) == ("satiation", ("ppo",))
    place = load_at_home(learned[0])
    assert (place.config.env, log.header.interface) == ("satiation", place.interface)
    with torch.no_grad():
        mine = agent_of(place).logprob(observe(log, place.catalogue), log.items)
    torch.testing.assert_close(mine.double(), log.logprobs, atol=1e-4, rtol=1e-4)


def test_a_record_without_chance_is_named(served: Path, tmp_path: Path) -> None:
    champion = served / "policies/champion.pt"
    said = {}
    for name in ("popularity", "random"):
        log = tmp_path / f"{name}.parquet"
        played: dict[str, Any] = {"policy": (name,), "sessions": 20, "users": "all", "quiet": True}
        record(RecordConfig(str(champion), out=str(log), **played))
        said[name] = survey(log, load(champion)).lacking
    assert "probability 1" in said["popularity"] and said["random"] == ""


# Mistakes


@pytest.mark.parametrize(
    "given",
    [
        {"policies": None},
        {"policies": "no such folder"},
        {"db": "no such file"},
    ],
)
def test_without_a_record_or_its_policies(served: Path, given: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        retrain(options(served, **given))


def test_a_folder_without_the_champion(served: Path, tmp_path: Path) -> None:
    train_in(tmp_path / "run", *SATIATION, *steps(2))
    with pytest.raises(UserError):
        retrain(options(served, policies=str(tmp_path / "run")))


def test_a_record_without_sessions_or_of_one_user(served: Path, tmp_path: Path) -> None:
    (tmp_path / "policies").mkdir()
    shutil.copy(served / "policies/champion.pt", tmp_path / "policies")
    with serving(tmp_path / "policies", tmp_path / "r.sqlite"):
        pass
    with pytest.raises(UserError):
        retrain(options(tmp_path))
    with serving(tmp_path / "policies", tmp_path / "r.sqlite") as client:
        for _ in range(4 * LENGTH):
            recommend(client, "1")
    with pytest.raises(UserError):
        retrain(options(tmp_path))
    assert not [*(tmp_path / "policies").glob("*.json")]


def test_a_file_in_the_place_of_a_candidate_stays(served: Path, tmp_path: Path) -> None:
    shutil.copytree(served, tmp_path / "copy")
    folder = tmp_path / "copy/policies"
    shutil.rmtree(folder / "rounds", ignore_errors=True)
    for path in folder.glob("*.json"):
        path.unlink()
    (folder / "ppo-1.pt").write_bytes((folder / "champion.pt").read_bytes() + b"x")
    with pytest.raises(UserError):
        retrain(options(tmp_path / "copy"))
    assert (folder / "ppo-1.pt").read_bytes()[-1:] == b"x"


def test_gate_refuses_what_can_not_serve_in_the_champions_place(
    served: Path, learned: list[Path], tmp_path: Path
) -> None:
    db, policies = str(served / "r.sqlite"), str(served / "policies")
    other = train_in(tmp_path / "run", *SATIATION, *steps(1), "--num-items", "23")
    longer = train_in(tmp_path / "longer", *SATIATION, *steps(1), "--max-episode-steps", "6")
    champion = served / "policies/champion.pt"
    for challenger in (None, "no such file", str(other), str(longer), str(champion)):
        with pytest.raises(UserError):
            gate(GateConfig(challenger, db, policies, quiet=True))
