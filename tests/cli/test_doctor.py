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
    assert facts["recsys-rl"].startswith(f"{__version__}, ")
    assert facts["python"].startswith(".".join(map(str, sys.version_info[:3])))
    assert facts["torch"].startswith(f"{torch.__version__}, {torch.get_num_threads()} threads, ")
    assert facts["cores"].endswith(f" of {os.cpu_count()}")
    assert float(facts["memory"].split()[0]) > 0
    assert (facts["kernels"] == "compiled") == (kernels.library() is not None)


def test_packages_and_extras_are_those_of_the_project(capsys: pytest.CaptureFixture[str]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    facts = said(capsys)
    if facts["packages"].startswith("unknown"):
        pytest.skip("the package is not installed")
    named = [re.split("[>=<]", text)[0] for text in project["dependencies"]]
    assert facts["packages"] == ", ".join(f"{name} {version(name)}" for name in named)
    assert {name[1:-1] for name in facts if name[0] == "["} == set(project["optional-dependencies"])


def test_missing_packages_are_named() -> None:
    packages, extras = doctor.found(
        [
            "torch<3,>=2.10",
            "no-such-package>=1",
            "torch>=2; extra == 'one'",
            "no-such-extra>=1; extra == 'two'",
            'pytest>=1; (sys_platform != "win32") and extra == "two"',
            "no-such-thing; sys_platform == 'win32'",
            "recsys-rl[one]; extra == 'dev'",
        ]
    )
    assert packages == {"torch": version("torch"), "no-such-package": None}
    assert extras == {"one": [], "two": ["no-such-extra"]}


def test_lines_of_a_machine_that_lacks_things(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "requires_here", list)
    monkeypatch.setattr(kernels, "library", lambda: None)
    monkeypatch.setattr(kernels, "path", lambda: tmp_path / "kernels.so")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    facts = said(capsys)
    assert facts["packages"].startswith("unknown")
    assert facts["kernels"].startswith("not compiled")
    assert "OMP_NUM_THREADS=3" in facts["settings"]
    assert facts["cache"].startswith("~/.cache/recsys_rl, ")  # the home folder may be a person's name
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
