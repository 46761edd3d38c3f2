"""Texts with a decimal comma are numbers or lists of two: nobody can say, so they are refused."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from recsys_rl.cli import main
from recsys_rl.data.tables.cells import Cells
from recsys_rl.data.tables.pieces import seen_pieces
from recsys_rl.logs.describe.survey import describe
from recsys_rl.logs.own_log import LogFiles
from recsys_rl.types import UserError
from tests.own_logs import write_csv

HEADER = ["user", "item", "reward", "propensity", "context.price"]


def log(path: Path, prices: list[str], rewards: list[str]) -> str:
    rows = [
        [f"u{k}", "ab"[k % 2], rewards[k % len(rewards)], 0.5, prices[k % len(prices)]] for k in range(40)
    ]
    return str(write_csv(path, HEADER, rows))


@pytest.mark.parametrize(
    ("texts", "size"),
    [
        (["1,5", "2,25"], None),
        (["3", "-2,5"], None),
        (["1.000,5", "2,5"], None),
        (["1,5e3", "2,5E-3"], None),
        (["1|5", "2|25"], 2),
        (["[1,5]", "[2,25]"], 2),
        (["1, 5", "2, 25"], 2),
        (["0.5,1", "3,25"], 2),  # one with a point shows that commas divide
        (["0.500,3", "0.250,4"], 2),
        (["1,5,2", "2,25,3"], 3),
    ],
)
def test_texts_that_may_be_numbers_or_lists(texts: list[str], size: int | None) -> None:
    cells = Cells("log.csv", pl.DataFrame({"context.price": texts}))
    if size is None:
        with pytest.raises(UserError) as caught:
            seen_pieces(cells)
        row = next(k for k, text in enumerate(texts, 1) if "," in text)
        assert "context.price" in str(caught.value) and f"in row {row}" in str(caught.value)
    else:
        piece = seen_pieces(cells)["price"]
        assert (piece.kind, len(piece.low)) == ("list", size)


def test_a_text_that_is_a_number_has_three_quotation_marks_in_csv(tmp_path: Path) -> None:
    """With one on each side it is the number, and the error names the way out."""
    rows = [f"u{k},{'ab'[k % 2]},{k % 2},0.5,{('7', 'abc')[k % 2]}" for k in range(4)]
    lines = [",".join(HEADER), *rows]
    for marks, sound in (('"', False), ('"""', True)):
        text = "\n".join(lines).replace(",7", f",{marks}7{marks}")
        (tmp_path / "log.csv").write_text(text)
        files = LogFiles((str(tmp_path / "log.csv"),), {})
        cells = files.cells(files.files[0], ["context.price"])
        if sound:
            assert seen_pieces(cells)["price"].piece("price")[0].values == ("7", "abc")
        else:
            with pytest.raises(UserError) as refused:
                seen_pieces(cells)
            assert '"""7"""' in str(refused.value)


@pytest.mark.parametrize(
    ("prices", "rewards", "column"),
    [(["1,5", "2,25"], ["0", "1"], "context.price"), (["1.5", "2.25"], ["0,5", "1"], "reward")],
)
def test_every_command_names_the_column_and_the_line(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    prices: list[str],
    rewards: list[str],
    column: str,
) -> None:
    path = log(tmp_path / "log.csv", prices, rewards)
    runs = ["--runs-dir", str(tmp_path / "runs")]
    for command in (["train", "--algo", "reinforce", "--log", path, *runs], ["ope", "--log", path]):
        assert main(command) == 2
        said = capsys.readouterr().err
        assert column in said and "line 2" in said
    assert not (tmp_path / "runs").exists()
    [problem] = describe(path).problems
    assert column in problem.text and problem.first_line == 2


def test_a_propensity_with_a_comma_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [[f"u{k}", "ab"[k % 2], k % 3, "0,5", 1] for k in range(40)]
    assert main(["ope", "--log", str(write_csv(tmp_path / "log.csv", HEADER, rows))]) == 2
    assert "0,5" in capsys.readouterr().err
