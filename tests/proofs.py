"""Learning proofs: a test marked ``learning`` trains something and compares the outcome with a bound.

They are proofs (the marker ``proof``), as are all tests that `make test` leaves to `make proofs`.

The outcome of one run depends on how the processor rounds. A bound therefore has room for many runs:
``python -m benchmarks.proofs`` repeats each proof with initial weights that differ in the sixth digit
(``--starts``), and writes down the outcomes (``--outcomes``) in place of the comparisons.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from recsys_rl.models.optimizer import FlatAdam

Proof = Callable[..., None]
"""The fixture ``proof``."""


def add_options(parser: pytest.Parser) -> None:
    group = parser.getgroup("learning proofs")
    group.addoption(
        "--starts", type=int, default=0, help="repeat each learning proof with that many perturbed starts"
    )
    group.addoption(
        "--outcomes", type=Path, help="append the outcomes of learning proofs to this file, as lines of JSON"
    )


def mark(items: Iterable[pytest.Item]) -> None:
    """Each learning proof is a proof, and so is a parameter whose id the marker ``proof_of`` lists."""
    for item in items:
        listed = item.get_closest_marker("proof_of")
        if item.get_closest_marker("learning") or (listed and item.callspec.id in listed.args):  # type: ignore[attr-defined]
            item.add_marker("proof")


def repeat(metafunc: pytest.Metafunc) -> None:
    """Under ``--starts`` N, run each learning proof N times."""
    starts = metafunc.config.getoption("starts")
    if starts and metafunc.definition.get_closest_marker("learning"):
        metafunc.parametrize("perturbed", range(1, starts + 1), indirect=True, ids=lambda k: f"start{k}")


@pytest.fixture
def perturbed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a repetition, each optimiser begins with weights times 1 + 1e-6 N(0, 1)."""
    seed: int = getattr(request, "param", 0)
    if not seed:
        return
    of_agent, of_torch = FlatAdam.__init__, torch.optim.Adam.__init__

    def agent(self: FlatAdam, model: nn.Module, *rest: Any) -> None:
        perturb(model.parameters(), seed)
        of_agent(self, model, *rest)

    def plain(self: torch.optim.Adam, params: Iterable[Tensor], *rest: Any, **more: Any) -> None:
        weights = list(params)
        perturb(weights, seed)
        of_torch(self, weights, *rest, **more)

    monkeypatch.setattr(FlatAdam, "__init__", agent)
    monkeypatch.setattr(torch.optim.Adam, "__init__", plain)


@torch.no_grad()
def perturb(weights: Iterable[Tensor], seed: int) -> None:
    """Scale in place. The draws depend on the seed alone, so all ranks of a run begin alike."""
    generator = torch.Generator().manual_seed(seed)
    for weight in weights:
        weight.mul_(1 + 1e-6 * torch.randn(weight.shape, generator=generator))


@pytest.fixture
def proof(request: pytest.FixtureRequest, perturbed: None) -> Proof:
    """``proof(outcome, above=bound)`` or ``proof(outcome, below=bound)``; ``what`` tells several apart."""
    path = request.config.getoption("outcomes")
    name = re.sub(r"-?start\d+-?", "", request.node.nodeid).removeprefix("tests/").replace("[]", "")

    def compare(
        outcome: float, *, above: float | None = None, below: float | None = None, what: str = ""
    ) -> None:
        if path is not None:
            row = {"proof": f"{name} {what}".strip(), "outcome": outcome, "above": above, "below": below}
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            return
        assert above is None or outcome > above
        assert below is None or outcome < below

    return compare
