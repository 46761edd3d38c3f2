"""`recsys-rl doctor`: each line says what is here, also where something is missing."""

from __future__ import annotations

import os
import re
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
import torch

from recsys_rl import __version__
from recsys_rl.cli import doctor, main
from recsys_rl.functional.compiled import kernels
from tests.doors import ROOT


def said(capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    """The values of the lines between the marks, by name."""
    assert main(["doctor"]) == 0
    block = re.fullmatch(r"[^\n]+\n\n```text\n(.*)\n```\n", capsys.readouterr().out, re.DOTALL)
    assert block is not None
    return {line[:14].rstrip(): line[14:] for line in block[1].splitlines()}


def test_block_names_what_runs_here(capsys: pytest.CaptureFixture[str]) -> None:
    facts = said(capsys)
    assert facts["recsys-rl"] == __version__
    assert facts["python"].startswith(".".join(map(str, sys.version_info[:3])))
    assert facts["torch"].startswith(f"{torch.__version__}, {torch.get_num_threads()} threads, ")
    assert facts["system"].endswith(f", {os.cpu_count()} cores")
    assert (facts["kernels"] == "compiled") == (kernels.library() is not None)


def test_packages_are_those_of_the_project_and_its_extras(capsys: pytest.CaptureFixture[str]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    facts = said(capsys)
    if facts["packages"].startswith("unknown"):
        pytest.skip("the package is not installed")
    named = [re.split("[>=<]", text)[0] for text in project["dependencies"]]
    found = facts["packages"].split(", ")
    assert found[: len(named)] == [f"{name} {version(name)}" for name in named]
    assert f"pytest {version('pytest')}" in found


def test_packages_that_are_missing_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = [
        "torch<3,>=2.10",
        "no-such-package>=1",
        "torch>=2; extra == 'one'",
        "recsys-rl[one]; extra == 'dev'",
    ]
    monkeypatch.setattr(doctor, "requires", lambda name: asked)
    assert doctor.packages() == [f"torch {version('torch')}"]


def test_lines_of_a_machine_that_lacks_things(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "requires", lambda name: None)
    monkeypatch.setattr(kernels, "library", lambda: None)
    monkeypatch.setattr(kernels, "path", lambda: tmp_path / "kernels.so")
    facts = said(capsys)
    assert facts["packages"].startswith("unknown")
    assert facts["kernels"].startswith("not compiled")
    (tmp_path / "kernels.so").touch()
    assert said(capsys)["kernels"].startswith("can't be loaded")
    monkeypatch.setenv("RECSYS_RL_KERNELS", "off")
    assert said(capsys)["kernels"] == "switched off by RECSYS_RL_KERNELS"


def test_torch_that_fails_is_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> None:
        raise ImportError("libtorch.so: no such file")

    monkeypatch.setattr("importlib.import_module", fail)
    facts = {line[:14].rstrip(): line[14:] for line in doctor.report()}
    assert facts["torch"] == f"{version('torch')}, can't be imported: libtorch.so: no such file"
    assert facts["kernels"].startswith("unknown")


def test_other_words_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--all"]) == 2
