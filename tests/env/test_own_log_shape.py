"""The settings of a team's own log in a checkpoint: an altered shape is refused in a sentence."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from recsys_rl.checkpoint import load, previous, sealed
from recsys_rl.logs.platform import OwnLogConfig
from recsys_rl.types import UserError
from tests.own_logs import clicks, policy

HUGE = "1" + "0" * 400


def with_low(shape: str, low: str) -> str:
    """The shape with another lowest value of its first piece, whatever a float can hold."""
    values = json.loads(shape)
    values["pieces"][0]["low"] = ["LOW"]
    return json.dumps(values).replace('"LOW"', low)


ALTERED: dict[str, Callable[[str], str]] = {
    "deep": lambda shape: "[" * 100_000,
    "large weight": lambda shape: json.dumps({"weights": {"clicked": int(HUGE)}}),
    "large low": lambda shape: with_low(shape, HUGE),
    "other signals": lambda shape: json.dumps(json.loads(shape) | {"signals": ["bought"]}),
    "more signals": lambda shape: json.dumps(json.loads(shape) | {"signals": ["clicked", "bought"]}),
    "slates": lambda shape: json.dumps(json.loads(shape) | {"slate_size": 2}),
    "slate above the items": lambda shape: json.dumps(json.loads(shape) | {"slate_size": 9}),
    "no repeats": lambda shape: json.dumps(json.loads(shape) | {"repeats": False}),
    "no pieces": lambda shape: json.dumps(json.loads(shape) | {"pieces": []}),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("own")
    return policy(folder / "p.pt", clicks(folder / "clicks.csv"))


def altered(made: Path, out: Path, change: Callable[[str], str]) -> Path:
    texts: dict[str, Any]
    texts, tensors = sealed.read(made)
    config = texts["config"]
    config["env_config"]["shape"] = change(config["env_config"]["shape"])
    sealed.write(out, texts, tensors)
    return out


@pytest.mark.parametrize("change", ALTERED.values(), ids=list(ALTERED))
def test_an_altered_shape_is_refused(made: Path, tmp_path: Path, change: Callable[[str], str]) -> None:
    """Also in the checkpoint before, where the file itself is broken: it is not offered in its place."""
    path = altered(made, tmp_path / "p.pt", change)
    with pytest.raises(UserError):
        load(path)
    path.rename(previous(path))
    path.write_bytes(b"broken")
    with pytest.raises(UserError) as refusal:
        load(path)
    assert str(previous(path)) not in str(refusal.value)


def test_an_unaltered_shape_is_read(made: Path, tmp_path: Path) -> None:
    assert load(altered(made, tmp_path / "p.pt", str)).interface == load(made).interface


@pytest.mark.parametrize("text", ["[" * 100_000, json.dumps({"weights": {"clicked": int(HUGE)}})])
def test_a_text_that_is_no_shape(text: str) -> None:
    with pytest.raises(UserError):
        OwnLogConfig(shape=text).weights  # noqa: B018
