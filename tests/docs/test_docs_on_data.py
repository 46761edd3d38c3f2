"""The docs' code and figures on real data: a block with ``# Data: FOLDER``, its command and its output."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from recsys_rl.cli import main
from tests.docs.test_docs import FENCE, NEEDS_DATA, ROOT, run_blocks
from tests.worlds import shared_data

PAGES = [ROOT / "docs" / name for name in ("09_logs.md", "13_rating_matrix.md")]
NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")


def parts(page: Path) -> list[tuple[str, str]]:
    """Tag and text of each fenced block of a page."""
    return [(found[1], found[2]) for found in FENCE.finditer(page.read_text(encoding="utf-8"))]


def commands_with_output() -> list[tuple[Path, str, str, str]]:
    """The page, the folder, the command and the quoted lines of each command on real data with its output.

    The folder is that of --data-dir, or of the block of Python before the command.
    """
    found = []
    for page in PAGES:
        own = parts(page)
        for (_, before), (tag, text), (after, lines) in zip(own, own[1:], own[2:], strict=False):
            folder = re.search(r"--data-dir ([\w-]+)", text) or NEEDS_DATA.match(before)
            if tag == "bash" and after == "text" and folder:
                found.append((page, folder[1], text.strip(), lines))
    return found


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("page", "folder", "command", "lines"), commands_with_output())
def test_figures_on_real_data_are_those_of_the_command(
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    page: Path,
    folder: str,
    command: str,
    lines: str,
) -> None:
    (here / folder).symlink_to(shared_data(folder))
    own = [code for tag, code in parts(page) if tag == "python" and code.startswith(f"# Data: {folder}\n")]
    run_blocks([(0, code) for code in own], "page", monkeypatch)
    capsys.readouterr()
    assert main(shlex.split(command)[1:]) == 0
    printed = capsys.readouterr().out.splitlines()
    for line in lines.splitlines():
        words, numbers = NUMBER.sub("#", line).split(), numbers_of(line)
        same = [x for x in printed if NUMBER.sub("#", x).split() == words]
        # Sums in another order move the last digits, and a number of rows that is a difference of squares.
        assert any(numbers_of(x) == pytest.approx(numbers, rel=0.02) for x in same), line


def numbers_of(line: str) -> list[float]:
    return [float(x.replace(",", "")) for x in NUMBER.findall(line)]


def test_the_pages_have_three_commands_on_real_data() -> None:
    folders = [folder for _, folder, _, _ in commands_with_output()]
    assert sorted(folders) == ["coat", "open-bandit-small", "open-bandit-small"]
    blocks = [(tag, text) for page in PAGES for tag, text in parts(page)]
    assert len([1 for tag, text in blocks if tag == "python" and NEEDS_DATA.match(text)]) == 2
