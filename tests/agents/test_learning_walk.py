"""The files from `train.py` to the gradient of the flagship are those of docs/05, in order."""

from __future__ import annotations

from inspect import CO_NEWLOCALS
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from recsys_rl.cli import main
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
MOST = 14
MOST_BEFORE_A_TENSOR = 20, 1_000
"""Files with a function that runs before the first tensor of the world, and the lines of these functions."""


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


def test_few_functions_run_before_the_first_tensor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another ability of a run must not lengthen the way of a plain one."""
    monkeypatch.chdir(tmp_path)
    lines, done = dict[tuple[str, int], int](), False

    def watch(frame: FrameType, event: str, function: Any) -> None:
        nonlocal done
        code = frame.f_code
        if not code.co_filename.startswith(PACKAGE):
            return
        # torch.zeros and its like are methods of this class
        done = done or (event == "c_call" and function.__qualname__.startswith("_VariableFunctionsClass"))
        if event == "call" and not done and code.co_flags & CO_NEWLOCALS:
            last = max(line for *_, line in code.co_lines() if line is not None)
            lines[code.co_filename, code.co_firstlineno] = last - code.co_firstlineno + 1

    plain = ["train", *SATIATION, *steps(1)]
    assert main([*plain, *home(tmp_path / "first")]) == 0  # imports every module
    profiled([*plain, *home(tmp_path / "run")], watch)
    assert done
    most_files, most_lines = MOST_BEFORE_A_TENSOR
    assert len({file for file, _ in lines}) <= most_files and sum(lines.values()) <= most_lines
