"""Files for a public forge: workflows, which can't run here, and the citation."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib

import pytest

from recsys_rl import testing
from recsys_rl.cli import COMMANDS
from recsys_rl.version import __version__
from tests.docs.test_docs import ROOT

FORGE = ROOT / ".github"
FORMS = sorted({*(FORGE / "ISSUE_TEMPLATE").glob("*.yml")} - {FORGE / "ISSUE_TEMPLATE" / "config.yml"})
FILES = {
    "vendor.github-workflows": sorted((FORGE / "workflows").glob("*.yml")),
    "vendor.dependabot": [FORGE / "dependabot.yml"],
    "vendor.github-issue-forms": FORMS,
    "vendor.github-issue-config": [FORGE / "ISSUE_TEMPLATE" / "config.yml"],
}


def check(schema: str, *files: object) -> subprocess.CompletedProcess[str]:
    pytest.importorskip("check_jsonschema")
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, *map(str, files)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("schema", FILES)
def test_files_have_the_form_of_the_forge(schema: str) -> None:
    done = check(schema, *FILES[schema])
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_file_of_the_forge_is_left_unchecked() -> None:
    checked = {file for files in FILES.values() for file in files}
    found = {file for file in FORGE.rglob("*") if file.is_file()}
    assert found - checked == {FORGE / "PULL_REQUEST_TEMPLATE.md"}


def test_commands_of_workflows_and_forms_exist() -> None:
    """Targets of make, commands of recsys-rl, and the functions that a form asks for."""
    texts = "\n".join(file.read_text(encoding="utf-8") for files in FILES.values() for file in files)
    targets = re.findall(r"^([a-z]+)(?: [a-z]+)*:", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert {*re.findall(r"run: make ([a-z]+)", texts)} <= {*targets, "proofs"}
    assert {*re.findall(r"recsys-rl ([a-z]+)", texts)} <= {*COMMANDS}
    asked = re.findall(r"`(?:recsys_rl\.testing\.)?(check_\w+)`", texts)
    assert asked and {*asked} == {*testing.__all__}
    for form in FORMS:
        assert "id: doctor" in form.read_text(encoding="utf-8")


def test_the_citation_has_its_form_and_this_version() -> None:
    citation = ROOT / "CITATION.cff"
    assert re.search(r"^version: (.+)$", citation.read_text(encoding="utf-8"), re.M)[1] == __version__  # type: ignore[index]
    done = check("vendor.citation-file-format", citation)
    assert done.returncode == 0, done.stdout


def test_each_python_of_the_checks_is_a_classifier() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    said = re.findall(r"Python :: (3\.\d+)", "\n".join(project["classifiers"]))
    checks = (ROOT / ".github/workflows/checks.yml").read_text()
    lists = re.findall(r"python: (\[.*)", checks)  # of the newest and of the lowest versions
    assert len(lists) == 2 and all(re.findall(r'"(3\.\d+)"', versions) == said for versions in lists)
    assert project["requires-python"] == f">={said[0]}"
