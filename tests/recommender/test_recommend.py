"""Recommendations of a trained policy: the same numbers as in the environment, and whole commands."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from torch import Tensor

from recsys_rl.checkpoint import load as load_checkpoint
from recsys_rl.cli import main
from recsys_rl.env import long_video
from recsys_rl.errors import UserError
from recsys_rl.make import make_agent, make_env
from recsys_rl.recommender import Recommendation, Recommender, Visit, load
from recsys_rl.recommender.recommend import aligned
from recsys_rl.records import VisitPieces
from recsys_rl.types import Obs
from recsys_rl.utils.seeding import generators
from tests.doors import CARTPOLE, steps, train_in

SIZES = ["--num-items", "24", "--num-users", "30", "--embedding-dim", "4", "--max-episode-steps", "5"]
RUN = ["--data", "synthetic", *SIZES, "--n-steps", "8", "--num-envs", "8", "--total-timesteps", "256"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with a run on each platform: drift by A2C, satiation by PPO."""
    path = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path)
        assert main(["train", "--algo", "a2c", *RUN]) == 0
        assert main(["train", "--env", "satiation", *RUN, "--batch-size", "32"]) == 0
    return path


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder of its own with runs on short-video and long-video, three suggestions each."""
    folder = tmp_path_factory.mktemp("videos")
    sizes = [*SIZES[:-1], "8", *RUN[len(SIZES) + 2 :], "--batch-size", "32"]
    run = ["train", "--data", "synthetic", *sizes]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main([*run, "--env", "short-video", "--name", "short-video"]) == 0
        assert main([*run, "--env", "long-video", "--suggestions", "3", "--name", "long-video"]) == 0
    return folder


@pytest.fixture
def here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture(scope="module")
def recommender(folder: Path) -> Recommender:
    return load(folder / "checkpoints/ppo.pt")


@pytest.mark.parametrize("algo", ["ppo", "a2c"])
def test_agent_from_its_interface_acts_as_with_the_environment(folder: Path, algo: str) -> None:
    path = folder / f"checkpoints/{algo}.pt"
    checkpoint = load_checkpoint(path)
    env = make_env(checkpoint.config, checkpoint.world, 4, torch.Generator().manual_seed(0), heldout=True)
    assert env.interface == checkpoint.interface
    streams = generators(0, "model", "policy", "shuffle")
    device = torch.device("cpu")
    with_env = make_agent(checkpoint.config, env.interface, checkpoint.catalogue, 1, streams, device)
    with_env.load_state_dict(checkpoint.agent)
    alone, obs = load(path), env.reset(checkpoint.population.heldout[:4])
    for _ in range(3):
        action, other = alone.act(obs, greedy=True), with_env.act(obs, greedy=True)
        assert torch.equal(action.items, other.items)
        torch.testing.assert_close(action.logprob, other.logprob)
        obs = env.step(action.items).obs


def first_probabilities(recommender: Recommender) -> tuple[int, Obs, Tensor]:
    """A training user, the environment's first observation of them, and the policy's probabilities (A,)."""
    checkpoint = recommender.checkpoint
    env = make_env(checkpoint.config, checkpoint.world, 1, torch.Generator().manual_seed(0))
    user = int(checkpoint.population.train[3])
    obs = env.reset(torch.tensor([user]))
    with torch.no_grad():
        policy, _ = recommender.agent.model(obs)
    return user, obs, policy.logits.flatten().softmax(-1)


@pytest.mark.parametrize("algo", ["ppo", "a2c"])
def test_first_place_is_the_policys_best_at_the_start_of_a_session(folder: Path, algo: str) -> None:
    recommender = load(folder / f"checkpoints/{algo}.pt")
    user, _, probabilities = first_probabilities(recommender)
    first, *others = recommender.recommend(int(recommender.population.user_ids[user]), k=24)
    assert first.item == int(probabilities.argmax()) and first.title == f"item {first.item}"
    assert first.probability == pytest.approx(probabilities.max().item(), rel=1e-5)
    assert {first.item, *(place.item for place in others)} == set(range(24))  # no item twice
    assert others[-1].probability == pytest.approx(1)  # nothing else is left


@pytest.mark.parametrize("algo", ["ppo", "a2c"])
def test_list_is_made_by_playing_on(folder: Path, algo: str) -> None:
    """Each place is the policy's first choice after the places above it, consumed in full."""
    recommender = load(folder / f"checkpoints/{algo}.pt")
    found, above = recommender.recommend(user=3, k=8), list[int]()
    for place in found:
        (next_one,) = recommender.recommend(user=3, history=above, k=1)
        assert next_one.item == place.item
        assert next_one.probability == pytest.approx(place.probability, rel=1e-4)
        above.append(int(place.item))
    at_once = recommender.recommend(user=3, k=1, block=above[:1])
    assert at_once[0].probability != pytest.approx(found[1].probability, rel=1e-6)  # the history counts


def test_drawn_places_follow_the_probabilities(recommender: Recommender) -> None:
    user, number = 3, 4000
    lists = list(recommender.for_users([user] * number, k=2, generator=torch.Generator().manual_seed(0)))
    chance = {row[0].item: row[0].probability for row in lists}
    for item, p in chance.items():
        share = sum(row[0].item == item for row in lists) / number
        assert share == pytest.approx(p, abs=5 * (p * (1 - p) / number) ** 0.5)
    assert sum(chance.values()) == pytest.approx(1, abs=0.01)  # an unlikely item may be in no list
    first, second = lists[0]
    best, drawn = recommender.recommend(user, history=[first.item], k=1)[0], second.probability
    assert drawn == pytest.approx(best.probability, rel=1e-4) or second.item != best.item
    again = recommender.for_users([user] * number, k=2, generator=torch.Generator().manual_seed(0))
    assert [[p.item for p in row] for row in again] == [[p.item for p in row] for row in lists]


def test_history_is_excluded_and_changes_the_policy(recommender: Recommender) -> None:
    after = recommender.recommend(user=0, history=["item 3", 5], k=22)
    assert {place.item for place in after} == set(range(24)) - {3, 5}
    blocked = recommender.recommend(user=0, block=[3, 5], k=1)[0]
    assert blocked.probability != pytest.approx(after[0].probability, rel=1e-6)


def test_profile_of_a_new_user_is_the_fold_in_of_the_likes(recommender: Recommender) -> None:
    """By the normal equations of data/embeddings.py: confidence 5 for a like, 10 on the norm."""
    e = recommender.catalogue.embedding.double()
    liked = e[[2, 7]]
    wanted = torch.linalg.solve(e.T @ e + 10 * torch.eye(4) + 4 * liked.T @ liked, 5 * liked.sum(0))
    found = recommender.profile_of(["item 2", "item 7", "item 2"])  # a like given twice is one like
    torch.testing.assert_close(found[0].double(), wanted / wanted.norm(), rtol=1e-5, atol=1e-6)


def test_titles_by_unique_beginnings(recommender: Recommender) -> None:
    assert recommender.item("ITEM 1") == 1  # the whole title of one item, and the beginning of others
    assert recommender.item("item 23") == recommender.item(23) == 23
    with pytest.raises(UserError):
        recommender.item("item")
    with pytest.raises(UserError):
        recommender.item("17")


def test_allowed_and_blocked_items(recommender: Recommender) -> None:
    found = recommender.recommend(user=0, k=2, allow=[4, 9, 11], block=[9])
    assert {place.item for place in found} == {4, 11}
    assert found[0].probability < 1 and found[1].probability == pytest.approx(1)
    with pytest.raises(UserError):
        recommender.recommend(user=0, k=3, allow=[4, 9, 11], block=[9])


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("", "Give one of --user ID, --like TITLE and --users FILE."),
        ("--user 1 --like item", "Give one of --user ID, --like TITLE and --users FILE."),
        ("--user 999", "There is no user with the id 999 among those whom training kept"),
        ("--like nothing", "No title begins with 'nothing': give another."),
        ("--users all", "--users and --out belong together"),
        ("--user 1 --out x.parquet", "--users and --out belong together"),
        (
            "--users words.txt --out x.parquet",
            "--users words.txt: 'two' (line 2) is not an id: give whole",
        ),
        (
            "--users unknown.txt --out x.parquet",
            "--users unknown.txt: 8 of 10 ids are not among the users whom training kept (those with enough "
            "likes): 700 (line 2), 701 (line 3), 702 (line 4), 703 (line 5), 704 (line 6) and 3 more; leave "
            "them out, or give --missing drop.",
        ),
        (
            "--users strangers.txt --out x.parquet --missing drop",
            "no id of this file is among the users whom training kept (those with enough likes): "
            "700 (line 1) and 701 (line 2); give ids of the data",
        ),
        (
            "--user 1 --block high.txt",
            "--block high.txt: 1 of 2 ids is not in the catalogue: 77 (line 2)",
        ),
        ("--user 1 --missing drop", "--missing"),
        ("--users all --out x.parquet --missing drop", "--missing"),
        ("--users empty.txt --out x.parquet", "--users empty.txt holds no ids"),
        ("--users all --out x.csv", "--out x.csv is to be a Parquet file: end its name with .parquet"),
        ("--user 1 --block missing.txt", "--block missing.txt can't be read"),
        ("--user 1 --allow high.txt", "--allow high.txt: 1 of 2 ids is not in the catalogue: 77 (line 2)"),
        ("--user 1 --k 25", "Only 24 items may be shown, but k is 25"),
        ("--user 1 --k 0", "--k is 0"),
        ("--user 1 --algo a2c --checkpoint checkpoints/ppo.pt", "is a checkpoint of ppo, not of a2c"),
        ("--user 1 --checkpoint nowhere.pt", "nowhere.pt does not exist"),
        ("--user 1 --seed 3", "--seed"),
        ("--user 1 --user-column who", "--user-column"),
        ("--like item --seen high.txt", "--seen"),
        ("--user 1 --seen high.txt --again", "--seen"),
        ("--user 1 --items high.txt", "--items: the items of this policy are made up"),
    ],
)
def test_mistakes(here: Path, line: str, sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("words.txt").write_text("1\ntwo\n")
    Path("empty.txt").write_text("\n")
    Path("high.txt").write_text("1\n77\n")
    Path("unknown.txt").write_text("1\n" + "".join(f"{id_}\n" for id_ in range(700, 708)) + "2\n")
    Path("strangers.txt").write_text("700\n701\n")
    assert main(["recommend", *line.split()]) == 2
    said = capsys.readouterr()
    *before, error = said.err.splitlines()
    assert said.out == "" and error.startswith("error: ") and sentence in error
    assert len(before) <= 1 and all(line.startswith("checkpoint: runs/") for line in before)
    assert not Path("x.parquet").exists()


def test_algo_chooses_the_checkpoint(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As with `evaluate`: that of the latest run of the algorithm."""
    for words in (["--algo", "a2c"], ["--checkpoint", "checkpoints/a2c.pt"]):
        assert main(["recommend", "--user", "1", *words]) == 0
    assert main(["recommend", "--user", "1"]) == 0
    said = capsys.readouterr().out.splitlines()
    named, given, default = (said[k * len(said) // 3 : (k + 1) * len(said) // 3] for k in range(3))
    assert named == given != default


def test_command_prints_a_list(
    here: Path, recommender: Recommender, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["recommend", "--like", "item 3", "--like", "item 4", "--k", "5"]) == 0
    out, err = capsys.readouterr()
    lines, wanted = out.splitlines(), recommender.recommend(likes=[3, 4], k=5)
    taste = recommender.profile_of([3, 4])[0] @ recommender.catalogue.embedding.T
    near = [f"item {row}" for row in taste.argsort(descending=True).tolist() if row not in (3, 4)][:5]
    assert len(lines) == 5 and "; ".join(near) in err
    rewards = aligned([row.expected for row in wanted])
    for place, (line, row, reward) in enumerate(zip(lines, wanted, rewards, strict=True), 1):
        assert line.split() == [
            str(place),
            f"{row.probability:.2%}",
            *reward.split(),
            *row.title.split(),
            "(id",
            f"{row.item})",
        ]


def test_expected_rewards_of_a_list_have_the_same_digits() -> None:
    assert aligned([0.722, 0.83]) == ["  expected 0.722", "  expected 0.830"]
    assert aligned([12.34, -0.5, None]) == ["  expected 12.3", "  expected -0.5", ""]
    assert aligned([1234.5, 7.0]) == ["  expected 1234", "  expected    7"]  # 1234.5 is rounded to even
    assert aligned([0.0]) == ["  expected 0"] and aligned([None]) == [""] and aligned([]) == []


def test_a_place_has_the_reward_that_the_network_expects_of_it(recommender: Recommender) -> None:
    """The first place as the network alone gives it; each later place, after the ones before it."""
    found = recommender.recommend(user=3, k=3)
    rows = [recommender.item(place.item) for place in found]
    visit = recommender.visit(recommender.profiles_of([3]), users=[3])
    for place, row in zip(found, rows, strict=True):
        every = recommender.agent.expected_rewards(visit.observe())
        assert place.expected == pytest.approx(every[0, row].item())
        visit = visit.consume(torch.tensor([[row]]))


def test_smallest_probabilities_are_no_zeros(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [
        Recommendation(1, "first", 0.9),
        Recommendation(2, "last", 0.00004),
        Recommendation(3, "never", 0.0),
    ]
    monkeypatch.setattr(Recommender, "recommend", lambda *args, **kwargs: rows)
    assert main(["recommend", "--like", "item 3", "--k", "3"]) == 0
    assert [line.split()[1] for line in capsys.readouterr().out.splitlines()] == ["90.00%", "<0.01%", "0.00%"]


def test_liked_titles_are_not_recommended_again(
    here: Path, videos: Path, recommender: Recommender, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not recommender.checkpoint.interface.repeats
    found = recommender.recommend(likes=["item 3", 4], k=22)
    assert {place.item for place in found} == set(range(24)) - {3, 4}
    assert [place.item for place in recommender.recommend(likes="item 3", k=23)].count(3) == 0
    with pytest.raises(UserError):
        recommender.recommend(likes=[3, 4], k=23)
    assert len(recommender.recommend(likes=[3, 4], k=24, again=True)) == 24
    assert main(["recommend", "--like", "item 3", "--k", "24"]) == 2
    assert "Only 23 items may be shown, but k is 24" in capsys.readouterr().err
    assert main(["recommend", "--like", "item 3", "--k", "24", "--again"]) == 0
    repeating = load(here / "checkpoints/a2c.pt")
    assert repeating.checkpoint.interface.repeats
    assert {place.item for place in repeating.recommend(likes=[3, 4], k=22)} == set(range(24)) - {3, 4}
    seen = repeating.recommend(user=3, history=[3], k=23)
    assert {place.item for place in seen} == set(range(24)) - {3}
    assert len(repeating.recommend(user=3, history=[3], k=24, again=True)) == 24


def test_fewer_allowed_items_than_places_are_all_recommended(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("few.txt").write_text("3\n5\n7\n")
    Path("seen.txt").write_text("5\n")

    def run(*words: str) -> list[str]:
        assert main(["recommend", "--allow", "few.txt", *words]) == 0
        said = capsys.readouterr()
        assert "--allow few.txt: 2 of its items may be shown, so lists have 2 in place of 10\n" in said.err
        return said.out.splitlines()

    assert sorted(line.split()[-1] for line in run("--user", "3", "--block", "seen.txt")) == ["3)", "7)"]
    assert sorted(line.split()[-1] for line in run("--like", "item 5")) == ["3)", "7)"]
    run("--users", "all", "--block", "seen.txt", "--out", "few.parquet")
    assert pl.read_parquet("few.parquet").height == 30 * 2
    assert main(["recommend", "--allow", "few.txt", "--user", "3", "--k", "3"]) == 0
    assert "in place of" not in capsys.readouterr().err
    Path("seen.txt").write_text("3\n5\n7\n")
    assert main(["recommend", "--allow", "few.txt", "--user", "3", "--block", "seen.txt"]) == 2
    assert "Only 0 items may be shown, but k is 10" in capsys.readouterr().err


def test_command_writes_lists_of_many_users(here: Path, recommender: Recommender) -> None:
    Path("some.txt").write_text("5\n\n3\n")
    best = [place.item for place in recommender.recommend(5, k=3)]
    Path("seen.txt").write_text("".join(f"{item}\n" for item in best))
    assert main(["recommend", "--users", "some.txt", "--out", "some.parquet", "--block", "seen.txt"]) == 0
    assert main(["recommend", "--users", "all", "--out", "all.parquet", "--k", "3"]) == 0
    some, everyone = pl.read_parquet("some.parquet"), pl.read_parquet("all.parquet")
    assert some.columns == everyone.columns == ["user", "place", "item", "title", "probability", "expected"]
    assert some["user"].to_list() == [5] * 10 + [3] * 10 and not set(best) & set(some["item"])
    assert everyone.height == 30 * 3 and everyone["user"].n_unique() == 30
    for user in (0, 29):
        rows = everyone.filter(pl.col("user") == user)
        alone = recommender.recommend(user, k=3)
        assert rows["item"].to_list() == [place.item for place in alone]
        assert rows["probability"].to_list() == pytest.approx([p.probability for p in alone], rel=1e-5)


def test_unknown_ids_of_files_are_dropped_if_wanted(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("some.txt").write_text("5\n999\n3\n")
    Path("seen.txt").write_text("77\n88\n")
    files = ["--users", "some.txt", "--block", "seen.txt", "--out", "some.parquet"]
    assert main(["recommend", *files, "--k", "2", "--missing", "drop"]) == 0
    assert capsys.readouterr().err.splitlines() == [
        "checkpoint: runs/satiation-synthetic-ppo-0/ppo.pt, ppo on satiation after 256 steps "
        "(checkpoints/ppo.pt; --checkpoint for another)",
        "--block seen.txt: 2 of 2 ids left out, not in the catalogue: 77 (line 1) and 88 (line 2)",
        "--users some.txt: 1 of 3 ids left out, not among the users whom training kept (those with enough "
        "likes): 999 (line 2)",
        "2 users: some.parquet",
    ]
    assert pl.read_parquet("some.parquet")["user"].to_list() == [5, 5, 3, 3]


def test_all_unknown_users_are_named_before_the_first_list(recommender: Recommender) -> None:
    lists = recommender.for_users([*range(30), *[3] * 300, 40, 41], k=1)
    with pytest.raises(UserError):
        next(lists)


@pytest.mark.parametrize("env", ["short-video", "long-video"])
def test_session_of_a_platform_begins_as_its_environment_does(videos: Path, env: str) -> None:
    """The probabilities are those of the environment's first observation of the same user."""
    recommender = load(videos / f"runs/{env}/ppo.pt")
    checkpoint = recommender.checkpoint
    user, obs, probabilities = first_probabilities(recommender)
    opened = checkpoint.population.attributes.get("opened")
    hour = None if opened is None else opened[user].item()
    assert (hour is None) == (env == "long-video")
    found = recommender.recommend(int(checkpoint.population.user_ids[user]), k=24, hour=hour)
    assert {place.item for place in found} == set(range(24))
    action = recommender.act(obs, greedy=True)
    slate = action.items[0].tolist()
    assert [place.item for place in found][: len(slate)] == slate  # the places of a slate in their order
    product = math.prod(place.probability for place in found[: len(slate)])
    assert product == pytest.approx(action.logprob.exp().item(), rel=1e-4)
    assert found[0].probability == pytest.approx(probabilities.max().item(), rel=1e-4)


def test_next_slate_follows_after_the_whole_first_one(videos: Path) -> None:
    """As events of long-video, and at the second request of the session."""
    recommender = load(videos / "runs/long-video/ppo.pt")
    mask = torch.ones(1, 24, dtype=torch.bool)
    found = recommender.recommend(user=3, k=6)
    slate = torch.tensor([[int(place.item) for place in found[:3]]])
    visit = Visit.begin(recommender.checkpoint, recommender.population.profile[3:4])
    visit = visit.consume(slate)
    mask[0, slate[0]] = False
    obs = visit.observe(mask)
    assert obs.history is not None and obs.history[0, -3:].tolist() == slate[0].tolist()
    action = recommender.act(obs, greedy=True)
    assert action.items[0].tolist() == [place.item for place in found[3:]]
    product = math.prod(place.probability for place in found[3:])
    assert product == pytest.approx(action.logprob.exp().item(), rel=1e-4)


def test_history_of_a_platform_counts_as_watched(videos: Path) -> None:
    recommender = load(videos / "runs/long-video/ppo.pt")
    obs = recommender.visit(recommender.population.profile[:1], list(range(10))).observe()
    assert obs.history is not None and obs.signals is not None and obs.exclude is not None
    assert obs.history[0, -10:].tolist() == list(range(10))
    assert obs.signals[0, -1].tolist() == [1, 1, 0, 0]  # completion, clicked, subscribed, ad_clicked
    context = dict(
        zip(
            (name for name, _ in recommender.checkpoint.interface.context),
            obs.context[0].split([size for _, size in recommender.checkpoint.interface.context]),
            strict=True,
        )
    )
    assert context["progress"].tolist() == [1, 0, 0, 0, 0]  # nothing plays
    assert not context["current_item"].any() and context["idle"].item() == 0
    assert context["clock"].item() == 7 / 8  # ten videos are more than a session has requests


def test_hour_of_the_week_is_stated(
    videos: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(videos)
    command = ["recommend", "--user", "3", "--k", "2", "--checkpoint", "runs/short-video/ppo.pt"]
    printed = []
    for hour in (["--hour", "68.7"], ["--hour", "1.6666666"], []):
        assert main([*command, *hour]) == 0
        printed.append(capsys.readouterr())
    assert printed[0].err == "for Wednesday, 20:42: hour 68.7 of the week (--hour)\n"
    assert printed[1].err.startswith("for Monday, 01:40: hour 1.7 of the week")
    assert printed[2].err.endswith("of the week (this machine's clock; --hour for another)\n")
    assert all(len(said.out.splitlines()) == 2 for said in printed)
    assert printed[0].out != printed[1].out
    everyone = [*command[:1], "--users", "all", "--out", "x.parquet", *command[-2:]]
    assert main([*everyone, "--hour", "68.7", "--k", "2"]) == 0
    row = pl.read_parquet("x.parquet").filter(pl.col("user") == 3)
    Path("x.parquet").unlink()
    assert [f"{p:.2%}" for p in row["probability"]] == [
        line.split()[1] for line in printed[0].out.splitlines()
    ]


def test_command_prints_a_slate_in_its_order(
    videos: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(videos)
    command = ["recommend", "--user", "3", "--checkpoint", "runs/long-video/ppo.pt"]
    assert main(command) == 0
    said = capsys.readouterr()
    assert [line.split()[0] for line in said.out.splitlines()] == ["1", "2", "3"] and said.err == ""
    assert main([*command, "--hour", "3"]) == 2
    assert "--hour" in capsys.readouterr().err
    assert main([*command[:1], "--like", "item 3", "--k", "23", *command[-2:]]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 23


def test_platform_that_cannot_make_its_pieces(videos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recommender = load(videos / "runs/long-video/ppo.pt")
    platform = recommender.checkpoint.config.platform
    own = platform.visit_pieces
    assert own is not None
    short = VisitPieces(own.begin, own.after, lambda *known: {"profile": torch.zeros(1, 3)})
    for pieces in (
        None,
        short,
    ):
        monkeypatch.setattr(long_video, "PLATFORM", replace(platform, visit_pieces=pieces))
        with pytest.raises(UserError):
            recommender.recommend(user=3)


@pytest.mark.parametrize(
    "change",
    [
        {"context": torch.zeros(2, 7)},
        {"history": torch.full((2, 4), -1)},
        {"history": None},
        {"signals": torch.zeros(1, 5, 1)},
        {"mask": torch.ones(2, 25, dtype=torch.bool)},
    ],
)
def test_observation_of_other_sizes(recommender: Recommender, change: dict[str, Any]) -> None:
    obs = Obs(torch.zeros(2, 8), torch.full((2, 5), -1), torch.zeros(2, 5, 1))
    assert recommender.act(obs).items.shape == (2, 1)
    with pytest.raises(UserError):
        recommender.act(replace(obs, **change))


def test_long_history_is_not_shown_again(recommender: Recommender) -> None:
    """Of a session longer than those of training, too."""
    found = recommender.recommend(user=3, history=list(range(1, 12)), k=13)
    assert {place.item for place in found} == {0, *range(13, 24), 12}
    with pytest.raises(UserError):
        recommender.recommend(user=3, history=list(range(1, 12)), k=14)


def test_items_that_are_allowed_reach_a_two_stage_policy(here: Path) -> None:
    """Its search looks at the whole catalogue, and could miss all of them."""
    stages = ["--candidates", "8", "--index", "exact", "--name", "two-stage"]
    assert main(["train", *RUN, "--batch-size", "32", *stages]) == 0
    recommender = load("runs/two-stage/ppo.pt")
    found = recommender.recommend(user=3, k=3, allow=[1, 2, 3])
    assert {place.item for place in found} == {1, 2, 3} and found[2].probability == pytest.approx(1)


def test_first_stage_looks_beyond_what_a_person_has(here: Path) -> None:
    """Its eight candidates are the best eight of the items that may be shown, at every place."""
    stages = ["--candidates", "8", "--index", "exact", "--name", "narrow"]
    assert main(["train", *RUN, "--batch-size", "32", *stages]) == 0
    recommender = load("runs/narrow/ppo.pt")
    everything = recommender.recommend(user=3, k=24)
    assert {place.item for place in everything} == set(range(24))
    has = [int(place.item) for place in everything[:16]]
    first = recommender.recommend(user=3, k=8, block=has)[0]
    listed = recommender.recommend(user=3, k=8, allow=[item for item in range(24) if item not in has])[0]
    assert first.item == listed.item and first.probability == pytest.approx(listed.probability, rel=1e-5)


def test_arguments_from_python(recommender: Recommender) -> None:
    given: list[Any] = ["item 3", ["item 3"], [torch.tensor(3)]]
    alike = [recommender.recommend(likes=likes, k=2) for likes in given]
    assert alike[0] == alike[1] == alike[2]
    with pytest.raises(UserError):
        recommender.recommend(user=3, k=0)


def test_policy_without_a_catalogue(tmp_path: Path) -> None:
    alone = load(train_in(tmp_path / "run", *CARTPOLE, *steps(1)))
    for call in (
        lambda: alone.recommend(3),
        lambda: alone.recommend(likes=["x"]),
        lambda: [*alone.for_users([3])],
    ):
        with pytest.raises(UserError):
            call()
