"""Recommendations of the policy of a team's own log, which knows contexts in place of users."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
import torch

from recsys_rl.cli import main
from recsys_rl.errors import UserError
from recsys_rl.logs.source import open_log
from recsys_rl.logs.transitions import observe
from recsys_rl.recommender import Event, Recommender, load, recommend_contexts
from recsys_rl.recommender.contexts import parse_context
from recsys_rl.recommender.recommend import RecommendConfig, recommend
from tests.own_logs import clicks, items_file, policy, sessions, write_csv

CONTEXT = {"age": 30.0, "device": "tv", "v": [0.5, -1.0]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("contexts")
    log = clicks(path / "clicks.csv")
    policy(path / "mine.pt", log, items=str(items_file(path / "items.csv")))
    policy(path / "sessions.pt", sessions(path / "sessions.csv"), weights=("clicked=1",))
    return path


@pytest.fixture(scope="module")
def recommender(folder: Path) -> Recommender:
    return load(folder / "mine.pt")


def test_the_first_item_is_the_policys_for_the_observation_of_the_log(
    folder: Path, recommender: Recommender
) -> None:
    """Each row of the log as a context gives the probabilities of the policy in that row's observation."""
    checkpoint = recommender.checkpoint
    log = next(open_log(checkpoint.config.agent_config.log, checkpoint).parts(1000))
    chances = torch.softmax(recommender.agent.scores(observe(log, checkpoint.catalogue)).double(), 1)
    rows = pl.read_csv(folder / "clicks.csv")
    for row in (0, 7, 50):
        values = rows.row(row, named=True)
        vector = [float(x) for x in values["context.v"].split("|")]
        context = {"age": values["context.age"], "device": values["context.device"], "v": vector}
        first = recommender.recommend(context=context, k=1)[0]
        assert first.item == f"i{int(chances[row].argmax())}"
        assert first.title == f"Thing {first.item[1:]}"
        assert first.probability == pytest.approx(float(chances[row].max()), abs=1e-6)


def test_a_file_of_contexts_gives_each_row_the_recommendation_of_its_context(
    folder: Path,
    recommender: Recommender,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(recommend_contexts, "ROWS", 7)
    monkeypatch.chdir(folder)
    rows = [[20 + n, "tv" if n % 2 else "watch", f"{n / 10}|0.5", f"visitor{n}"] for n in range(20)]
    write_csv(folder / "visitors.csv", ["context.age", "context.device", "context.v", "name"], rows)
    pl.read_csv("visitors.csv").write_parquet("visitors.parquet")
    command = ["recommend", "--checkpoint", "mine.pt", "--contexts"]
    assert main([*command, "visitors.csv", "--out", "lists.csv"]) == 0
    assert "10 texts that the log never had" in capsys.readouterr().err
    lists = pl.read_csv("lists.csv")
    assert lists.columns == ["row", "place", "item", "title", "probability", "expected"]
    assert lists["row"].to_list() == [*range(1, 21)]
    for n, row in enumerate(lists.rows(named=True)):
        context = {"age": rows[n][0], "device": rows[n][1], "v": [n / 10, 0.5]}
        first = recommender.recommend(context=context, k=1)[0]
        assert (row["item"], row["title"]) == (first.item, first.title)
        assert row["probability"] == pytest.approx(first.probability, abs=1e-6)
    assert (
        main([*command, "visitors.parquet", "--out", "two.parquet", "--k", "2", "--block", "absent.txt"]) == 2
    )
    assert main([*command, "visitors.parquet", "--out", "two.parquet", "--k", "2"]) == 0
    two = pl.read_parquet("two.parquet")
    assert two.filter(pl.col("place") == 1)["item"].to_list() == lists["item"].to_list()
    assert two.group_by("row").agg(pl.col("item").n_unique())["item"].to_list() == [2] * 20


def test_a_row_with_candidates_gets_items_of_these_alone(
    folder: Path,
    recommender: Recommender,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The policy's probabilities among all items, of the candidates alone and scaled to a sum of 1."""
    monkeypatch.setattr(recommend_contexts, "ROWS", 7)
    monkeypatch.chdir(folder)
    offered = [["i3", "i1"], ["i2"], ["new", "i0", "i2", "i1"], ["i0", "i1", "i2", "i3"]]
    contexts = [(20 + n, "tv", [n / 10, 0.5]) for n in range(20)]
    rows = [[age, device, f"{v[0]}|0.5", "|".join(offered[age % 4])] for age, device, v in contexts]
    write_csv(folder / "offers.csv", ["context.age", "context.device", "context.v", "candidates"], rows)
    command = ["recommend", "--checkpoint", "mine.pt", "--contexts"]
    assert main([*command, "offers.csv", "--out", "offered.csv", "--k", "2"]) == 0
    assert "5 candidates" in capsys.readouterr().err
    lists = pl.read_csv("offered.csv").partition_by("row", maintain_order=True)
    assert len(lists) == 20
    for (age, device, v), places in zip(contexts, lists, strict=True):
        known = [item for item in offered[age % 4] if item != "new"]
        whole = recommender.recommend(context={"age": float(age), "device": device, "v": v}, k=4)
        left, chances = 1.0, {}  # of the first place
        for one in whole:
            chances[str(one.item)], left = one.probability * left, left * (1 - one.probability)
        wanted = sorted(known, key=lambda item: -chances[item])
        assert places["item"].to_list() == wanted[:2]
        first = chances[wanted[0]] / sum(chances[item] for item in known)
        assert places["probability"][0] == pytest.approx(first, abs=1e-5)
    pl.read_csv("offers.csv").rename({"candidates": "could_be_shown"}).write_csv("common.csv")
    assert main([*command, "common.csv", "--out", "common.out.csv", "--k", "2"]) == 0
    assert pl.read_csv("common.out.csv").equals(pl.concat(lists))


@pytest.mark.parametrize(("cell", "more"), [("new|other", ()), ("", ()), ("i2", ("--block", "none.txt"))])
def test_a_row_without_a_candidate_that_may_be_shown_is_refused(
    folder: Path,
    cell: str,
    more: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(folder)
    (folder / "none.txt").write_text("i2\n")
    header = ["context.age", "context.device", "context.v", "candidates"]
    write_csv(folder / "wrong.csv", header, [[20, "tv", "1|2", "i1|i2"], [30, "tv", "1|2", cell]])
    command = ["recommend", "--checkpoint", "mine.pt", "--contexts", "wrong.csv", "--out", "wrong.out.csv"]
    assert main([*command, *more]) == 2
    said = capsys.readouterr().err
    assert "line 3" in said and "candidates" in said
    assert not (folder / "wrong.out.csv").exists()


def test_the_command_prints_the_list_of_a_context(
    folder: Path, recommender: Recommender, capsys: pytest.CaptureFixture[str]
) -> None:
    pieces = [f"--context={text}" for text in ("age=30", "device=tv", "v=0.5,-1")]
    assert main(["recommend", "--checkpoint", str(folder / "mine.pt"), *pieces, "--k", "2"]) == 0
    printed = capsys.readouterr().out.splitlines()
    wanted = recommender.recommend(context=CONTEXT, k=2)
    assert [line.split("(id ")[1].rstrip(")") for line in printed] == [one.item for one in wanted]
    assert f"{wanted[0].probability:.2%}" in printed[0]


def test_a_session_goes_on_with_its_history(folder: Path) -> None:
    visitor = load(folder / "sessions.pt")
    first = visitor.recommend(context={"age": 30}, k=4)
    seen = [Event("i1", {"clicked": 1.0})]
    later = visitor.recommend(context={"age": 30}, k=4, history=seen, again=True)
    assert [one.probability for one in first] != [one.probability for one in later]


@pytest.mark.parametrize(
    "context",
    [
        {"age": 30.0, "device": "tv"},
        {**CONTEXT, "height": 2.0},
        {**CONTEXT, "age": "old"},
        {**CONTEXT, "age": float("nan")},
        {**CONTEXT, "v": [0.5]},
        {**CONTEXT, "v": 0.5},
        {**CONTEXT, "device": 3},
    ],
)
def test_a_missing_or_wrong_piece_is_refused(recommender: Recommender, context: dict[str, object]) -> None:
    with pytest.raises(UserError):
        recommender.recommend(context=context)


def test_people_and_options_without_effect_are_refused(folder: Path, recommender: Recommender) -> None:
    with pytest.raises(UserError):
        recommender.recommend(user="u1", context=CONTEXT)
    mine = str(folder / "mine.pt")
    wrong = [
        {},
        {"user": "u1"},
        {"like": ("Thing 1",)},
        {"context": ("age=1",), "contexts": "clicks.csv", "out": "x.csv"},
        {"contexts": str(folder / "clicks.csv")},
        {"contexts": str(folder / "clicks.csv"), "out": str(folder / "x.txt")},
        {"contexts": str(folder / "clicks.csv"), "out": str(folder / "clicks.csv")},
        {"contexts": str(folder / "items.csv"), "out": str(folder / "x.csv")},
        {"context": ("age=1", "device=tv", "v=1,2"), "again": True},
    ]
    for options in wrong:
        with pytest.raises(UserError):
            recommend(RecommendConfig(checkpoint=mine, **options))  # type: ignore[arg-type]
    assert not (folder / "x.csv").exists()


def test_texts_of_the_command_become_values_by_the_kind_of_their_piece(recommender: Recommender) -> None:
    pieces = recommender.pieces
    assert pieces is not None
    texts = ["age=30", "device= tv ", "v=[0.5, -1]"]
    assert parse_context(pieces, texts) == CONTEXT
    for wrong in (["age"], ["age=1", "age=2"]):
        with pytest.raises(UserError):
            parse_context(pieces, wrong)


def test_a_piece_named_hour_is_a_piece_like_others(tmp_path: Path) -> None:
    """Of other platforms the name belongs to the clock."""
    rows = pl.read_csv(clicks(tmp_path / "clicks.csv")).rename({"context.age": "context.hour"})
    rows.write_csv(tmp_path / "hours.csv")
    policy(tmp_path / "hours.pt", tmp_path / "hours.csv")
    context = {"hour": 21.0, "device": "tv", "v": [0.5, -1.0]}
    assert len(load(tmp_path / "hours.pt").recommend(context=context, k=3)) == 3
