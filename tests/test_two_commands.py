"""`make test` and `make proofs`: each test is in exactly one of them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests import proofs

ROOT = Path(__file__).parents[1]


def test_the_two_commands_choose_by_one_marker_and_nothing_else() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert dict(re.findall(r"^(\w+): WHICH := (.+)$", makefile, re.M)) == {
        "test": "not proof",
        "proofs": "proof",
    }
    (line,) = [line for line in makefile.splitlines() if "-m pytest" in line]
    assert re.split(r"-m pytest ", line)[1] == '-n 2 --dist worksteal -m "$(WHICH)" $(ARGS)'


@pytest.mark.parametrize("path", [".ci/run", ".github/workflows/checks.yml"])
def test_the_checks_run_both(path: str) -> None:
    commands = re.findall(r"make (\w+)", (ROOT / path).read_text(encoding="utf-8"))
    assert {"check", "test", "proofs", "site"} <= {*commands}


@pytest.mark.proof_of("long")
@pytest.mark.parametrize("name", ["short", "long"])
def test_parameters_of_proof_of_are_proofs(name: str, request: pytest.FixtureRequest) -> None:
    assert (request.node.get_closest_marker("proof") is not None) == (name == "long")


def test_a_learning_proof_is_a_proof(request: pytest.FixtureRequest) -> None:
    parent = request.node.getparent(pytest.Module)
    names = "learns", "other"
    items = [pytest.Function.from_parent(parent, name=name, callobj=lambda: None) for name in names]
    items[0].add_marker("learning")
    proofs.mark(items)
    assert [item.get_closest_marker("proof") is not None for item in items] == [True, False]


def test_no_learning_proof_is_left_in_a_run_without_proofs(request: pytest.FixtureRequest) -> None:
    """Marked in time: pytest chooses by marker after that."""
    for item in request.session.items:
        assert not item.get_closest_marker("learning") or item.get_closest_marker("proof")
