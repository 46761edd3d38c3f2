"""Weights for items with other columns: tensors by hand, equal outputs, and whole commands."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
import torch

from recsys_rl.checkpoint import load as load_checkpoint
from recsys_rl.cli import main
from recsys_rl.models.carried import carried
from recsys_rl.models.item_columns import Column, column_names
from recsys_rl.settings.shared import ModelConfig
from recsys_rl.types import ItemFeature
from tests.data.test_new_items_and_data import write_log
from tests.doors import assert_names
from tests.tables.test_read import RUN
from tests.tagged_networks import NEW, OLD, catalogue, network, network_of, observations


def columns(old: tuple[str, ...], new: tuple[str, ...]) -> tuple[tuple[Column, ...], tuple[Column, ...]]:
    return column_names(catalogue(old)), column_names(catalogue(new))


@pytest.mark.parametrize("encoder", ["mlp", "transformer", "deep-sets"])
@pytest.mark.parametrize(
    ("head", "candidates"), [("two-tower", 0), ("two-tower", 6), ("scorer", 0), ("dense", 0), ("gated", 6)]
)
def test_items_of_shared_genres_keep_their_logits_and_values(
    encoder: Literal["mlp", "transformer"],
    head: Literal["two-tower", "scorer", "dense", "gated"],
    candidates: int,
) -> None:
    config = ModelConfig(hidden_dims=(8,), head=head, encoder=encoder, candidates=candidates)
    old, new = network(OLD, config, 0), network(NEW, config, 1)
    new.load_state_dict(carried(old.state_dict(), new, *columns(OLD, NEW)))
    obs = observations()
    if candidates:
        obs = obs.among(torch.arange(6).expand(4, 6))
    with torch.no_grad():
        (one, value), (two, other) = old(obs), new(obs)
    torch.testing.assert_close(two.logits, one.logits, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(other, value, rtol=1e-5, atol=1e-5)


def test_weights_by_hand() -> None:
    """Features are 3 of the embedding, the tags, and 4 more; 12 sums follow the context of 6."""
    config = ModelConfig(hidden_dims=(8,))
    old, new = network(OLD, config, 0), network(NEW, config, 1)
    found = carried(old.state_dict(), new, *columns(OLD, NEW))
    tower, before = found["head.tower.weight"], old.state_dict()["head.tower.weight"]
    rows = [0, 1, 2, 4, None, 3, None, 6, 7, 8, 9]  # b, d, a, e
    assert tower.shape == (11, 32) and before.shape == (10, 32)
    for row, source in enumerate(rows):
        assert torch.equal(tower[row], torch.zeros(32) if source is None else before[source])
    query, bias = found["head.query.weight"], found["head.query.bias"]
    assert query.shape == (8, 11 + 32) and bias.shape == (11 + 32,)
    assert torch.equal(query[:, 11:], old.state_dict()["head.query.weight"][:, 10:])
    assert torch.equal(query[:, 3], old.state_dict()["head.query.weight"][:, 4])
    assert not bias[[4, 6]].any() and torch.equal(bias[5], old.state_dict()["head.query.bias"][3])
    votes = found["head.votes"]
    assert torch.equal(votes[:, 7:], old.state_dict()["head.votes"][:, 6:]) and not votes[:, 4].any()
    hidden, first = found["hidden.weights.0"], old.state_dict()["hidden.weights.0"]
    assert hidden.shape == (2, 6 + 12 * 11, 8) and first.shape == (2, 6 + 12 * 10, 8)
    assert torch.equal(hidden[:, :6], first[:, :6])
    for block in (0, 11):
        assert torch.equal(hidden[:, 6 + 11 * block + 3], first[:, 6 + 10 * block + 4])  # b
        assert not hidden[:, 6 + 11 * block + 4].any()  # d
        assert torch.equal(hidden[:, 6 + 11 * block + 10], first[:, 6 + 10 * block + 9])  # the constant 1
    assert torch.equal(found["value_head.weight"], old.state_dict()["value_head.weight"])


def test_same_number_of_other_genres() -> None:
    config = ModelConfig(hidden_dims=(8,))
    old, new = network(OLD, config, 0), network(("a", "b", "x"), config, 1)
    found = carried(old.state_dict(), new, *columns(OLD, ("a", "b", "x")))
    tower, before = found["head.tower.weight"], old.state_dict()["head.tower.weight"]
    assert torch.equal(tower[:5], before[:5]) and torch.equal(tower[6:], before[6:])
    assert before[5].any() and not tower[5].any()  # x is another genre than c


def test_another_network_is_left_as_it_is() -> None:
    old, new = network(OLD, ModelConfig(hidden_dims=(8,)), 0), network(NEW, ModelConfig(hidden_dims=(9,)), 1)
    found = carried(old.state_dict(), new, *columns(OLD, NEW))
    assert found["hidden.weights.0"].shape == (2, 6 + 12 * 11, 8)  # not 9, which the caller refuses


def write_items(path: Path, genres: tuple[str, str]) -> None:
    rows = [f"{item},{genres[item % 2]}|shared" for item in range(30)]
    path.write_text("\n".join(["id,genres", *rows]) + "\n", encoding="utf-8")


def test_whole_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_log(tmp_path / "log.csv")
    write_items(tmp_path / "one.csv", ("even", "odd"))
    write_items(tmp_path / "two.csv", ("even", "strange"))
    run = ["train", "--data", "log.csv", *RUN, "--lr", "1e-12"]
    assert main([*run, "--items", "one.csv", "--name", "first"]) == 0
    start = [*run, "--items", "two.csv", "--init-from", "runs/first/ppo.pt"]
    capsys.readouterr()
    assert main([*start, "--name", "warm"]) == 0
    said = capsys.readouterr().err
    (note,) = (line for line in said.splitlines() if "weights of runs/first/ppo.pt, step 64" in line)
    assert_names(note, "6 shared", "1 new one begins at zero ('strange')", "1 is lost ('odd')")
    first, warm = load_checkpoint("runs/first/ppo.pt"), load_checkpoint("runs/warm/ppo.pt")
    assert first.catalogue.genre_names == ("even", "odd", "shared")
    assert warm.catalogue.genre_names == ("even", "shared", "strange")
    size = first.catalogue.embedding.shape[1]
    votes, before = warm.agent["model.head.votes"], first.agent["model.head.votes"]
    torch.testing.assert_close(votes[:, : size + 1], before[:, : size + 1], atol=1e-6, rtol=0)
    torch.testing.assert_close(votes[:, size + 1], before[:, size + 2], atol=1e-6, rtol=0)
    torch.testing.assert_close(votes[:, size + 2], torch.zeros(len(votes)), atol=1e-6, rtol=0)
    torch.testing.assert_close(votes[:, size + 3 :], before[:, size + 3 :], atol=1e-6, rtol=0)
    assert main([*start, "--hidden-dims", "7"]) == 2
    assert "--hidden-dims 128 64, and this run has 7" in capsys.readouterr().err


def test_added_encoder_with_other_genres_keeps_its_own_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many genres as before, one of them new: its place in the encoder is not set to zero."""
    monkeypatch.chdir(tmp_path)
    write_log(tmp_path / "log.csv")
    write_items(tmp_path / "one.csv", ("even", "odd"))
    write_items(tmp_path / "two.csv", ("even", "strange"))
    sizes = ["--env", "satiation", "--max-episode-steps", "5", "--lr", "1e-12"]
    run = ["train", "--data", "log.csv", *RUN, *sizes]
    assert main([*run, "--items", "one.csv", "--encoder", "mlp", "--name", "first"]) == 0
    start = ["--items", "two.csv", "--encoder", "transformer", "--init-from", "runs/first/ppo.pt"]
    assert main([*run, *start, "--name", "warm"]) == 0
    warm = load_checkpoint("runs/warm/ppo.pt").agent
    of_entries = warm["model.encoder.embed.weight"]  # (X, D)
    assert bool(of_entries.abs().sum(1).gt(1e-3).all())
    votes = warm["model.head.votes"]
    assert not votes[-1].gt(1e-6).any() and votes[:-1].any()


def test_columns_are_those_of_the_group_and_name() -> None:
    """A class of an attribute that is new begins at zero, though a tag has its name."""
    kinds = ItemFeature("kind", "classes", ("ad", "a"))
    one = replace(catalogue(OLD), attributes={"kind": torch.arange(12) % 2}, features=(kinds,))
    two = replace(one, features=(replace(kinds, values=("ad", "b")),))
    assert column_names(one)[3:] == (
        *(("number", name) for name in ("popularity", "quality", "year")),
        *(("feature", name) for name in ("kind ad", "kind a")),
        ("constant", "1"),
    )
    config = ModelConfig(hidden_dims=(8,))
    old, new = (network_of(items, config, seed) for seed, items in enumerate((one, two)))
    tower, before = (
        weights["head.tower.weight"]
        for weights in (
            carried(old.state_dict(), new, column_names(one), column_names(two)),
            old.state_dict(),
        )
    )
    assert torch.equal(tower[:10], before[:10]) and torch.equal(tower[11], before[11])
    assert before[10].any() and not tower[10].any()
