"""Files for a public forge: workflows, which can't run here, and the citation."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib

import pytest

from recsys_rl.version import __version__
from tests.docs.test_docs import ROOT

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def check(schema: str, *files: object) -> subprocess.CompletedProcess[str]:
    pytest.importorskip("check_jsonschema")
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, *map(str, files)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_workflows_have_the_form_of_the_forge() -> None:
    done = check("vendor.github-workflows", *WORKFLOWS)
    assert done.returncode == 0, done.stdout


def test_the_citation_has_its_form_and_this_version() -> None:
    citation = ROOT / "CITATION.cff"
    assert re.search(r"^version: (.+)$", citation.read_text(encoding="utf-8"), re.M)[1] == __version__  # type: ignore[index]
    done = check("vendor.citation-file-format", citation)
    assert done.returncode == 0, done.stdout


def test_each_python_of_the_checks_is_a_classifier() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    said = re.findall(r"Python :: (3\.\d+)", "\n".join(project["classifiers"]))
    checks = (ROOT / ".github/workflows/checks.yml").read_text()
    assert re.findall(r'"(3\.\d+)"', re.search(r"python: (.*)", checks)[1]) == said  # type: ignore[index]
    assert project["requires-python"] == f">={said[0]}"
