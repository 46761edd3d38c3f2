"""Benchmarks of learned users on real data: their parts by hand, and whole runs on small made-up files."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import kuairand_log
from recsys_rl.evaluation.mixture import Fixed
from recsys_rl.logs.public.kuairand import random_decisions
from tests.doors import benchmark_here

HEAD = "user_id,video_id,date,hourmin,time_ms,is_click,is_like,play_time_ms,duration_ms,is_rand\n"
FEATURES = "video_id,author_id,video_duration,tag\n"
VIDEOS, PEOPLE = 12, 80


def write_kuairand(folder: Path) -> None:
    """Videos of two tags, and people who click those of one tag with probability 0.8, others with 0.1."""
    rng = np.random.default_rng(0)
    kinds = [f"{video},{video},9000,{video % 2}\n" for video in range(VIDEOS)]
    (folder / "video_features_basic_pure.csv").write_text(FEATURES + "".join(kinds))

    def views(number: int, start: int, random: int) -> str:
        rows = []
        for at in range(number):
            user, video = rng.integers(PEOPLE), rng.integers(VIDEOS)
            click = int(rng.random() < (0.8 if user % 2 == video % 2 else 0.1))
            rows.append(f"{user},{video},20220422,1,{start + 1000 * at},{click},0,2500,9000,{random}\n")
        return HEAD + "".join(rows)

    (folder / "log_standard_4_08_to_4_21_pure.csv").write_text(views(2_000, 1_000, 0))
    (folder / "log_standard_4_22_to_5_08_pure.csv").write_text(views(500, 10_000_000, 0))
    (folder / "log_random_4_22_to_5_08_pure.csv").write_text(views(8_000, 10_000_000, 1))


def test_features_of_people_are_of_events_before_the_log(tmp_path: Path) -> None:
    """Person 1 clicked video 0 of two views before the log; person 2 has no views before it."""
    (tmp_path / "video_features_basic_pure.csv").write_text(FEATURES + "0,5,9000,1\n1,5,9000,2\n")
    views = {
        "log_standard_4_08_to_4_21_pure.csv": (
            "1,0,20220408,1,1000,1,0,1,9,0\n1,1,20220408,1,2000,0,0,1,9,0\n"
        ),
        "log_standard_4_22_to_5_08_pure.csv": "2,0,20220422,1,9500000,1,0,1,9,0\n",
        "log_random_4_22_to_5_08_pure.csv": (
            "2,1,20220422,1,9000000,0,0,1,9,1\n1,1,20220422,1,9100000,1,0,1,9,1\n"
            "1,0,20220422,1,9200000,0,0,1,9,1\n"
        ),
    }
    for name, rows in views.items():
        (tmp_path / name).write_text(HEAD + rows)
    table = random_decisions(tmp_path)
    found = kuairand_log.people_of_kuairand(table, tmp_path)
    assert table.log.users.tolist() == [0, 0, 1]  # ordered by user, then by time
    of_one = 1 / 2 * table.catalogue.embedding[0]  # the clicked video, over clicks + 1
    share = (1 + 1) / (2 + 3)
    assert found[0, 0].item() == pytest.approx(math.log(share / (1 - share)))
    torch.testing.assert_close(found[0, 1:], of_one)
    torch.testing.assert_close(found[0], found[1])
    assert found[2].tolist() == pytest.approx([math.log(0.5)] + [0.0] * len(of_one))


@pytest.mark.learning
def test_users_of_the_first_part_give_a_better_policy_on_the_second(tmp_path: Path) -> None:
    """The best policy earns 0.8, the random one 0.45; the interval of the estimate holds 0.8."""
    write_kuairand(tmp_path)
    table = random_decisions(tmp_path)
    log, catalogue = kuairand_log.with_person(table, kuairand_log.people_of_kuairand(table, tmp_path))
    first, second = kuairand_log.split_by_time(log, 0.3)
    assert first.times.max() < second.times.min()
    assert first.num_rows + second.num_rows == log.num_rows and first.num_rows <= 0.3 * log.num_rows
    file = kuairand_log.learn(first, catalogue, 1, kuairand_log.Work(members=2, epochs=12))
    areas = kuairand_log.aucs(file, first, second)
    assert areas["auc"] > 0.8 and abs(areas["auc_items"] - 0.5) < 0.1
    best = {"best": Fixed(kuairand_log.BestByUsers(file))}
    logged, row = kuairand_log.judged(second, catalogue, best, "the log", 1)
    assert logged["value"] == pytest.approx(second.signals.mean().item())
    assert row["answer"] == "better" and row["over_low"] > 0.2
    assert 0.65 < row["value"] < 0.9


def test_answers() -> None:
    answers = [
        kuairand_log.answer_of(*x)
        for x in ((False, 1.0, 2.0), (True, 0.1, 2.0), (True, -2.0, -0.1), (True, -1.0, 1.0))
    ]
    assert answers == ["not enough data", "better", "worse", "no difference seen"]


@pytest.mark.proof
def test_smoke_of_the_log(tmp_path: Path) -> None:
    data, run = tmp_path / "data", tmp_path / "run"
    data.mkdir()
    run.mkdir()
    write_kuairand(data)
    options = ("--smoke", "--data-dir", str(data), "--threads", "1", "--json", "table.json")
    benchmark_here(kuairand_log.main, run, *options)
    found = json.loads((run / "table.json").read_text())
    names = ["logged (random)", "ppo", "ppo-greedy", "best by the users", "best less the spread"]
    assert [row["policy"] for row in found["rows"]] == names
    assert (found["learned_from"], found["judged_on"], found["items"]) == (4_000, 4_000, VIDEOS)
    assert [path.name for path in run.iterdir()] == ["table.json"]
