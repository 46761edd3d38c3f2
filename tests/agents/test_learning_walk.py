"""The files from `train.py` to the gradient of the flagship are those of docs/05, in order."""

from __future__ import annotations

from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from recsys_rl.functional.compiled import kernels
from tests.doors import SATIATION, home, steps
from tests.walk import PACKAGE, listed, profiled

BESIDE = (
    "types.py",  # the data types
    "functional/compiled/",
    "functional/categorical.py",  # -inf at items that may not be shown
    "models/fast/",  # the same as the lines and layers of the walk, in fewer passes
    "models/optimizer.py",  # before the gradient it only forgets the last one
)
MOST = 10


def walked(words: list[str]) -> list[str]:
    """The files of the calls that lead to an update, and of those in it before its first gradient."""
    found, inside, done = dict[str, None](), False, False

    def note(file: str) -> None:
        name = file.removeprefix(PACKAGE)
        if name != file and not name.startswith(BESIDE):
            found.setdefault(name)

    def watch(frame: FrameType, event: str, _: Any) -> None:
        nonlocal inside, done
        if event != "call" or done:
            return
        code = frame.f_code
        if code.co_qualname == "PPO.update":
            callers, above = [code.co_filename], frame.f_back
            while above is not None:
                callers.append(above.f_code.co_filename)
                above = above.f_back
            for file in reversed(callers):
                note(file)
            inside = True
        done = inside and code.co_qualname == "Tensor.backward"
        if inside and not done:
            note(code.co_filename)

    profiled(words, watch)
    assert done
    return list(found)


def test_training_goes_through_the_files_of_the_walk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if kernels.library() is None:
        pytest.skip("without the compiled loops torch's forms are read in other files")
    monkeypatch.chdir(tmp_path)
    found = walked(["train", *SATIATION, "--encoder", "mlp", *steps(1), *home(tmp_path / "run")])
    files = listed("### From `train.py` to the gradient")
    assert files == ["train.py", *found]
    assert len(files) <= MOST
