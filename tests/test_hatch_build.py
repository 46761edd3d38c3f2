"""The build hook: the compiled files, and the machines that use torch instead."""

from __future__ import annotations

import importlib.util
import shutil
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from recsys_rl.functional.compiled import kernels
from tests.doors import ROOT


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module hatch_build, over an empty class in place of hatchling's."""
    name = "hatchling.builders.hooks.plugin.interface"
    interface: Any = types.ModuleType(name)
    interface.BuildHookInterface = object
    monkeypatch.setitem(sys.modules, name, interface)
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    here = Path(kernels.__file__).parent
    for file in here.glob("*.[ch]"):
        shutil.copy(file, tmp_path)
    return tmp_path


def test_folder_of_the_sources(hook: Any) -> None:
    assert Path(kernels.__file__).parent == ROOT / hook.FOLDER


def test_library_has_the_name_that_the_loader_opens(hook: Any, sources: Path) -> None:
    if shutil.which("gcc") is None:
        pytest.skip("no compiler here")
    made = hook.compile_kernels(sources)
    assert made == sources / kernels.path().name
    kernels.load(made)


def test_failing_compiler_is_reported(
    hook: Any, sources: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CC", "/bin/false")
    assert hook.compile_kernels(sources) is None
    assert "the kernels were not compiled" in capsys.readouterr().err
