"""Dials that a run takes; those that it refuses stand in test_bad_input.py."""

from __future__ import annotations

import pytest

from recsys_rl.cli import train_options
from recsys_rl.config import Config, from_dict, to_dict
from recsys_rl.data.item_table import FILE_ENDING
from recsys_rl.effect import MADE_UP, PLATFORM_DIALS, check_effect
from recsys_rl.make import PLATFORMS
from recsys_rl.presets import PRESETS


@pytest.mark.parametrize(
    "line",
    [
        "",
        "--env satiation --encoder gru --noise 0.2 --patience-cost 1",
        "--user-drift 0.1 --reward-decay 1 --head dense",
        "--data synthetic --num-users 9 --heldout-fraction 0.3",
        "--data clustered --num-users 9 --candidates 8 --explore-rate 0.5 --index exact",
        "--data items.npy --num-users 9 --embedding-dim 8",
        "--data kuairec --like-threshold 2 --min-item-likes 9 --profile-fraction 0.5",
        "--data log.csv --user-column who --item-column what --time-column when --rating-column how",
        "--data log.parquet --rating-column how --like-threshold 3",
        "--data-dir here --cache-dir there",
        "--env gym:CartPole-v1 --normalize-obs --normalize-reward --cache-dir there --data-dir here",
    ],
)
def test_dials_that_act_are_taken(line: str) -> None:
    config = train_options(line.split()).config
    check_effect(config)


@pytest.mark.parametrize(("algo", "env"), PRESETS)
def test_presets_are_taken(algo: str, env: str) -> None:
    env = "gym:CartPole-v1" if env == "gym" else env
    config = train_options(["--algo", algo, "--env", env]).config
    check_effect(config)
    check_effect(from_dict(Config, to_dict(config)))


def test_the_lists_name_what_there_is() -> None:
    assert set(PLATFORM_DIALS) == {*PLATFORMS, "gym"}
    assert FILE_ENDING in MADE_UP
