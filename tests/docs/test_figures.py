"""The figures of the docs are those that the code draws today."""

from __future__ import annotations

import re

import pytest

from benchmarks.figures import FIGURES, IMAGES, alike_items, session_figure
from recsys_rl.env.satiation import Satiation, SatiationConfig

NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


@pytest.mark.parametrize("name", FIGURES)
def test_the_committed_figure_is_not_stale(name: str) -> None:
    """The same words and marks; coordinates to a fifth of a pixel, as processors round differently."""
    drawn = FIGURES[name]() + "\n"
    committed = (IMAGES / f"{name}.svg").read_text(encoding="utf-8")
    again = f"docs/images/{name}.svg is stale: python -m benchmarks.figures"
    assert NUMBER.sub("#", drawn) == NUMBER.sub("#", committed), again
    numbers, before = ([float(x) for x in NUMBER.findall(svg)] for svg in (drawn, committed))
    assert numbers == pytest.approx(before, abs=0.2), again


def test_the_trap_has_equal_fits_and_all_catchiness() -> None:
    catalogue, population = alike_items(21, affinity=0.4)
    assert (catalogue.embedding @ population.taste[0]).tolist() == pytest.approx([0.4] * 21)
    catch = Satiation(catalogue, population, SatiationConfig(num_items=21, embedding_dim=2)).catch
    assert catch[:11].max() < 0.3 and catch[-1] > 2 and bool((catch.diff() >= 0).all())


def test_the_planned_session_earns_more_and_lasts_longer() -> None:
    first, second = re.findall(r">(?:short-sighted|planned): ([\d.]+) in (\d+) steps<", session_figure())
    assert float(second[0]) > 1.5 * float(first[0]) and int(second[1]) > int(first[1])
