"""A candidate reads the champion's observations in its own encoding of the context."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from recsys_rl.checkpoint import load
from recsys_rl.data.tables.pieces import Piece
from recsys_rl.errors import UserError
from recsys_rl.logs.ope import place as gate_place
from recsys_rl.training.train import train
from recsys_rl.types import Obs
from tests.own_logs import items_file, policy, write_csv


def test_numbers_and_their_gaps_get_the_encoding_of_the_candidates_log(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    age = Piece("age", "number", (0.0,), (90.0,), (40.0,), (10.0,), gaps=True, mean=(42.0,))
    size = Piece("size", "list", (0.0, 0.0), (9.0, 9.0), (1.0, 2.0), (2.0, 4.0))
    day = Piece("day", "text", values=("mon", "tue"))
    of_champion = (age, size, day)
    of_candidate = (
        replace(age, shift=(30.0,), scale=(5.0,), mean=(33.0,)),
        replace(size, shift=(0.0, 0.0)),
        day,
    )
    monkeypatch.setattr(gate_place, "pieces_of", lambda checkpoint: checkpoint.pieces)

    def encoded(
        pieces: tuple[Piece, ...], rows: list[tuple[list[float], list[float], list[float]]]
    ) -> torch.Tensor:
        columns = zip(pieces, zip(*rows, strict=True), strict=True)
        return torch.cat([piece.scaled(torch.tensor(values).double()) for piece, values in columns], 1)

    known: Any = ([50.0, 0.0], [3.0, 6.0], [0.0, 1.0, 0.0])
    missing = [([*of.missing], [3.0, 6.0], [0.0, 1.0, 0.0]) for of in (of_champion[0], of_candidate[0])]
    champion = SimpleNamespace(
        pieces=of_champion, interface=SimpleNamespace(context=(("age", 2), ("size", 2), ("day", 3)))
    )
    by, plus = gate_place._change(SimpleNamespace(pieces=of_candidate), champion)  # type: ignore[arg-type]
    seen = gate_place.Recoded(None, by, plus).own(Obs(encoded(of_champion, [known, missing[0]])))  # type: ignore[arg-type]
    torch.testing.assert_close(seen.context, encoded(of_candidate, [known, missing[1]]))
    scoring: Any = SimpleNamespace(scores=lambda obs: obs.context)
    recoded = gate_place.Recoded(scoring, by, plus)
    assert torch.equal(recoded.scores(Obs(encoded(of_champion, [known, missing[0]]))), seen.context)


def _log(path: Path, gaps: bool = True, scale: float = 1.0) -> Path:
    """Decisions with a list and a number, the list with gaps in a fifth of the rows."""
    drawn, rows = random.Random(7), []
    for row in range(100):
        v = f"{scale * drawn.gauss(50, 9):.2f}|{scale * drawn.gauss(20, 5):.2f}"
        clicked, item = int(drawn.random() < 0.4), f"i{drawn.randrange(4)}"
        rows.append([f"u{row % 20}", item, clicked, 0.25, row, "" if gaps and row % 5 == 0 else v])
    return write_csv(path, ["user", "item", "clicked", "propensity", "context.age", "context.v"], rows)


def test_a_candidate_that_reads_gaps_otherwise_is_refused(tmp_path: Path) -> None:
    """A missing list is zeros in each scale, and no linear change of an observation sees the gap."""
    items = str(items_file(tmp_path / "items.csv"))
    logs = {
        "champion": _log(tmp_path / "champion.csv"),
        "same": _log(tmp_path / "same.csv"),
        "scale": _log(tmp_path / "scale.csv", scale=3),
        "none": _log(tmp_path / "none.csv", gaps=False),
    }
    files = {name: policy(tmp_path / f"{name}.pt", log, items=items) for name, log in logs.items()}
    champion = load(files["champion"])
    gate_place.check_place(files["same"], load(files["same"]), champion)
    for name in ("scale", "none"):
        with pytest.raises(UserError, match=r"context\.v.*--checkpoint"):
            gate_place.check_place(files[name], load(files[name]), champion)
    with pytest.raises(UserError, match=r"context\.v.*--checkpoint"):
        gate_place.check_place(files["champion"], champion, load(files["none"]))
    strict = load(files["none"])  # without gaps each scale is read exactly
    other = policy(tmp_path / "other.pt", _log(tmp_path / "other.csv", False, 3), items=items)
    gate_place.check_place(other, load(other), strict)
    sizes: dict[str, Any] = {"total_timesteps": 64, "batch_size": 32, "hidden_dims": (8,), "threads": 1}
    again = train(
        algo="bc", log=(str(logs["scale"]),), checkpoint=str(files["champion"]), folder=tmp_path / "again",
        quiet=True, **sizes,
    )  # fmt: skip
    gate_place.check_place(again, load(again), champion)
