"""Files of learned users of which a field was altered and the hash made again: refused, or played as before.

A changed value that is a possible one, such as another weight of a stream, can't be told from a true one: it
must give finite numbers.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from recsys_rl.checkpoint import sealed
from recsys_rl.cli import main
from recsys_rl.logs.users import file as users
from recsys_rl.logs.users import fit_users
from recsys_rl.logs.users.file import LearnedFile, load_users
from recsys_rl.make import make_env, make_world
from recsys_rl.settings.config import Config, from_dict
from recsys_rl.types import UserError
from tests.learned_world import SMALL, make_log

MISSING = object()
VALUES = {
    "missing": MISSING,
    "none": None,
    "text": "x",
    "huge": 1e300,
    "nan": math.nan,
    "part": 0.5,
    "list": [],
}
CHANGES: dict[str, Callable[[Tensor], Tensor | None]] = {
    "missing": lambda x: None,
    "type": lambda x: x.long() if x.is_floating_point() else x.float(),
    "double": lambda x: x.double(),
    "longer": lambda x: torch.cat([x, x]) if x.ndim else x.repeat(2),
    "places": lambda x: x.flatten()[:, None, None],
    "scalar": lambda x: torch.zeros((), dtype=x.dtype),
    "nan": lambda x: torch.full_like(x, math.nan, dtype=torch.float32),
    "huge": lambda x: torch.full_like(x, 3e38 if x.is_floating_point() else 200),
    "large": lambda x: torch.full_like(x, 1e6 if x.is_floating_point() else 1),
}


OF_THE_WORLD = ("catalogue", "population")
"""Sections that checkpoints have too; tests/checkpoint/test_checkpoint.py alters them."""
LAYERS = ("member0.body.0.", "member0.decay", "member0.signal")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_log(tmp_path_factory.mktemp("log"))


@pytest.fixture(scope="module")
def whole(made: tuple[Path, Path]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    path = made[1].with_name("users.pt")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("recsys_rl.logs.users.fit.LEAST_STEPS", 10)
        fit_users.fit_users(log=str(made[1]), checkpoint=str(made[0]), out=str(path), **SMALL)
    return sealed.read(path)


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Any, Any], Tensor]]:
    """Plays some steps in users with this content, without a file, and gives their streams (N T, M)."""
    content: list[Any] = []

    def read(path: Path) -> Any:
        return copy.deepcopy(content[0]), dict(content[1])

    monkeypatch.setattr(sealed, "read", read)

    def played(texts: Any, tensors: Any) -> Tensor:
        content[:] = texts, tensors
        users._loaded.cache_clear()
        settings = load_users("users.pt").settings
        given = {**settings["env_config"], "user_model": "users.pt"}
        config = from_dict(Config, {"env": "learned", **settings, "env_config": given})
        env = make_env(config, make_world(config), 4, torch.Generator().manual_seed(0))
        obs, streams = env.reset(), []
        for step in range(3):
            assert bool(obs.context.isfinite().all())
            found = env.step(torch.tensor([[step], [step + 5], [step + 10], [step + 15]]))
            obs = found.obs
            streams.append(found.streams)
        return torch.cat(streams)

    yield played
    users._loaded.cache_clear()


def places(texts: Any, before: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The place of each field of the JSON; of a list, of the first entry."""
    if isinstance(texts, dict | list):
        for name, part in texts.items() if isinstance(texts, dict) else list(enumerate(texts))[:1]:
            yield (*before, name)
            yield from places(part, (*before, name))


def altered(texts: Any, place: tuple[Any, ...], value: Any) -> Any:
    found = copy.deepcopy(texts)
    at = found
    for name in place[:-1]:
        at = at[name]
    if value is MISSING:
        del at[place[-1]]
    else:
        at[place[-1]] = value
    return found


@pytest.mark.parametrize("name", VALUES)
def test_altered_text_is_refused_or_played_in_finite_numbers(
    whole: tuple[Any, Any], play: Callable[[Any, Any], Tensor], name: str
) -> None:
    texts, tensors = whole
    before, refused = play(texts, tensors), 0
    for place in places(texts):
        if place[0] in (*OF_THE_WORLD, "info") and len(place) > 1:
            continue
        try:
            found = play(altered(texts, place, VALUES[name]), tensors)
        except UserError:
            refused += 1
            continue
        assert found.shape == before.shape and bool(found.isfinite().all()), place
        assert torch.equal(found, before) or type(VALUES[name]) in (int, float), place
    assert refused > 20


@pytest.mark.parametrize("name", CHANGES)
def test_altered_tensors_are_refused_or_played_in_finite_numbers(
    whole: tuple[Any, Any], play: Callable[[Any, Any], Tensor], name: str
) -> None:
    texts, tensors = whole
    before, refused = play(texts, tensors), 0
    for place, value in tensors.items():
        if place.startswith((*OF_THE_WORLD, "member")) and not place.startswith(LAYERS):
            continue
        change = CHANGES[name](value)
        others = {key: x for key, x in tensors.items() if key != place}
        try:
            found = play(texts, others if change is None else {**others, place: change})
        except UserError:
            refused += 1
            continue
        assert found.shape == before.shape and bool(found.isfinite().all()), place
        assert name == "large" or torch.equal(found, before), place
    assert refused > (0 if name == "large" else 4)  # most large numbers are possible ones


def test_a_file_whose_hash_was_made_again_is_refused_in_one_sentence(
    whole: tuple[Any, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts, tensors = whole
    path = tmp_path / "users.pt"
    sealed.write(path, texts, {**tensors, "facts.of_signals": torch.full((1, 1), math.nan)})
    assert main(["train", "--env", "learned", "--user-model", str(path)]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1


def test_a_file_of_before_its_version_was_counted_is_refused(
    whole: tuple[dict[str, Any], dict[str, Tensor]], tmp_path: Path
) -> None:
    texts, tensors = whole
    old = {name: text for name, text in texts.items() if name != "version"}
    sealed.write(tmp_path / "old.pt", old, tensors)
    with pytest.raises(UserError):
        load_users(tmp_path / "old.pt")


def test_an_altered_fit_under_way_is_refused_or_goes_on(
    made: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recsys_rl.logs.users.fit.LEAST_STEPS", 2)
    sizes = {**SMALL, "epochs": 4, "members": 1}
    options = fit_users.FitUsersConfig(log=(str(made[1]),), checkpoint=str(made[0]), **sizes)
    fit = fit_users.begin(options)
    fit.fitting.epoch()
    state, refused = fit.fitting.state_dict(), 0
    before: LearnedFile = dataclasses.replace(fit.file, fitting=state)
    for change in CHANGES.values():
        for place in ("member", "done", "waited", "best", "generator", "kept.body.0.bias", "adam.4.exp_avg"):
            value = change(state[place])
            others = {name: x for name, x in state.items() if name != place}
            new = others if value is None else {**others, place: value}
            try:
                fit_users._restore(fit, dataclasses.replace(before, fitting=new), options)
            except UserError:
                refused += 1
                continue
            if not fit.fitting.finished:
                assert math.isfinite(fit.fitting.epoch()), place
    assert refused > 30
